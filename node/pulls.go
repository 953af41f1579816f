package node

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
	"oci-proxy/transfer/wire"
)

// pulls know whether somebody is pulling. A pull is many requests, and docker
// opens a connection for each blob: a drain that closed the port at once would cut
// pulls between two layers.
type pulls struct {
	mu     sync.Mutex // guards the fields below; never held during I/O
	active map[*answering]struct{}
	ended  time.Time     // of the last request
	idle   chan struct{} // closed when active drops to 0; nil if nobody waits
}

// An answering is a request of a pull that is being answered.
type answering struct {
	request oci.Request
	body    bool // of its answer is sent: it is no HEAD
	began   time.Time
	sent    *wire.Paced                    // tells the bytes of the answer's body; nil: nobody does
	size    atomic.Int64                   // of the body, -1 as long as nobody knows
	way     atomic.Pointer[oci.Provenance] // nil before anything came
	first   oci.Provenance                 // what way points to at first; does not change then
}

// came notes where the answer comes from. Only the goroutine that answers calls it.
func (one *answering) came(way oci.Provenance) {
	known := &one.first
	if one.way.Load() != nil {
		known = new(oci.Provenance)
	}
	*known = way
	one.way.Store(known)
}

// newAnswering returns what can be told of a request, which w answers.
func newAnswering(w http.ResponseWriter, r *http.Request, req oci.Request) *answering {
	rec := recordOf(r)
	one := &answering{request: req, body: r.Method == http.MethodGet, began: time.Now()}
	one.size.Store(-1)
	one.sent, _ = w.(*wire.Paced)
	rec.ref, rec.kind, rec.answering = &one.request.Ref, pullKind(&req), one
	return one
}

// begin notes that a request of a pull is being answered. Call end in the end.
func (p *pulls) begin(one *answering) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active == nil {
		p.active = map[*answering]struct{}{}
	}
	p.active[one] = struct{}{}
}

// end notes that a request has been answered.
func (p *pulls) end(one *answering) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.active, one)
	p.ended = time.Now()
	if len(p.active) == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// underWay counts the requests of pulls that are being answered.
func (p *pulls) underWay() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(len(p.active))
}

// now lists the requests of pulls that are being answered, in no order.
func (p *pulls) now() []*answering {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.active))
}

// quiet waits until nothing was asked for during betweenLayers, or ctx ends.
func (p *pulls) quiet(ctx context.Context) {
	for ctx.Err() == nil {
		idle, left := p.look()
		switch {
		case idle != nil: // nobody knows how long the requests take
			_ = wait.Until(ctx, idle, 0) // the loop sees ctx's end
		case left > 0:
			_ = wait.For(ctx, left) // as above
		default:
			return
		}
	}
}

// look returns a channel that is closed when the requests under way have ended. If
// there are none it returns how much of the pause is left.
func (p *pulls) look() (idle <-chan struct{}, left time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.active) == 0 {
		return nil, time.Until(p.ended.Add(betweenLayers))
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	return p.idle, 0
}
