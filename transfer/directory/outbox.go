package directory

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// maxChanges bounds what an owner is still to be told of in changes. Of more it is told
	// all.
	maxChanges = 512
	// gatherFor is how long changes are gathered before their owner is told.
	gatherFor = 250 * time.Millisecond
	// firstPause is when an owner is told again that could not be; it doubles up to lastPause.
	firstPause = 5 * time.Second
	lastPause  = 2 * time.Minute
)

// An Owner is a member that is to be told.
type Owner struct {
	ID   string
	Boot uint64 // which of its starts it is: what an earlier one was told is lost
	Up   bool   // it can be told now
}

// An Outbox knows what each owner is still to be told. Its methods may be called from any
// goroutine, and return at once.
type Outbox struct {
	after time.Duration

	mu    sync.Mutex // guards the fields below
	ring  uint64
	boxes map[string]*box
	more  chan struct{}
}

// A box is what one owner is to be told.
type box struct {
	boot    uint64
	up      bool
	session uint64 // in which it is told; 0: it is to be told all
	next    uint32
	due     time.Time // when it is told all
	pause   time.Duration
	busy    bool // it is being told
	changes map[Key]bool
	since   time.Time // of the first of the changes
}

// NewOutbox returns an empty Outbox. After a change of the ring, owners are told all after
// that time, or up to twice that.
func NewOutbox(after time.Duration) *Outbox {
	return &Outbox{after: after, boxes: map[string]*box{}, more: make(chan struct{}, 1)}
}

// More returns what brings a value when there may be more to tell than Due said.
func (o *Outbox) More() <-chan struct{} { return o.more }

// See hears who the owners are in the ring of that hash.
func (o *Outbox) See(ring uint64, owners []Owner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	due := time.Now().Add(o.jitter(len(owners))) // the same for all, which are told from one list
	known := make(map[string]bool, len(owners))
	for _, one := range owners {
		known[one.ID] = true
		b := o.boxes[one.ID]
		switch {
		case b == nil:
			b = &box{}
			o.boxes[one.ID] = b
			fallthrough
		case ring != o.ring, b.boot != one.Boot, one.Up && !b.up: // it may not count any more on what it was told
			b.anew(due)
			b.pause = 0
		}
		b.boot, b.up = one.Boot, one.Up
	}
	for id := range o.boxes {
		if !known[id] {
			delete(o.boxes, id)
		}
	}
	o.ring = ring
}

// jitter is how long to wait before all is told, in a cluster of so many others.
func (o *Outbox) jitter(others int) time.Duration {
	return o.after + rand.N(o.after*time.Duration(max(1, others/64))+1)
}

// anew makes the owner be told all at that time.
func (b *box) anew(due time.Time) {
	b.session, b.due, b.changes = 0, due, nil
}

// Note notes that this node holds a blob of the owner of that id now, or does so no more.
func (o *Outbox) Note(owner string, k Key, held bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.session == 0 { // it is told all anyhow
		return
	}
	if b.changes != nil {
		if b.changes[k] = held; len(b.changes) > maxChanges {
			b.anew(time.Now().Add(o.jitter(len(o.boxes))))
		}
		return
	}
	b.changes, b.since = map[Key]bool{k: held}, time.Now()
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// Due returns the owners that are to be told all now, and those that are to be told of
// changes. If there are none, it returns for how long there will be none, unless More brings
// something; 0: for ever.
func (o *Outbox) Due(now time.Time) (all, changes []string, idle time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, b := range o.boxes {
		if b.busy || !b.up {
			continue
		}
		left := b.due.Sub(now)
		if b.session != 0 {
			left = b.since.Add(gatherFor).Sub(now)
		}
		switch {
		case b.session != 0 && len(b.changes) == 0:
		case left > 0:
			if idle == 0 || left < idle {
				idle = left
			}
		case b.session == 0:
			all = append(all, id)
		default:
			changes = append(changes, id)
		}
	}
	return all, changes, idle
}

// Begin begins to tell the owner all. What this node holds is to be listed after that, so
// that Note brings all that changes meanwhile. The session is 0 if there is nothing to tell.
func (o *Outbox) Begin(owner string) (session uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.busy {
		return 0
	}
	b.busy, b.session, b.next, b.changes = true, rand.Uint64()|1, 0, nil
	return b.session
}

// All returns the messages of a session that tell the owner all: keys.
func (o *Outbox) All(owner string, session uint64, keys []Key) (all []*Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.session != session {
		return nil
	}
	for {
		some := keys[:min(len(keys), MaxKeys)]
		keys = keys[len(some):]
		all = append(all, &Message{Session: session, Number: b.next, Ring: o.ring, First: b.next == 0, Last: len(keys) == 0, Held: some})
		if b.next++; len(keys) == 0 {
			return all
		}
	}
}

// Changes returns a message that tells the owner what has changed, nil if nothing has.
func (o *Outbox) Changes(owner string) *Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.busy || b.session == 0 || len(b.changes) == 0 {
		return nil
	}
	m := &Message{Session: b.session, Number: b.next, Ring: o.ring}
	for k, held := range b.changes {
		if held {
			m.Held = append(m.Held, k)
		} else {
			m.Gone = append(m.Gone, k)
		}
	}
	b.busy, b.changes = true, nil
	b.next++
	return m
}

// Told hears how the telling in a session ended. Unless all is well the owner is told all
// again, later.
func (o *Outbox) Told(owner string, session uint64, well bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil {
		return
	}
	b.busy = false
	switch {
	case b.session != session: // all is to be told anew
	case well:
		b.pause = 0
	default:
		b.pause = min(max(firstPause, 2*b.pause), lastPause)
		b.anew(time.Now().Add(b.pause/2 + rand.N(b.pause/2)))
	}
}
