package node

import (
	"context"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// pulls know whether somebody is pulling. A pull is many requests, and docker
// opens a connection for each blob: a drain that closed the port at once would cut
// pulls between two layers.
type pulls struct {
	mu     sync.Mutex // guards the fields below; never held during I/O
	active int
	ended  time.Time     // of the last request
	idle   chan struct{} // closed when active drops to 0; nil if nobody waits
}

// begin notes that a request of a pull is being answered.
func (p *pulls) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active++
}

// end notes that a request has been answered.
func (p *pulls) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active--
	p.ended = time.Now()
	if p.active == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// underWay counts the requests of pulls that are being answered.
func (p *pulls) underWay() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(p.active)
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
	if p.active == 0 {
		return nil, time.Until(p.ended.Add(betweenLayers))
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	return p.idle, 0
}
