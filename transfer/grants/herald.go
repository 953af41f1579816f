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
	// tellPause is how long the same is not told again. What is heard meanwhile is told
	// at its end: there may be new grants by then.
	tellPause = 5 * time.Second
	// tellWidth is how much is told at a time, of what this node had a grant for and of
	// the rest.
	tellWidth = 16
	// maxTelling bounds what is being told, or just was.
	maxTelling = 4096
)

// News is what a registry took back: a repository, or what ref names in it.
type news struct {
	ref  oci.Ref
	as   oci.Resource
	lost bool // the registry does not have what ref's digest or tag names
}

// A herald tells the other members what was taken back, for a member's own grants
// would outlive it in an outage. Whoever hears of it from the registry tells the
// others, who note it and tell nobody. Clients do not wait for that. A member that is
// away at the time does not hear it.
type herald struct {
	mesh  *mesh.Mesh
	life  *wait.Life
	log   *slog.Logger
	slots map[bool]chan struct{} // by whether this node had a grant

	mu   sync.Mutex          // guards the fields below; never held during I/O
	last map[news]*oci.Error // what is being told, and the last answer that said so
}

// newHerald returns a herald. Close it.
func newHerald(cfg Config) *herald {
	return &herald{mesh: cfg.Mesh, life: wait.NewLife(), log: cfg.Log, slots: map[bool]chan struct{}{true: make(chan struct{}, tellWidth), false: make(chan struct{}, tellWidth)}, last: map[news]*oci.Error{}}
}

// close ends the telling at once.
func (h *herald) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	h.life.Close(now)
}

// tell lets the other members know what the answer e took back, soon. What this node
// had a grant for does not wait for the rest, which may be made up.
func (h *herald) tell(n news, e *oci.Error, known bool) {
	if len(h.mesh.Members()) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	size := len(h.last)
	_, telling := h.last[n]
	if !telling && (size >= maxTelling || size >= maxTelling/2 && !known) {
		return
	}
	if telling || h.life.Go(func() { h.tellAll(n, h.slots[known]) }) {
		h.last[n] = e
	}
}

// tellAll tells all others until no new answer says the same.
func (h *herald) tellAll(n news, slots chan struct{}) {
	ctx := h.life.Context()
	for e := h.next(n, nil); e != nil; e = h.next(n, e) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		h.tellOnce(ctx, n)
		<-slots
		if wait.For(ctx, tellPause) != nil {
			return
		}
	}
}

// tellOnce tells all others.
func (h *herald) tellOnce(ctx context.Context, n news) {
	var wg sync.WaitGroup
	for _, p := range h.mesh.Members() {
		wg.Go(func() {
			if err := n.tell(ctx, p); err != nil {
				h.log.Debug("a member was not told what a registry took back", "peer", p.Name(), "registry", n.ref.Registry, "image", n.ref.Repository, "error", err)
			}
		})
	}
	wg.Wait()
}

// tell tells one member.
func (n news) tell(ctx context.Context, p mesh.Peer) error {
	if n.lost {
		return p.Lost(ctx, n.ref, n.as)
	}
	return p.Refused(ctx, n.ref)
}

// next returns the last answer that was heard. Once that is told there is none, and
// the news is forgotten. An error is one answer however many requests it ends.
func (h *herald) next(n news, told *oci.Error) *oci.Error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.last[n]; e != told {
		return e
	}
	delete(h.last, n)
	return nil
}
