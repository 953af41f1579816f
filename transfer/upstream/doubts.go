package upstream

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// doubtedFor is how long an address comes after the others of its name that took a connection
	// and no request.
	doubtedFor = 10 * time.Minute
	// maxDoubted bounds the addresses of which that is remembered, for one registry.
	maxDoubted = 256
)

// doubts remember addresses that took a connection over which then no answer came: the machine
// there is broken, or its packets get lost once they are large. A dial takes the first address
// that connects, and that would be the same one with each try. The zero value is ready.
type doubts struct {
	mu    sync.Mutex                                // guards until; never held during I/O
	until *simplelru.LRU[netip.AddrPort, time.Time] // nil: there was none yet
}

// note notes whether a request over a new connection to an address was answered.
func (d *doubts) note(at netip.AddrPort, answered bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !answered:
		if d.until == nil {
			d.until = newMemory[netip.AddrPort, time.Time](maxDoubted)
		}
		d.until.Add(at, time.Now().Add(doubtedFor))
	case d.until != nil:
		d.until.Remove(at)
	}
}

// last moves the addresses that are doubted behind the others.
func (d *doubts) last(to []netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil {
		return
	}
	now := time.Now()
	doubted := func(at netip.AddrPort) int {
		if until, ok := d.until.Peek(at); ok && now.Before(until) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(to, func(a, b netip.AddrPort) int { return doubted(a) - doubted(b) })
}
