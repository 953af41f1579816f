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
	// restFor is how long owners wait for the ring to come to rest before they are told.
	restFor = 30 * time.Second
	// firstPause is when an owner is told again that could not be; it doubles up to lastPause.
	firstPause = 5 * time.Second
	lastPause  = 2 * time.Minute
	// mendAfter is when all owners are told all once more, and up to twice that: so what was
	// lost on the way mends itself, and what nobody needs to be told any more goes.
	mendAfter = time.Hour
	// maxFormers bounds the partitions of which owners are told further on that do not own them. If there
	// are more, all are told all.
	maxFormers = 1 << 15
)

// An Owner is a member that is to be told.
type Owner struct {
	ID   string
	Boot uint64 // which of its starts it is: what an earlier one was told is lost
	Up   bool   // it can be told now
}

// A Ring says which member owns which blob. A blob falls into the same partition in all rings.
type Ring interface {
	Hash() uint64
	Partitions() int              // how many there are, at most 16,384
	Partition(blob string) uint16 // the number of the blob's
	OwnerOf(partition uint16) (id string)
}

// An Outbox knows what each owner is still to be told. Its methods may be called from any
// goroutine, and return at once.
type Outbox struct {
	after time.Duration
	draw  func(time.Duration) time.Duration // a random time below that

	mu     sync.Mutex // guards the fields below
	ring   Ring       // nil: none yet
	boxes  map[string]*box
	former formers
	mend   time.Time // when all are told all anew
	asked  time.Time // when those are told all that asked for it
	more   chan struct{}

	session uint64 // the last that was begun
}

// NewOutbox returns an empty Outbox. Owners are told what is due to them after that time, or
// up to twice that.
func NewOutbox(after time.Duration) *Outbox {
	return &Outbox{after: after, draw: rand.N[time.Duration], boxes: map[string]*box{}, former: formers{}, more: make(chan struct{}, 1), session: rand.Uint64()}
}

// More returns what brings a value when there may be more to tell than Due said.
func (o *Outbox) More() <-chan struct{} { return o.more }

// See hears who the owners are in the ring.
func (o *Outbox) See(ring Ring, owners []Owner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	due := time.Now().Add(o.jitter(len(owners))) // the same for all, which are told from one list
	if o.ring == nil {
		o.ring = ring
		o.mendLater(time.Now())
	}
	changed := ring.Hash() != o.ring.Hash()
	known := make(map[string]bool, len(owners))
	for _, one := range owners {
		known[one.ID] = true
		b := o.boxes[one.ID]
		switch {
		case b == nil:
			b = &box{}
			o.boxes[one.ID] = b
			b.lost(due)
		case b.boot != one.Boot, one.Up && !b.up, changed && b.earlier: // it may not count any more on what it was told
			b.all = b.all && b.up // one that was down is not told at once: others may come up with it
			b.owe(due)
			b.pause = 0
		}
		b.boot, b.up = one.Boot, one.Up
	}
	o.keep(known)
	if changed {
		o.move(ring, due)
		o.ring = ring
	}
}

// Again makes the owner be told all, which says that it needs that: with others that say so, from
// one list. If it is being told all, or is to be, it will have what it needs.
func (o *Outbox) Again(owner string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.boxes[owner]; b != nil && !b.begins && !b.all {
		if now := time.Now(); o.asked.Before(now) {
			o.asked = now.Add(o.jitter(len(o.boxes)))
		}
		b.owe(o.asked)
		o.wake()
	}
}

// keep forgets the owners that are none any more.
func (o *Outbox) keep(known map[string]bool) {
	gone := map[*box]bool{}
	for id, b := range o.boxes {
		if !known[id] {
			gone[b] = true
			delete(o.boxes, id)
		}
	}
	o.former.drop(gone)
}

// move notes which partitions have other owners in the ring than before. Who owned one is told
// of it further on. Who owns it now is told what this node holds of it, unless it never ceased to be
// told: at that time, if the ring does not change again until then. The caller holds mu.
func (o *Outbox) move(ring Ring, due time.Time) {
	for p := range uint16(ring.Partitions()) {
		from, to := o.ring.OwnerOf(p), ring.OwnerOf(p)
		if from == to {
			continue
		}
		if b := o.boxes[from]; b.counts() && !b.lose(p) {
			o.former.add(p, b)
		}
		if b := o.boxes[to]; b.counts() && !o.former.take(p, b) {
			b.gain(p, due)
		}
	}
	for _, b := range o.boxes {
		b.wait(due)
	}
	if o.former.size() > maxFormers {
		o.forget(due)
		o.tellAll(due)
	}
}

