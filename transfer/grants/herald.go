package grants

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// tellPause is how long nothing more is told about a repository. What is heard
	// meanwhile is told at its end: there may be new grants by then.
	tellPause = 5 * time.Second
	// tellWidth is about how many repositories is told at a time.
	tellWidth = 16
	// maxTelling bounds the repositories that are told about, or just were.
	maxTelling = 4096
)

// A herald tells the other members about refusals, for a member's own grants
// would outlive them in an outage. Whoever hears a refusal from the registry tells
// the others, who note it and tell nobody. Clients do not wait for that. A member
// that is away at the time does not hear it.
type herald struct {
	mesh  *mesh.Mesh
	life  *wait.Life
	log   *slog.Logger
	slots chan struct{}

	mu   sync.Mutex             // guards the fields below; never held during I/O
	last map[oci.Ref]*oci.Error // the repositories being told about, and what was heard last
}

// newHerald returns a herald. Close it.
func newHerald(cfg Config) *herald {
	return &herald{mesh: cfg.Mesh, life: wait.NewLife(), log: cfg.Log, slots: make(chan struct{}, tellWidth), last: map[oci.Ref]*oci.Error{}}
}

// close ends the telling at once.
func (h *herald) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	h.life.Close(now)
}

// tell lets the other members know of the refusal e, soon. Repositories that this
// node knows come first: others may not exist.
func (h *herald) tell(repo oci.Ref, e *oci.Error, known bool) {
	if len(h.mesh.Members()) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.last)
	_, telling := h.last[repo]
	if !telling && (n >= maxTelling || n >= maxTelling/2 && !known) {
		return
	}
	if telling || h.life.Go(func() { h.tellAll(repo) }) {
		h.last[repo] = e
	}
}

// tellAll tells all others about a repository's refusals until none is new.
func (h *herald) tellAll(repo oci.Ref) {
	ctx := h.life.Context()
	for e := h.news(repo, nil); e != nil; e = h.news(repo, e) {
		select {
		case h.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		h.tellOnce(ctx, repo)
		<-h.slots
		if wait.For(ctx, tellPause) != nil {
			return
		}
	}
}

// tellOnce tells all others.
func (h *herald) tellOnce(ctx context.Context, repo oci.Ref) {
	var wg sync.WaitGroup
	for _, p := range h.mesh.Members() {
		wg.Go(func() {
			if err := p.Refused(ctx, repo); err != nil {
				h.log.Debug("a member was not told of a refusal", "peer", p.Name(), "registry", repo.Registry, "repository", repo.Repository, "error", err)
			}
		})
	}
	wg.Wait()
}

// news returns the last refusal of the repository that was heard. Once that is
// told there is no news, and the repository is told about no more. An error is one
// refusal however many requests it ends.
func (h *herald) news(repo oci.Ref, told *oci.Error) *oci.Error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.last[repo]; e != told {
		return e
	}
	delete(h.last, repo)
	return nil
}
