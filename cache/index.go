package cache

import (
	"errors"
	"sync"
	"time"
)

// errNoRoom: what is asked for does not fit beside what is being read and
// what is on its way in.
var errNoRoom = errors.New("no room in the shard")

// none ends a list of slots.
const none = int32(-1)

// An index knows what the shard holds, in order of use, and how much room is
// left. It does no I/O: it says which blobs have to go, its caller removes
// them and says when they are gone.
//
// Entries live in one slice and name each other by number, so that a million
// of them cost the garbage collector nothing.
//
// A blob that is read ("pinned") is taken out of the order of use, so that
// eviction, which only looks at that order, can't meet it.
type index struct {
	mu      sync.Mutex
	settled sync.Cond // a file is gone, or a pin

	slots   map[key]int32
	entries []entry
	rests   map[int32][32]byte // second halves of sha512 digests
	free    int32              // list of unused slots
	shares  []share
	names   map[string]uint16
	leaving map[key]int32 // removed from slots, their files not yet from disk
	pins    map[int32]*pin
	room    space
	tick    uint64 // of the last use
	past    uint64 // counts down: blobs the listing finds are older than any use
}

// An entry is one blob of the shard.
type entry struct {
	key        key
	size       int64
	used       uint64 // the index's tick when it was last used
	prev, next int32  // towards more and less recently used; next also links the free list
	share      uint16
	long       bool
	pinned     bool
	out        bool  // left slots: its bytes count until file and pins are gone
	file       bool  // its file may still be there
	touched    int64 // unix seconds when use was last noted on disk
	id         identity
	checked    int64 // unix nanoseconds when all chunks were right under id, 0: never
}

// A share is what one registry has of the shard.
type share struct {
	name       string
	room       space
	head, tail int32 // most and least recently used
	items      int64
	evictions  uint64
}

// A space is a bound and what counts towards it, in bytes.
type space struct {
	bound    int64 // 0: none
	used     int64 // blobs of the shard, leaving ones too
	reserved int64 // on its way in
	idle     int64 // part of used that could be evicted
	leaving  int64 // part of used whose files are being removed
}

// over is by how much n more bytes would exceed the bound.
func (s *space) over(n int64) int64 {
	if s.bound == 0 {
		return 0
	}
	return s.used + s.reserved + n - s.bound
}

// A pin is one blob's readers, and what they have checked of it.
type pin struct {
	refs   int
	checks *checks
}

// newIndex returns an empty index; bounds are those of single shares.
func newIndex(bound int64, bounds map[string]int64) *index {
	x := &index{
		slots: map[key]int32{}, rests: map[int32][32]byte{}, names: map[string]uint16{},
		leaving: map[key]int32{}, pins: map[int32]*pin{}, free: none, room: space{bound: bound},
		tick: 1 << 40, past: 1 << 40,
	}
	x.settled.L = &x.mu
	for name, b := range bounds {
		x.shares[x.share(name)].room.bound = b
	}
	return x
}

// share returns the number of a registry's share, making it if it is new.
func (x *index) share(name string) uint16 {
	if i, ok := x.names[name]; ok {
		return i
	}
	i := uint16(len(x.shares))
	x.shares = append(x.shares, share{name: name, head: none, tail: none})
	x.names[name] = i
	return i
}

// reserve makes room for n bytes of a registry. It returns the blobs whose
// files have to be removed first (the caller then calls gone for each, and
// only then writes), or errNoRoom and nothing.
func (x *index) reserve(registry string, n int64) ([]int32, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	sh := x.share(registry)
	for !x.fits(sh, n) {
		if x.room.leaving == 0 {
			return nil, errNoRoom
		}
		x.settled.Wait() // files that are going make room in a moment
	}
	out := x.evict(sh, n)
	x.reserved(sh, n)
	return out, nil
}

// fits reports whether n bytes could be had by evicting what nobody reads.
func (x *index) fits(sh uint16, n int64) bool {
	s := &x.shares[sh].room
	return s.over(n) <= s.idle && x.room.over(n) <= x.room.idle
}

