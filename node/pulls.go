package node

import (
	"context"
	"sync"
	"time"
)

// pulls knows whether somebody is pulling. A pull is many requests: docker
// opens a connection for each blob, so a drain that closed the port at once
// would cut pulls between two layers.
type pulls struct {
	mu     sync.Mutex
	active int
	ended  time.Time     // when the last request did
	idle   chan struct{} // closed when active comes to 0; nil if nobody waits
}

// begin notes that a request of a pull is being answered.
func (p *pulls) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active++
}

// end notes that one has been.
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

// betweenLayers is how long a client may take from one request of a pull to
// the next without the drain taking the pull for finished.
const betweenLayers = time.Second

// quiet waits until nothing was asked for during such a pause, or ctx ends.
func (p *pulls) quiet(ctx context.Context) {
	for {
		idle, left := p.look()
		if idle == nil && left <= 0 {
			return
		}
		t := time.NewTimer(left)
		wake := t.C
		if idle != nil {
			wake = nil // how long the request takes nobody knows
		}
		select {
		case <-idle:
		case <-wake:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// look returns what is closed when the requests under way have ended, or else
// how much is left of the pause.
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

// awaitQuiet keeps the port open for pulls under way. /_/ready says meanwhile
// that others should go elsewhere; where nobody listens to that, half of the
// drain's time is left for what then is still being sent.
func (n *Node) awaitQuiet(drain context.Context) {
	ctx, cancel := context.WithTimeout(drain, n.cfg.ShutdownTimeout/2)
	defer cancel()
	n.pulls.quiet(ctx)
}
