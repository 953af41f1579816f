package transfer

import (
	"context"
	"sync"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// handBackWidth is how many owners are offered something at a time. They are given
	// it because they were late: more would make them later.
	handBackWidth = 2
	// maxHandBack bounds what is to be handed back, and maxOfOne what one owner is to have of it:
	// one that does not come back takes no other's room. What is not handed back is found by
	// peeking.
	maxHandBack = 256
	maxOfOne    = 64
	// handBackTime bounds one offer: of a large blob, to a node that hardly ever gets a
	// processor.
	handBackTime = 10 * time.Minute
)

// handBackPauses are how long each offer of the same content waits: the owner may be away,
// or late, for some time.
var handBackPauses = []time.Duration{0, 15 * time.Second, 2 * time.Minute}

// A handBack offers owners what this node got from a registry in their place, since they
// were late, or since the members did not agree on the ring. So each finds what is its own
// in its shard. Clients do not wait for that.
type handBack struct {
	*rooms
	own    *wait.Life
	slots  chan struct{}   // for what is being offered
	pauses []time.Duration // handBackPauses; tests shorten them

	mu      sync.Mutex     // guards the fields below; never held during I/O
	waiting int            // how much is to be handed back
	of      map[string]int // how much of it to each owner, by its id
}

// newHandBack returns a handBack. Close it.
func newHandBack(r *rooms) *handBack {
	return &handBack{rooms: r, own: wait.NewLife(), slots: make(chan struct{}, handBackWidth), pauses: handBackPauses, of: map[string]int{}}
}

// close ends the offers at once.
func (h *handBack) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	h.own.Close(now)
}

// offer offers the owner of q's content, soon, what the shard has got of it just now;
// mediaType is a manifest's, "" for a blob. It returns at once.
func (h *handBack) offer(q grants.Request, mediaType string) {
	to := h.mesh.Owner(q.Content())
	if to == nil || !h.enter(to.ID()) {
		return
	}
	if !h.own.Go(func() {
		defer h.leave(to.ID())
		h.insist(q, mediaType)
	}) {
		h.leave(to.ID())
	}
}

// enter takes room for something of that owner, if there is any.
func (h *handBack) enter(owner string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting >= maxHandBack || h.of[owner] >= maxOfOne {
		return false
	}
	h.waiting++
	h.of[owner]++
	return true
}

// leave gives the room back.
func (h *handBack) leave(owner string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting--
	if h.of[owner]--; h.of[owner] == 0 {
		delete(h.of, owner)
	}
}

// insist offers until the owner takes it, a few times.
func (h *handBack) insist(q grants.Request, mediaType string) {
	ctx := oci.Caller{User: oci.Node}.Into(h.own.Context())
	for _, pause := range h.pauses {
		if wait.For(ctx, pause) != nil {
			return
		}
		select {
		case h.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		done := h.try(ctx, q, mediaType)
		<-h.slots
		if done {
			return
		}
	}
}

// try offers once. It reports whether nothing is left to do.
func (h *handBack) try(ctx context.Context, q grants.Request, mediaType string) bool {
	to := h.mesh.Owner(q.Content())
	if to == nil {
		return true // the ring has changed
	}
	ctx, cancel := context.WithTimeout(ctx, handBackTime)
	defer cancel()
	ref := oci.Ref{Registry: q.Registry, Digest: q.Digest}
	now, err := to.Progress(ctx, ref) // one that hangs must not keep others waiting
	if err == nil && !now.Held {
		err = to.Offer(ctx, ref, mediaType)
	}
	if err != nil {
		h.log.DebugContext(ctx, "an owner did not take what was got in its place", "peer", to.Name(), "registry", q.Registry, "digest", q.Digest.String(), "error", err)
	}
	return err == nil
}