// evict takes out the least recently used blobs, first of the share until it
// is within its own bound, then of all, and returns their slots.
func (x *index) evict(sh uint16, n int64) []int32 {
	var out []int32
	var freed, freedOwn int64
	take := func(i int32) {
		e := &x.entries[i]
		freed += e.size
		if e.share == sh {
			freedOwn += e.size
		}
		x.shares[e.share].evictions++
		x.remove(i)
		out = append(out, i)
	}
	// What is leaving on others' behalf still counts: it is on disk yet.
	for x.shares[sh].room.over(n) > freedOwn && x.shares[sh].tail != none {
		take(x.shares[sh].tail)
	}
	for x.room.over(n) > freed {
		i := x.oldest()
		if i == none {
			break
		}
		take(i)
	}
	return out
}

// oldest is the least recently used blob of all shares that nobody reads.
func (x *index) oldest() int32 {
	best := none
	for i := range x.shares {
		t := x.shares[i].tail
		if t != none && (best == none || x.entries[t].used < x.entries[best].used) {
			best = t
		}
	}
	return best
}

// reserved changes what is on its way in by n.
func (x *index) reserved(sh uint16, n int64) {
	x.shares[sh].room.reserved += n
	x.room.reserved += n
}

// release gives up n reserved bytes of a registry.
func (x *index) release(registry string, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reserved(x.share(registry), -n)
}

// remove takes a blob out of the index; its bytes count until gone is called
// and its last reader has left. The caller holds mu.
func (x *index) remove(i int32) {
	e := &x.entries[i]
	delete(x.slots, e.key)
	x.leaving[e.key] = i
	e.out = true
	s := &x.shares[e.share]
	s.items--
	if !e.pinned {
		x.unlink(i)
	}
	s.room.leaving += e.size
	x.room.leaving += e.size
}

// gone says that the file of a removed blob is away.
func (x *index) gone(i int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := &x.entries[i]
	e.file = false
	x.left(e)
	x.drop(i)
}

// left ends what remove began, for better or worse.
func (x *index) left(e *entry) {
	delete(x.leaving, e.key)
	x.shares[e.share].room.leaving -= e.size
	x.room.leaving -= e.size
	x.settled.Broadcast()
}

// stuck says that the file of a removed blob could not be removed: it is back,
// and counts.
func (x *index) stuck(i int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := &x.entries[i]
	x.left(e)
	x.shares[e.share].items++
	e.out = false
	x.slots[e.key] = i
	if !e.pinned {
		x.link(i, true)
	}
}

// drop frees a removed blob's slot once neither file nor reader is left.
func (x *index) drop(i int32) {
	e := &x.entries[i]
	if !e.out || e.file || e.pinned {
		return
	}
	s := &x.shares[e.share].room
	for _, r := range []*space{s, &x.room} {
		r.used -= e.size
	}
	delete(x.rests, i)
	*e = entry{next: x.free}
	x.free = i
	x.settled.Broadcast()
}

// await returns once no file of k's name is about to be removed, so that a new
// one can take the name.
func (x *index) await(k key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		if _, ok := x.leaving[k]; !ok {
			return
		}
		x.settled.Wait()
	}
}

// insert adds a blob whose file is in place, read by refs readers. With
// reserved set its bytes come out of a reservation; a blob found on disk has
// none. It reports false, and changes nothing, if the index has it already.
func (x *index) insert(n name, registry string, size int64, id identity, refs int, reserved bool) (int32, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.slots[n.key]; ok {
		return none, false
	}
	if _, ok := x.leaving[n.key]; ok {
		return none, false
	}
	i := x.slot()
	sh := x.share(registry)
	x.entries[i] = entry{key: n.key, long: n.long, size: size, share: sh, id: id, file: true, prev: none, next: none}
	if n.long {
		x.rests[i] = n.rest
	}
	x.slots[n.key] = i
	x.shares[sh].items++
	x.shares[sh].room.used += size
	x.room.used += size
	if reserved {
		x.reserved(sh, -size)
	}
	if refs > 0 {
		x.entries[i].pinned = true
		x.pins[i] = &pin{refs: refs}
	} else {
		x.link(i, true)
	}
	return i, true
}

