package peer

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"syscall"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/wait"
)

// strikes is how many minor failures within strikeTime count as a grave one.
const strikes = 3

// A health is that of one boot of a member. A member in quarantine has lost its place on
// routes: it gets nothing from a registry for others, unless there is nobody else. It is
// still asked for what it holds: it may just be late. One that lied is not.
type health struct {
	mu          sync.Mutex // guards the fields below; never held during I/O
	quarantined bool
	silent      bool          // it did not answer its last ping
	lied        bool          // since it sent what cannot be true
	quarantine  time.Duration // until the next ping
	back        time.Time     // when it was last found alive
	minor       [strikes - 1]time.Time
}

// fail notes a failure and reports whether the peer is in quarantine from now on.
// A ping tells nothing about a link's speed, so if that failed the quarantine is the
// longest at once.
func (h *health) fail(grave bool, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lied = h.lied || errors.Is(err, mesh.ErrLies)
	if h.quarantined {
		return false
	}
	now := time.Now()
	if !grave {
		first := h.minor[0]
		copy(h.minor[:], h.minor[1:])
		h.minor[strikes-2] = now
		if first.IsZero() || now.Sub(first) > strikeTime {
			return false
		}
	}
	h.quarantined, h.minor = true, [strikes - 1]time.Time{}
	if now.Sub(h.back) > lastQuarantine {
		h.quarantine = 0 // it was well for a while: it starts anew
	}
	h.longer()
	if errors.Is(err, mesh.ErrCrawls) {
		h.quarantine = lastQuarantine
	}
	return true
}

// longer doubles the quarantine. The caller holds the lock.
func (h *health) longer() { h.quarantine = min(max(2*h.quarantine, firstQuarantine), lastQuarantine) }

// missed notes that a ping failed.
func (h *health) missed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.longer()
	h.silent = true
}

// heal notes that a ping succeeded.
func (h *health) heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.quarantined, h.silent, h.lied, h.back = false, false, false, time.Now()
}

// lies reports whether the peer is in quarantine since it sent what cannot be true.
func (h *health) lies() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lied
}

// good reports whether the peer is not in quarantine.
func (h *health) good() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.quarantined
}

// A pulse is how soon a peer may be expected to answer.
type pulse int

const (
	well pulse = iota
	late       // it has been late within strikeTime, or is in quarantine
	hung       // it is in quarantine, and did not answer its last ping
)

// pulse tells how soon the peer may be expected to answer.
func (h *health) pulse() pulse {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.quarantined && h.silent:
		return hung
	case h.quarantined, time.Since(h.minor[strikes-2]) < strikeTime:
		return late
	default:
		return well
	}
}

// pause is how long the next ping waits.
func (h *health) pause() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.quarantine
}

// isGrave reports whether a peer that fails with err is gone for now, and not just
// unlucky: nobody listens there, somebody else does, or the connection was reset.
func isGrave(err error) bool {
	_, dial := errors.AsType[*dialError](err)
	return dial || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// strike notes that the link's peer failed with err. The failure that puts it in
// quarantine also begins the pings.
func (c *Client) strike(l *link, grave bool, err error) {
	if l.life.Err() != nil || !l.health.fail(grave, err) {
		return // a link that was given up tells nothing about the peer as it is now
	}
	c.log.Warn("peer quarantined until it answers a ping", "peer", c.member.name(l.member.ID), "error", err)
	l.hangUp() // pings need fresh connections
	c.life.Go(func() { c.revive(l) })
}

// revive pings the link's peer until it answers or the link is given up.
func (c *Client) revive(l *link) {
	for start := time.Now(); ; l.health.missed() {
		if wait.For(l.life, l.health.pause()) != nil {
			return
		}
		if now, err := c.links.to(l.member.ID); err != nil || now != l {
			return // it is gone, or has restarted
		}
		if c.ping(l) == nil {
			l.health.heal()
			c.log.Info("peer answers again", "peer", c.member.name(l.member.ID), "took_ms", wait.Milliseconds(time.Since(start)))
			return
		}
	}
}

// ping asks the link's peer for a sign of life, which is padded as Stats is. A busy peer
// gives one.
func (c *Client) ping(l *link) error {
	ctx, cancel := context.WithTimeout(l.life, c.times.progress)
	defer cancel()
	resp, err := c.once(ctx, l, ask{method: http.MethodGet, path: root + "ping", padded: true})
	if _, isBusy := errors.AsType[*busy](err); isBusy {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = c.content(ctx, l, resp, maxJSON)
	return errors.Join(err, resp.Body.Close())
}
