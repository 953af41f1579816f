package transfer

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// A private registry's refusal of a repository ends what it vouched for there,
// at all nodes: another's voucher would outlive it in an outage. Whoever hears
// one from the registry tells the others, who note it and tell nobody. Clients
// don't wait for that, and a member that is away at the time does not hear it.

const (
	// tellPause is how long nothing more is told of a repository. What is heard
	// meanwhile is told at its end: there may be new vouchers by then.
	tellPause = 5 * time.Second
	// tellWidth is of how many repositories is told at a time.
	tellWidth = 16
	// maxTelling bounds the repositories that are told of, or just were.
	maxTelling = 4096
)

// heed notes a private registry's refusal: whoever lost the right to a
// repository must not get by an outage what a HEAD would not give.
func (f *Fetcher) heed(ref oci.Ref, err error) {
	e, ok := oci.AsError(err)
	if !ok || e.Kind != oci.Denied || e.Status == 0 || !f.cfg.Policy(ref.Registry).Private {
		return
	}
	known := f.refuse(ref)
	if f.cfg.Mesh != nil && !e.Relayed {
		f.tell(oci.Ref{Registry: ref.Registry, Repository: ref.Repository}, e, known)
	}
}

// Refused notes that ref's registry refused another member ref's repository.
func (m *holder) Refused(ref oci.Ref) {
	if m.f.cfg.Policy(ref.Registry).Private {
		m.f.refuse(ref)
	}
	m.f.cfg.Log.Debug("refusal told by a member", "registry", ref.Registry, "repository", ref.Repository)
}

// refuse notes a refusal of a repository that the registry ever vouched for,
// and reports whether it did: clients choose the names of others.
func (f *Fetcher) refuse(ref oci.Ref) (known bool) {
	store := f.cfg.Store(ref.Registry)
	if _, known = store.Tag(refusedKey(ref)); known {
		now := time.Now()
		store.SetTag(cache.Tag{Key: refusedKey(ref), Digest: digest.FromString(now.String()), Checked: now}) // another digest: it is written at once
	}
	return known
}

// refusedSince reports whether a private registry has refused ref's repository
// since then.
func (f *Fetcher) refusedSince(ref oci.Ref, then time.Time) bool {
	if !f.cfg.Policy(ref.Registry).Private {
		return false
	}
	t, known := f.cfg.Store(ref.Registry).Tag(refusedKey(ref))
	return !known || !then.After(t.Checked) // unknown: whether it did could not be noted
}

// tell lets the other members know of the refusal e, soon. Repositories that
// this node knows come first: others may not exist.
func (f *Fetcher) tell(ref oci.Ref, e *oci.Error, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.telling)
	_, telling := f.telling[ref]
	if f.closed || !telling && (n >= maxTelling || n >= maxTelling/2 && !known) {
		return
	}
	f.telling[ref] = e
	if !telling {
		f.tellers.Go(func() { f.tellAll(ref) })
	}
}

// tellAll tells all others of a repository's refusals until none is new.
func (f *Fetcher) tellAll(ref oci.Ref) {
	for e := f.news(ref, nil); e != nil; e = f.news(ref, e) {
		select {
		case f.tellSlots <- struct{}{}:
		case <-f.ctx.Done():
			return
		}
		var wg sync.WaitGroup
		for _, p := range f.cfg.Mesh.Members() {
			wg.Go(func() {
				if err := p.Refused(f.ctx, ref); err != nil {
					f.cfg.Log.Debug("refusal not told", "peer", p.Name(), "registry", ref.Registry, "repository", ref.Repository, "error", err)
				}
			})
		}
		wg.Wait()
		<-f.tellSlots
		if sleep(f.ctx, tellPause) != nil {
			return
		}
	}
}

// news returns the last refusal of the repository that was heard. If that is
// told, there is none, and the repository is not told of any more. An error is
// one refusal however many requests it ends.
func (f *Fetcher) news(ref oci.Ref, told *oci.Error) *oci.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.telling[ref]; e != told {
		return e
	}
	delete(f.telling, ref)
	return nil
}
