package cache

import (
	"errors"
	"maps"
	"slices"
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
	settled sync.Cond // a file is gone or back, or room was given up

	slots    map[key]int32
	entries  []entry
	rests    map[int32][32]byte // second halves of sha512 digests
	free     int32              // list of unused slots
	shares   []share
	names    map[string]uint16
	leaving  map[key]int32 // removed from slots, their files not yet from disk
	spoilt   map[key]int32 // damaged, their files not to be removed: they count, and are not served
	pins     map[int32]*pin
	room     space
	bounded  bool             // all that the disk holds is known, and within the bounds but for what is read
	expelled map[key]struct{} // while the disk is listed: what it may find has gone since
	tick     uint64           // of the last use
	past     uint64           // counts down: blobs the listing finds are older than any use
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
	replica    bool  // another node's to keep, and not read here since it came
	damaged    bool  // it is not to come back
	out        bool  // left slots: its bytes count until file and pins are gone
	file       bool  // its file may still be there
	going      bool  // counted in its spaces' leaving
	touched    int64 // unix seconds when use was last noted on disk
	id         identity
	checked    int64 // unix nanoseconds when all chunks were right under id, 0: never
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
		leaving: map[key]int32{}, spoilt: map[key]int32{}, pins: map[int32]*pin{}, expelled: map[key]struct{}{}, free: none, room: space{bound: bound},
		tick: 1 << 40, past: 1 << 40,
	}
	x.settled.L = &x.mu
	for name, b := range bounds {
		x.shares[x.share(name)].room.bound = b
	}
	return x
}

// find returns the slot of the blob that n names. Two names share a key only
// if somebody made one up; the key alone must not stand for the blob.
func (x *index) find(n name) (int32, bool) {
	i, ok := x.slots[n.key]
	if !ok || x.entries[i].long != n.long || n.long && x.rests[i] != n.rest {
		return none, false
	}
	return i, true
}

// remove takes a blob out of the index; its bytes count until gone is called
// and its last reader has left. The caller holds mu.
func (x *index) remove(i int32) {
	e := &x.entries[i]
	delete(x.slots, e.key)
	x.leaving[e.key] = i
	e.out, e.checked = true, 0
	x.shares[e.share].items--
	if e.pinned {
		return // nobody knows when its bytes go
	}
	x.unlink(i)
	e.going = true
	for _, s := range x.spaces(e.share) {
		s.leaving += e.size
	}
}

// gone says that the file of a removed blob is away.
func (x *index) gone(i int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := &x.entries[i]
	if !x.bounded {
		x.expelled[e.key] = struct{}{}
	}
	e.file = false
	x.left(e)
	x.drop(i)
}

// left ends what remove began, for better or worse.
func (x *index) left(e *entry) {
	delete(x.leaving, e.key)
	if e.going {
		e.going = false
		for _, s := range x.spaces(e.share) {
			s.leaving -= e.size
		}
	}
	x.settled.Broadcast()
}

// stuck says that the file of a removed blob could not be removed: it is back,
// and counts. A damaged one counts only.
func (x *index) stuck(i int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := &x.entries[i]
	x.left(e)
	if e.damaged {
		x.expelled[e.key] = struct{}{}
		x.spoilt[e.key] = i
		return
	}
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
	for _, s := range x.spaces(e.share) {
		s.used -= e.size
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

// insert adds a blob that came in, pinned once; its bytes come out of a settled
// reservation. Once it is let go it is the most recently used, a replica the
// least. It reports false, and changes nothing, if the index has the key already.
func (x *index) insert(n name, registry string, size int64, now time.Time, replica bool) (int32, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.add(n, registry, size, now)
	if !ok {
		return none, false
	}
	x.entries[i].replica = replica
	for _, s := range x.spaces(x.entries[i].share) {
		s.reserved -= size
	}
	x.entries[i].pinned = true
	x.pins[i] = &pin{refs: 1}
	return i, true
}

// append adds a blob that was found on disk, as less recently used than all
// that the index knows, unless it has the key already.
func (x *index) append(n name, registry string, size int64, used time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, gone := x.expelled[n.key]; gone {
		return
	}
	if i, ok := x.add(n, registry, size, used); ok {
		x.link(i, false)
	}
}

// found is append for a blob that a listing came across some time ago.
func (x *index) found(f found) { x.append(f.name, f.registry, f.size, f.used) }

// add makes the entry of a blob whose file is in place.
func (x *index) add(n name, registry string, size int64, used time.Time) (int32, bool) {
	if _, ok := x.slots[n.key]; ok {
		return none, false
	}
	if _, ok := x.leaving[n.key]; ok {
		return none, false
	}
	delete(x.expelled, n.key)
	x.replaced(n.key)
	i, sh := x.slot(), x.share(registry)
	x.entries[i] = entry{key: n.key, long: n.long, size: size, share: sh, file: true, touched: used.Unix(), prev: none, next: none}
	if n.long {
		x.rests[i] = n.rest
	}
	x.slots[n.key] = i
	x.shares[sh].items++
	for _, s := range x.spaces(sh) {
		s.used += size
	}
	return i, true
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

// acquire pins the blob that n names for a reader.
func (x *index) acquire(n name) (int32, entry, *pin, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.find(n)
	if !ok {
		return none, entry{}, nil, false
	}
	e := &x.entries[i]
	if !e.pinned {
		x.unlink(i)
		e.pinned = true
		x.pins[i] = &pin{}
	}
	e.replica = false
	p := x.pins[i]
	p.refs++
	return i, *e, p, true
}

// look returns the entry of the blob that n names without pinning it.
func (x *index) look(n name) (entry, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.find(n)
	if !ok {
		return entry{}, false
	}
	return x.entries[i], true
}

// use makes the blob that n names the most recently used. It reports whether the index
// holds it, and whether use was last noted on disk more than a minute ago, in
// which case the caller notes it now.
func (x *index) use(n name, now time.Time) (held, note bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.find(n)
	if !ok {
		return false, false
	}
	x.entries[i].replica = false
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

// leave ends one reader of slot i. It reports whether use has to be noted, and
// whether the shard is over its bound: what was read could not leave it then.
func (x *index) leave(i int32, now time.Time) (note, over bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.pins[i]
	if p.refs--; p.refs > 0 {
		return false, false
	}
	delete(x.pins, i)
	e := &x.entries[i]
	e.pinned = false
	if e.out {
		x.drop(i)
		return false, false
	}
	x.link(i, !e.replica)
	over = x.bounded && (x.room.over(0) > 0 || x.shares[e.share].room.over(0) > 0)
	return !e.replica && x.note(i, now), over
}

// expel takes the blob in slot i out of the index because it is damaged. It
// reports false if somebody else did.
func (x *index) expel(i int32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.entries[i].out {
		return false
	}
	x.entries[i].damaged = true
	x.remove(i)
	return true
}

// clear takes all blobs out, their files being gone with the disk. Those that
// are read count until they are let go.
func (x *index) clear() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bounded = false // until another disk is listed
	for _, i := range slices.Collect(maps.Values(x.slots)) {
		x.remove(i)
		e := &x.entries[i]
		e.file = false
		x.left(e)
		x.drop(i)
	}
	for k := range x.spoilt {
		x.replaced(k)
	}
	clear(x.expelled) // another disk may hold them whole
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