// forget lets the sessions of owners that are down count no more: they can't be told another one,
// which would end what is kept of them. They are told all when they are up, after that time. The
// caller holds mu.
func (o *Outbox) forget(due time.Time) {
	down := map[*box]bool{}
	for _, b := range o.boxes {
		if !b.up {
			b.lost(due)
			down[b] = true
		}
	}
	o.former.drop(down)
}

// tellAll makes all owners be told all, at that time at the latest. The caller holds mu.
func (o *Outbox) tellAll(due time.Time) {
	for _, b := range o.boxes {
		b.owe(due)
	}
	o.mendLater(due)
}

// mendLater makes all owners be told all long after that. The caller holds mu.
func (o *Outbox) mendLater(now time.Time) { o.mend = now.Add(mendAfter + o.draw(mendAfter)) }

// jitter is how long to wait before something is told, in a cluster of so many others.
func (o *Outbox) jitter(others int) time.Duration {
	return o.after + o.draw(o.after*time.Duration(max(1, others/64))+1)
}

// Note notes that a blob has come to this node or has gone. What is true of it is seen when its
// owner is told: two such words may overtake each other.
func (o *Outbox) Note(blob string) {
	k, ok := KeyOf(blob)
	o.mu.Lock()
	defer o.mu.Unlock()
	if !ok || o.ring == nil {
		return
	}
	p := o.ring.Partition(blob)
	o.change(o.boxes[o.ring.OwnerOf(p)], k, blob)
	for _, former := range o.former[p] {
		o.change(former, k, blob)
	}
}

// change notes a blob that the owner is to be told of. The caller holds mu.
func (o *Outbox) change(b *box, k Key, blob string) {
	if b == nil || b.session == 0 { // it is told all anyhow
		return
	}
	if len(b.changes) > 0 {
		if b.changes[k] = blob; len(b.changes) > maxChanges {
			b.lost(time.Now().Add(o.jitter(len(o.boxes))))
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

// Due returns the owners that are to be told all now, or what they have gained, and those that
// are to be told of changes. It returns for how long there will be no others, unless More brings
// something; 0: for long. whole says that all that this node holds is known by now: who was told a
// part is told all.
func (o *Outbox) Due(now time.Time, whole bool) (all, changes []string, idle time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ring != nil && !now.Before(o.mend) {
		o.tellAll(now)
	}
	due := now.Add(o.jitter(len(o.boxes)))
	for id, b := range o.boxes {
		if b.telling != 0 || !b.up {
			continue
		}
		if b.part && whole {
			b.owe(due)
		}
		left, is := b.left(now)
		switch {
		case !is:
		case left > 0:
			if idle == 0 || left < idle {
				idle = left
			}
		case b.allDue(now):
			all = append(all, id)
		default:
			changes = append(changes, id)
		}
	}
	return all, changes, idle
}

// Wants reports whether what is told in that session still counts.
func (o *Outbox) Wants(owner string, session uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	return b != nil && session != 0 && b.session == session
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
	m, changes := &Message{Session: b.session, Number: b.next, Ring: b.ring}, b.changes
	b.telling, b.changes = b.session, nil
	b.next++
	return m, changes
}

// Told hears how the telling in a session ended. Unless all is well the owner is told all
// again, later. follows says that the owner knows what a session covers; earlier versions do not.
func (o *Outbox) Told(owner string, session uint64, well, follows bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.boxes[owner]
	if b == nil || b.telling != session {
		return // it was away meanwhile
	}
	b.telling, b.begins = 0, false
	if b.session != session || b.all || len(b.gains)+len(b.changes) > 0 || b.part || !well {
		o.wake() // there is more for it, now or later
	}
	switch {
	case b.session != session: // all is to be told anew
	case well:
		b.pause = 0
		if b.earlier = !follows; b.earlier {
			b.gains = nil
			if b.ring != o.ring.Hash() {
				b.owe(time.Now().Add(o.jitter(len(o.boxes))))
			}
		}
	default:
		b.pause = min(max(firstPause, 2*b.pause), lastPause)
		b.lost(time.Now().Add(b.pause/2 + o.draw(b.pause/2)))
	}
}
