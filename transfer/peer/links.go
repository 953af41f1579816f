package peer

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

var (
	errUnknown = errors.New("no such member")
	errClosed  = errors.New("this node is shutting down")
)

// links are the links to members, one for each. There are hardly more of them than
// members that gossip knows (see sweep).
type links struct {
	life      *wait.Life
	member    roster
	dial      dialer
	handshake time.Duration                // how long TLS may take to connect
	dead      func(id string, boot uint64) // hears that the address of a member's start refuses connections
	idle      *idle

	mu     sync.Mutex // guards the fields below; never held during I/O
	closed bool
	byID   map[string]*link
	most   int // so many of them make for a sweep
}

// to returns the link to a member as it is now.
func (b *links) to(id string) (*link, error) {
	m, known := b.member(id)
	if !known || len(m.Nonce) == 0 {
		b.forget(id)
		return nil, errUnknown
	}
	b.mu.Lock()
	old := b.byID[id]
	if b.closed {
		b.mu.Unlock()
		return nil, errClosed
	}
	if old != nil && old.fits(m) {
		b.mu.Unlock()
		return old, nil
	}
	m.ID = id
	l := newLink(b.life, m, b.dial, b.handshake, b.dead)
	b.byID[id] = l
	many := len(b.byID) > b.most
	b.mu.Unlock()
	if old != nil {
		b.idle.forget(old)
		old.close()
	}
	if many {
		b.sweep()
	}
	return l, nil
}

// healthy reports whether a member is known and not in quarantine.
func (b *links) healthy(id string) bool {
	m, known := b.member(id)
	b.mu.Lock()
	l := b.byID[id]
	b.mu.Unlock()
	return known && (l == nil || !l.fits(m) || l.health.good())
}

// lies reports whether a member is in quarantine for lies.
func (b *links) lies(id string) bool {
	m, known := b.member(id)
	b.mu.Lock()
	l := b.byID[id]
	b.mu.Unlock()
	return known && l != nil && l.fits(m) && l.health.lies()
}

// pulse tells how soon a member may be expected to answer.
func (b *links) pulse(id string) pulse {
	b.mu.Lock()
	l := b.byID[id]
	b.mu.Unlock()
	if l == nil {
		return well
	}
	return l.health.pulse()
}

// sweep forgets members that are gone. It runs when links are made: each time in a small cluster, and
// in a large one when an eighth more are there.
func (b *links) sweep() {
	b.mu.Lock()
	ids := slices.Collect(maps.Keys(b.byID))
	b.mu.Unlock()
	for _, id := range ids {
		if _, known := b.member(id); !known {
			b.forget(id)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.most = len(b.byID) + len(b.byID)/8
}

// forget gives up the link to a member.
func (b *links) forget(id string) {
	b.mu.Lock()
	l := b.byID[id]
	delete(b.byID, id)
	b.mu.Unlock()
	if l != nil {
		b.idle.forget(l)
		l.close()
	}
}

// close gives up all links. No new one is made.
func (b *links) close() {
	b.mu.Lock()
	b.closed = true
	gone := b.byID
	b.byID = map[string]*link{}
	b.mu.Unlock()
	for _, l := range gone {
		l.close()
	}
}
