// Package directory knows which members hold which blobs, softly: as they tell.
//
// Each member tells the owner of a blob on the ring that it holds it. The owner keeps that
// in a [Directory]; the one that tells has an [Outbox], which knows who is to be told what.
// When an owner is new or has started anew, members tell all that they hold of its blobs, in a
// session; from then on what they have got and lost, and when the ring has changed, what
// they hold of the partitions that have become the owner's.
//
// In a session a member says which partitions it covers: of these it has told all, and it goes
// on to tell, also when the ring gives them to others. So what a session covers only grows
// until the next one begins, neither needs to know which rings the other has seen, and an owner
// that a change gave nothing is told nothing. If the sessions of all members cover a partition, a
// blob in it of which the directory knows nothing is held by nobody, and no member need be asked.
//
// What it says costs a wrong guess at most: whoever reads it asks those that it names
// before it counts on them. A member is believed about itself only. Memory is bounded: of
// too much, what was told longest ago goes, and the directory then knows that it does not
// know all.
//
// The package does no I/O. directory.go is the owner's side, table.go and coverage.go what it
// keeps, outbox.go, box.go and list.go the side of those who tell, formers.go what that keeps,
// message.go what travels.
package directory

import (
	"math"
	"strconv"
	"strings"
	"sync"
)

// A Key stands for a blob: it is the beginning of its digest. Two blobs of one key are taken
// for one another, which costs a question in vain.
type Key uint64

// KeyOf returns the key of the blob that the digest names. It reports false if it is no digest,
// as are the keys of tags.
func KeyOf(digest string) (Key, bool) {
	algorithm, hex, _ := strings.Cut(digest, ":")
	if algorithm != "sha256" && algorithm != "sha512" || len(hex) < 64 {
		return 0, false
	}
	k, err := strconv.ParseUint(hex[:16], 16, 64)
	return Key(k), err == nil
}

const (
	// MaxEntries bounds the directory of a node. Of a blob each member that holds it takes
	// one, up to maxNames. They take 14 MiB.
	MaxEntries = 1 << 19
	// maxShare is which part of the entries one member may have: one of so many. So a member
	// that tells lies leaves room for what others say.
	maxShare = 4
	// maxNames is how many holders of one blob are named. Of more it is known that there are.
	maxNames = 8
	// maxMembers bounds the members that are heard.
	maxMembers = 1 << 12
	// sessions is more than a member that runs begins with one owner: those have numbers
	// that follow each other, and another start of it begins at any number.
	sessions = 1 << 32
)

// A Directory is what other members have told this one. Its methods may be called from any
// goroutine, and return at once.
type Directory struct {
	mu      sync.Mutex // guards the fields below
	table   table
	covered coverage
	tellers []*teller // by number; the first is nobody
	numbers map[string]uint16
	free    []uint16 // numbers that nobody has any more
}

// A teller is a member that tells, or the place of one.
type teller struct {
	id      string // "": the place is free
	round   uint16 // entries of this round count, and while it tells all those of the next
	session uint64
	next    uint32 // number of the message that is to come
	telling bool   // it tells all at the moment
	lost    bool   // meanwhile something of that was lost
	doubted bool   // it is to tell all again, and has not begun to
	whole   bool   // what counts is all that it holds, of what its session covers,
	ring    uint64 // and of what was this node's in that ring: all that earlier versions say
	held    int    // entries that count
	coming  int    // entries of the next round
}

// New returns an empty directory of at most that many entries.
func New(most int) *Directory {
	return &Directory{table: newTable(most), covered: coverage{}, tellers: []*teller{{}}, numbers: map[string]uint16{}}
}

// Hear hears what the member of that id tells of itself. It reports whether the member is to
// tell all again, because something that it said before did not come here.
func (d *Directory) Hear(id string, m *Message) (again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.number(id)
	if !ok {
		return false // it is not to try for ever: there are too many
	}
	t := d.tellers[n]
	switch behind := t.session - m.Session; {
	case behind > 0 && behind < sessions: // it was on its way for so long that the member tells in a later session by now
		return true
	case m.First && m.Session != t.session: // one that comes twice would undo what was told after it
		if t.telling { // that telling broke off: what it brought counts until this one has ended
			t.round, t.held = t.round+1, t.coming
		}
		t.session, t.next, t.telling, t.lost, t.doubted, t.whole, t.coming = m.Session, 0, true, false, false, false, 0
		d.covered.drop(n)
	case m.Session != t.session, m.Number != t.next:
		t.whole, t.next = false, math.MaxUint32 // no message has that number
		return true
	}
	t.next++
	for _, k := range m.Held {
		d.add(n, k)
	}
	for _, k := range m.Gone {
		d.drop(n, k)
	}
	for _, p := range m.Covers {
		d.covered.add(p, n)
	}
	if m.Last && t.telling {
		t.round++
		t.telling, t.whole, t.ring, t.held, t.coming = false, !t.lost, m.Ring, t.coming, 0
	}
	return t.doubted
}

// number returns the number of the member, which gets one if there is room.
func (d *Directory) number(id string) (uint16, bool) {
	if n, known := d.numbers[id]; known {
		return n, true
	}
	if last := len(d.free) - 1; last >= 0 {
		n := d.free[last]
		d.free = d.free[:last]
		d.tellers[n].id = id
		d.numbers[id] = n
		return n, true
	}
	if len(d.tellers) > maxMembers {
		return 0, false
	}
	d.tellers = append(d.tellers, &teller{id: id})
	n := uint16(len(d.tellers) - 1)
	d.numbers[id] = n
	return n, true
}

