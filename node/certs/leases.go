package certs

import (
	"sync"
	"time"
)

// maxLeases bounds the locks that are held at a time.
const maxLeases = 256

// leases are the locks that the keeper has lent. A lock whose holder is not heard of ends.
type leases struct {
	mu    sync.Mutex // guards the field below
	lends map[string]lease
}

// A lease is a lock in somebody's hand.
type lease struct {
	holder string
	until  time.Time
}

// lend lends a lock, or for longer to who has it, and reports whether it did.
func (l *leases) lend(name, holder string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, one := range l.lends {
		if !now.Before(one.until) {
			delete(l.lends, other)
		}
	}
	one, lent := l.lends[name]
	if lent && one.holder != holder || !lent && len(l.lends) >= maxLeases {
		return false
	}
	if l.lends == nil {
		l.lends = map[string]lease{}
	}
	l.lends[name] = lease{holder, now.Add(leaseTime)}
	return true
}

// back takes a lock back from its holder.
func (l *leases) back(name, holder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lends[name].holder == holder {
		delete(l.lends, name)
	}
}

// clear forgets all: another member is the keeper.
func (l *leases) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.lends)
}
