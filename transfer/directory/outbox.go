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
	telling uint64         // the session in which it is being told, 0 if it is not
	part    bool           // not all that this node holds was known when it was told
	changes map[Key]string // blobs that came or went, as they were noted
	since   time.Time      // of the first of the changes
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
	b.session, b.due, b.part, b.changes = 0, due, false, nil
}

// Note notes that a blob of the owner of that id has come to this node or has gone. What is true
// of it is seen when the owner is told: two such words may overtake each other.
func (o *Outbox) Note(owner string, k Key, blob string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.session == 0 { // it is told all anyhow
		return
	}
	if b.changes != nil {
		if b.changes[k] = blob; len(b.changes) > maxChanges {
			b.anew(time.Now().Add(o.jitter(len(o.boxes))))
		}
		return
	}
	b.changes, b.since = map[Key]string{k: blob}, time.Now()
	o.wake()
}

// wake says that there may be more to tell than Due said.
func (o *Outbox) wake() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// Due returns the owners that are to be told all now, and those that are to be told of
// changes. It returns for how long there will be no others, unless More brings something; 0: for
// ever. whole says that all that this node holds is known by now: who was told a part is told all.
func (o *Outbox) Due(now time.Time, whole bool) (all, changes []string, idle time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	due := now.Add(o.jitter(len(o.boxes)))
	for id, b := range o.boxes {
		if b.telling != 0 || !b.up {
			continue
		}
		if b.part && whole {
			b.anew(due)
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
	if b == nil || b.telling != 0 {
		return 0
	}
	b.session, b.next, b.part, b.changes = rand.Uint64()|1, 0, false, nil
	b.telling = b.session
	return b.session
}

// Wants reports whether what is told in that session still counts.
func (o *Outbox) Wants(owner string, session uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	return b != nil && session != 0 && b.session == session
}

// All returns the messages of a session that tell the owner all: keys. Unless whole there may be
// more, and the messages say so.
func (o *Outbox) All(owner string, session uint64, keys []Key, whole bool) (all []*Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.session != session {
		return nil
	}
	b.part = !whole
	for {
		some := keys[:min(len(keys), MaxKeys)]
		keys = keys[len(some):]
		all = append(all, &Message{Session: session, Number: b.next, Ring: o.ring, First: b.next == 0, Last: whole && len(keys) == 0, Held: some})
		if b.next++; len(keys) == 0 {
			return all
		}
	}
}

// Changes returns a message that tells the owner what has changed, nil if nothing has. holds
// reports whether this node holds a blob now, and is called without a lock.
func (o *Outbox) Changes(owner string, holds func(blob string) bool) *Message {
	m, changes := o.take(owner)
	for k, blob := range changes {
		if holds(blob) {
			m.Held = append(m.Held, k)
		} else {
			m.Gone = append(m.Gone, k)
		}
	}
	return m
}

// take takes what has changed for the owner, and begins the message that tells of it.
func (o *Outbox) take(owner string) (*Message, map[Key]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.telling != 0 || b.session == 0 || len(b.changes) == 0 {
		return nil, nil
	}
	m, changes := &Message{Session: b.session, Number: b.next, Ring: o.ring}, b.changes
	b.telling, b.changes = b.session, nil
	b.next++
	return m, changes
}

// Told hears how the telling in a session ended. Unless all is well the owner is told all
// again, later.
func (o *Outbox) Told(owner string, session uint64, well bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.telling != session {
		return // it was away meanwhile
	}
	b.telling = 0
	if b.session != session || len(b.changes) > 0 || b.part || !well {
		o.wake() // there is more for it, now or later
	}
	switch {
	case b.session != session: // all is to be told anew
	case well:
		b.pause = 0
	default:
		b.pause = min(max(firstPause, 2*b.pause), lastPause)
		b.anew(time.Now().Add(b.pause/2 + rand.N(b.pause/2)))
	}
}