// counts reports whether what the entry says is believed.
func (d *Directory) counts(e *entry) bool {
	t := d.tellers[e.member]
	return e.member == nobody || t.id != "" && (e.round == t.round || t.telling && e.round == t.round+1)
}

// add notes that the member of that number holds the blob. The caller holds mu.
func (d *Directory) add(n uint16, k Key) {
	t := d.tellers[n]
	round := t.round
	if t.telling {
		round++
	}
	if i := d.find(k, n); i != none {
		if d.table.entries[i].round == round {
			return
		}
		d.forget(i)
	}
	named, past := d.holders(k)
	switch {
	case named >= maxNames:
		d.enter(k, nobody, 0)
		return
	case d.room(t) <= 0:
		t.lost, t.whole = true, false
		return
	case past != none:
		d.forget(past)
	}
	if t.telling {
		t.coming++
	} else {
		t.held++
	}
	d.enter(k, n, round)
}

// holders returns how many holders of a blob are named, and an entry of it that does not
// count any more, or none.
func (d *Directory) holders(k Key) (named int, past int32) {
	past = none
	for i := d.table.first(k); i != none; i = d.table.after(i) {
		switch e := &d.table.entries[i]; {
		case e.member == nobody:
		case d.counts(e):
			named++
		default:
			past = i
		}
	}
	return named, past
}

// room is how many entries more the member may have.
func (d *Directory) room(t *teller) int {
	if t.telling {
		return d.table.most/maxShare - t.coming
	}
	return d.table.most/maxShare - t.held
}

// enter makes an entry, for which the oldest may have to go; one that is there becomes the
// newest. The caller holds mu.
func (d *Directory) enter(k Key, n uint16, round uint16) {
	if i := d.find(k, n); i != none {
		d.table.renew(i)
		return
	}
	if d.table.full() {
		old := d.table.oldest
		if e := &d.table.entries[old]; d.counts(e) {
			d.miss(e.member)
		}
		d.forget(old)
	}
	d.table.add(k, n, round)
}

// find returns the entry of that blob and member, or none.
func (d *Directory) find(k Key, n uint16) int32 {
	for i := d.table.first(k); i != none; i = d.table.after(i) {
		if d.table.entries[i].member == n {
			return i
		}
	}
	return none
}

// miss notes that something is lost that the member has told, or for nobody: any member.
func (d *Directory) miss(n uint16) {
	all := d.tellers[1:]
	if n != nobody {
		all = d.tellers[n : n+1]
	}
	for _, t := range all {
		t.lost, t.whole = true, false
	}
}

// drop notes that the member does not hold the blob any more. The caller holds mu.
func (d *Directory) drop(n uint16, k Key) {
	if i := d.find(k, n); i != none {
		d.forget(i)
	}
}

// forget takes an entry out. The caller holds mu.
func (d *Directory) forget(i int32) {
	e := &d.table.entries[i]
	if t := d.tellers[e.member]; e.member != nobody && t.id != "" {
		switch {
		case e.round == t.round:
			t.held--
		case t.telling && e.round == t.round+1:
			t.coming--
		}
	}
	d.table.remove(i)
}

// Names returns the members that said that they hold the blob, those that said so last
// first; at most 8.
func (d *Directory) Names(k Key) (ids []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := d.table.first(k); i != none; i = d.table.after(i) {
		if e := &d.table.entries[i]; e.member != nobody && d.counts(e) {
			ids = append(ids, d.tellers[e.member].id)
		}
	}
	return ids
}

// Knows reports whether nobody holds the blob but those that Names names: each of the members,
// at least one, has told all of the blob's partition, or all that is this node's in the ring
// of that hash, which is this node's ring.
func (d *Directory) Knows(k Key, partition uint16, ring uint64, members []string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range members {
		n, known := d.numbers[id]
		if t := d.tellers[n]; !known || !t.whole || t.ring != ring && !d.covered.has(partition, n) {
			return false
		}
	}
	return len(members) > 0 && d.find(k, nobody) == none
}

// Keep forgets those that are not members any more.
func (d *Directory) Keep(member func(id string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, n := range d.numbers {
		if !member(id) {
			t := d.tellers[n]
			*t = teller{round: t.round + 2} // no entry is of that round
			d.covered.drop(n)
			delete(d.numbers, id)
			d.free = append(d.free, n)
		}
	}
}

// Doubt notes that the member may hold more than it has told, until it tells all again.
func (d *Directory) Doubt(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, known := d.numbers[id]; known {
		t := d.tellers[n]
		t.whole, t.lost, t.doubted = false, t.telling, true
	}
}

// Doubts reports whether the member is to tell all because of what the directory has doubted or
// forgotten, and has not begun to. One for which there is no room is not: it would tell all for ever.
func (d *Directory) Doubts(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, known := d.numbers[id]
	return d.tellers[n].doubted || !known && len(d.numbers) < maxMembers
}

// Figures tell how large a directory is.
type Figures struct {
	Entries int // of a blob and a member that holds it
	Bytes   int // of memory
	Members int // that have told all that they hold
}

// Figures returns how large the directory is.
func (d *Directory) Figures() Figures {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := Figures{Entries: d.table.used, Bytes: d.table.bytes() + d.covered.bytes()}
	for _, t := range d.tellers {
		if t.whole {
			f.Members++
		}
	}
	return f
}
