package transfer

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// relayAgain is for how long the same answer is not told again. The copy at the other
	// node may give a time that is so much too early.
	relayAgain = time.Minute
	// maxRelayed bounds the questions for which that is remembered.
	maxRelayed = 4096
	// relayWidth is how many answers are told at a time, and how many are heard.
	relayWidth = 8
	// maxRelaying bounds those that wait for that. More are told at their next check.
	maxRelaying = 1024
	// relayTime bounds the hearing of an answer, which may be a list of 32 MiB.
	relayTime = time.Minute
)

// A relay makes sure that what a registry said is known to two nodes, on their disks. The
// node that asked the registry, mostly the owner of the question's key, tells the next on
// the ring, which then asks it for the answer. Clients do not wait for that.
type relay struct {
	*rooms
	// hear gets and keeps what another node knows of the answer.
	hear             func(ctx context.Context, from mesh.Peer, q asked) error
	own              *wait.Life
	telling, hearing *crowd

	mu   sync.Mutex // guards told; never held during I/O
	told *simplelru.LRU[string, relayed]
}

// A relayed is the last answer that was told.
type relayed struct {
	what  string
	until time.Time // it is not told again before
}

// newRelay returns a relay. Close it.
func newRelay(r *rooms, hear func(context.Context, mesh.Peer, asked) error) *relay {
	told, _ := simplelru.NewLRU[string, relayed](maxRelayed, nil) // the size is right
	own := wait.NewLife()
	return &relay{rooms: r, hear: hear, own: own, telling: newCrowd(own), hearing: newCrowd(own), told: told}
}

// close ends the telling and hearing at once.
func (r *relay) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	r.own.Close(now)
}

// tell lets the next node on the ring know, soon, that the registry answered q. what
// names the answer.
func (r *relay) tell(q asked, what string) {
	for _, to := range r.keepers(q) {
		key := q.question().Key() + " " + to.ID()
		if !r.mayTell(key, what) {
			continue
		}
		r.telling.run(func(ctx context.Context) {
			if err := to.Told(ctx, q.question()); err != nil {
				r.untell(key)
				r.log.Debug("a member was not told of an answer", "peer", to.Name(), "registry", q.Registry, "image", q.Repository, "error", err)
			}
		})
	}
}

// copies is how many nodes keep an answer at least.
const copies = 2

// keepers are the first nodes on the route of the question's key but this one; or, if
// only this one may ask the registry, the next on the ring.
func (r *relay) keepers(q asked) (out []mesh.Peer) {
	key := q.place()
	route := r.mesh.Route(q.Registry, key)
	for _, p := range route[:min(copies, len(route))] {
		if p != nil {
			out = append(out, p)
		}
	}
	if near := r.mesh.Near(q.Registry, key); len(out) == 0 && len(near) > 0 {
		out = near[:1]
	}
	return out
}

// mayTell reports whether the answer is to be told, and notes that it is.
func (r *relay) mayTell(key, what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.told.Get(key); ok && last.what == what && time.Now().Before(last.until) {
		return false
	}
	r.told.Add(key, relayed{what, time.Now().Add(relayAgain)})
	return true
}

// untell lets the answer be told again at the next check.
func (r *relay) untell(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told.Remove(key)
}

// heard hears that the registry answered q at another node.
func (r *relay) heard(from mesh.Peer, q asked) {
	r.hearing.run(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, relayTime)
		defer cancel()
		if err := r.hear(ctx, from, q); err != nil {
			r.log.Debug("the answer that a member told of was not kept", "peer", from.Name(), "registry", q.Registry, "image", q.Repository, "error", err)
		}
	})
}

// A crowd runs a few things at a time in goroutines of their own. A bounded number
// waits.
type crowd struct {
	life  *wait.Life
	slots chan struct{}
	room  chan struct{}
}

func newCrowd(life *wait.Life) *crowd {
	return &crowd{life: life, slots: make(chan struct{}, relayWidth), room: make(chan struct{}, maxRelaying)}
}

// run runs fn in its turn, unless too many wait.
func (c *crowd) run(fn func(context.Context)) {
	select {
	case c.room <- struct{}{}:
	default:
		return
	}
	ctx := oci.Caller{User: oci.Node}.Into(c.life.Context())
	begun := c.life.Go(func() {
		defer func() { <-c.room }()
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
			fn(ctx)
		case <-ctx.Done():
		}
	})
	if !begun {
		<-c.room
	}
}

// place is the key whose owner knows the answer for all nodes. Of a tag it does not
// depend on the Accept list.
func (q asked) place() string {
	if q.Tag != "" {
		return placeOf(q.Ref)
	}
	return q.question().Key()
}

// placeOf is place for a tag.
func placeOf(ref oci.Ref) string { return tagKey(ref, oci.ManifestTypes) }
