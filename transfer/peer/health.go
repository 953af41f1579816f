package peer

import (
	"context"
	"errors"
	"oci-proxy/transfer/mesh"
	"sync"
	"syscall"
	"time"
)

const (
	// A peer that failed is passed over for firstRest, and as often as it
	// fails again for twice the time, up to lastRest.
	firstRest = 2 * time.Second
	lastRest  = 30 * time.Second
	// strikes failures of the lesser kind within strikeTime are one of the other.
	strikes    = 3
	strikeTime = 30 * time.Second
)

// A pulse is the health of one boot of a member.
type pulse struct {
	mu    sync.Mutex
	down  bool
	rest  time.Duration // until the next ping
	back  time.Time     // when it was last found alive
	minor [strikes - 1]time.Time
}

// fail notes a failure and reports whether the peer is passed over from now on.
// slow: what failed is the link's speed, of which a ping tells nothing.
func (p *pulse) fail(grave, slow bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return false
	}
	now := time.Now()
	if !grave {
		first := p.minor[0]
		copy(p.minor[:], p.minor[1:])
		p.minor[strikes-2] = now
		if first.IsZero() || now.Sub(first) > strikeTime {
			return false
		}
	}
	p.down, p.minor = true, [strikes - 1]time.Time{}
	if now.Sub(p.back) > lastRest {
		p.rest = 0 // it was well for a while: it starts anew
	}
	p.longer()
	if slow {
		p.rest = lastRest
	}
	return true
}

// longer doubles the rest.
func (p *pulse) longer() { p.rest = min(max(2*p.rest, firstRest), lastRest) }

// stillDown notes that a ping failed.
func (p *pulse) stillDown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longer()
}

// heal notes that a ping succeeded.
func (p *pulse) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.back = false, time.Now()
}

// well reports whether the peer is not passed over.
func (p *pulse) well() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.down
}

// pause is how long the next ping waits.
func (p *pulse) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rest
}

// isGrave reports whether a peer that fails so is gone for now, and not just
// unlucky: nobody listens there, nobody we know, or the connection was reset.
func isGrave(err error) bool {
	_, dial := errors.AsType[*dialError](err)
	return dial || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// blame notes that the link's peer failed with err. Whoever is the first to see
// it down sends the pings.
func (c *Client) blame(l *link, grave bool, err error) {
	if l.life.Err() != nil || !l.pulse.fail(grave, errors.Is(err, mesh.ErrCrawls)) {
		return // what befalls a link that was given up says nothing of the peer as it is now
	}
	c.cfg.Log.Warn("peer is passed over", "peer", c.name(l.member.ID), "error", err)
	l.hangUp() // pings find out on fresh connections
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.pings.Go(func() { c.revive(l) })
	}
}

// revive pings the link's peer until it answers or the link is given up.
func (c *Client) revive(l *link) {
	for start := time.Now(); ; l.pulse.stillDown() {
		select {
		case <-time.After(l.pulse.pause()):
		case <-l.life.Done():
			return
		}
		if now, err := c.link(l.member.ID); err != nil || now != l {
			return // it is gone, or has restarted
		}
		if c.ping(l) == nil {
			l.pulse.heal()
			c.cfg.Log.Info("peer is back", "peer", c.name(l.member.ID), "after", time.Since(start).Round(time.Millisecond))
			return
		}
	}
}

// ping asks the link's peer for a sign of life. To be busy is one.
func (c *Client) ping(l *link) error {
	ctx, cancel := context.WithTimeout(l.life, c.times.progress)
	defer cancel()
	resp, err := c.once(ctx, l, ask{method: "GET", path: root + "ping"})
	if _, isBusy := errors.AsType[*busy](err); isBusy {
		return nil
	}
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