// append adds a blob found by the listing, as less recently used than all that
// the index knows. A blob it knows stays as it is.
func (x *index) append(n name, registry string, size int64, used time.Time) {
	i, ok := x.insert(n, registry, size, identity{}, 0, false)
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := &x.entries[i]; !e.pinned && !e.out {
		x.unlink(i)
		x.link(i, false)
		e.used = x.past
		x.past--
		e.touched = used.Unix()
	}
}

// slot returns an unused slot.
func (x *index) slot() int32 {
	if i := x.free; i != none {
		x.free = x.entries[i].next
		return i
	}
	x.entries = append(x.entries, entry{})
	return int32(len(x.entries) - 1)
}

// acquire pins the blob of k for a reader.
func (x *index) acquire(k key) (int32, entry, *pin, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.slots[k]
	if !ok {
		return none, entry{}, nil, false
	}
	e := &x.entries[i]
	if !e.pinned {
		x.unlink(i)
		e.pinned = true
		x.pins[i] = &pin{}
	}
	p := x.pins[i]
	p.refs++
	return i, *e, p, true
}

// look returns the entry of k without pinning it.
func (x *index) look(k key) (entry, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.slots[k]
	if !ok {
		return entry{}, false
	}
	return x.entries[i], true
}

// use makes the blob of k the most recently used. It reports whether the index
// holds it, and whether use was last noted on disk more than a minute ago, in
// which case the caller notes it now.
func (x *index) use(k key, now time.Time) (held, note bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.slots[k]
	if !ok {
		return false, false
	}
	if !x.entries[i].pinned {
		x.unlink(i)
		x.link(i, true)
	}
	return true, x.note(i, now)
}

// note reports whether use has to be noted on disk, and takes it as done.
func (x *index) note(i int32, now time.Time) bool {
	e := &x.entries[i]
	if now.Unix()-e.touched < 60 {
		return false
	}
	e.touched = now.Unix()
	return true
}

// leave ends one reader of slot i. It reports whether use has to be noted.
func (x *index) leave(i int32, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.pins[i]
	if p.refs--; p.refs > 0 {
		return false
	}
	delete(x.pins, i)
	e := &x.entries[i]
	e.pinned = false
	if e.out {
		x.drop(i)
		return false
	}
	x.link(i, true)
	x.settled.Broadcast()
	return x.note(i, now)
}

// expel takes the blob in slot i out of the index because it is damaged. It
// reports false if somebody else did.
func (x *index) expel(i int32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.entries[i].out {
		return false
	}
	x.remove(i)
	return true
}

// shrink takes out what exceeds the bounds; the caller removes it.
func (x *index) shrink() []int32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []int32
	for sh := range x.shares {
		out = append(out, x.evict(uint16(sh), 0)...)
	}
	return out
}

// nameOf returns the digest in slot i.
func (x *index) nameOf(i int32) name {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := &x.entries[i]
	return name{key: e.key, long: e.long, rest: x.rests[i]}
}

// right notes that all chunks of slot i were right under id at the time now.
func (x *index) right(i int32, id identity, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.entries[i].id, x.entries[i].checked = id, now.UnixNano()
}

// link puts slot i into its share's order of use, at the recent end or the other.
func (x *index) link(i int32, recent bool) {
	e := &x.entries[i]
	s := &x.shares[e.share]
	x.tick++
	e.used = x.tick
	e.prev, e.next = none, none
	switch {
	case s.head == none:
		s.head, s.tail = i, i
	case recent:
		e.next = s.head
		x.entries[s.head].prev = i
		s.head = i
	default:
		e.prev = s.tail
		x.entries[s.tail].next = i
		s.tail = i
	}
	s.room.idle += e.size
	x.room.idle += e.size
}

// unlink takes slot i out of its share's order of use.
func (x *index) unlink(i int32) {
	e := &x.entries[i]
	s := &x.shares[e.share]
	if e.prev != none {
		x.entries[e.prev].next = e.next
	} else {
		s.head = e.next
	}
	if e.next != none {
		x.entries[e.next].prev = e.prev
	} else {
		s.tail = e.prev
	}
	e.prev, e.next = none, none
	s.room.idle -= e.size
	x.room.idle -= e.size
}
