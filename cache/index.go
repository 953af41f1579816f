package cache

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// An index knows what the shard holds, in order of use, and how much room is
// left: see [room]. It does no I/O. It says which blobs have to go; its caller
// removes their files and reports each as removed or as stuck.
//
// A blob that is read (pinned) is taken out of the order of use, so that
// eviction, which only looks at that order, can't meet it.
type index struct {
	mu sync.Mutex // guards the fields below; never held during I/O
	ledger
	epoch uint64 // counts the directories; insert takes blobs only from the current one
}

// newIndex returns an empty index; bounds are those of single shares.
func newIndex(bound int64, bounds map[string]int64) *index {
	return &index{ledger: ledger{table: newTable(), shares: newShares(bound, bounds), pins: map[int32]*pin{}}}
}

// insert adds a blob whose file was put in place in the directory of that epoch. It
// pins the blob once, and takes its bytes out of a settled reservation. When its
// last reader leaves, the blob is the most recently used one; a replica, which is
// another node's to keep, the least of those.
// insert reports false, and changes nothing, if the key is taken or the directory
// was replaced.
func (x *index) insert(n name, registry string, size int64, now time.Time, replica bool, epoch uint64) (int32, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if epoch != x.epoch || !x.vacate(n.key) {
		return none, false
	}
	st := inUse
	if replica {
		st = unread
	}
	i := x.add(n, registry, size, now, st)
	x.table.at(i).spare = replica
	x.shares.count(x.table.at(i).share, func(s *space) { s.reserved -= size })
	x.pins[i] = &pin{refs: 1}
	return i, true
}

// append adds a blob that was found on disk, as less recently used than all others.
// It does not add a blob that the index has, or that left the index since the
// listing began.
func (x *index) append(f found) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, known := x.table.slots[f.name.key.prefix()]; known {
		return
	}
	i := x.add(f.name, f.registry, f.size, f.used, idle)
	x.table.at(i).manifest = f.manifest
	x.link(i, false)
}

// discover is append for the listing, which puts the blob into the order of use later: see
// rank. It returns the blob's slot, none if it is not added.
func (x *index) discover(f found) int32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, known := x.table.slots[f.name.key.prefix()]; known {
		return none
	}
	i := x.add(f.name, f.registry, f.size, f.used, unranked)
	x.table.at(i).manifest = f.manifest
	return i
}

// rank puts blobs that were discovered behind all others in the order of use, one after the
// other.
func (x *index) rank(slots []use) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, one := range slots {
		if x.table.at(one.slot).state == unranked { // else it was used meanwhile, or is gone
			x.link(one.slot, false)
		}
	}
}

// removed says that the file of an evicted or expelled blob is gone.
func (x *index) removed(i int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.left(i)
	x.table.at(i).state = gone
	x.drop(i)
}

// stuck says that the file of an evicted or expelled blob could not be removed. An
// evicted blob is served again; a damaged one only counts.
func (x *index) stuck(i int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.left(i)
	e := x.table.at(i)
	switch {
	case !x.table.named(i): // the directory went meanwhile, and the file with it
		e.state = gone
		x.drop(i)
	case e.state == expelled:
		e.state = damaged
	default:
		x.shares.all[e.share].items++
		x.link(i, true)
	}
}

const (
	// removePatience is how long a commit waits for another goroutine to remove the
	// blob's old file.
	removePatience = 2 * time.Second
	// roomPatience is how long a blob on its way in waits for the room of files that
	// others remove. It is short because a client waits as well: without that room the
	// blob passes through memory.
	roomPatience = 50 * time.Millisecond
)

// await waits until no file of k's name is about to be removed, so that a new
// one can take the name. It reports false if that takes too long.
func (x *index) await(k key) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wait(removePatience, func() bool {
		i, ok := x.table.slots[k.prefix()]
		return !ok || !x.table.at(i).state.leaving()
	})
}

// wait waits until ok, which is called with mu held, but not longer than patience.
// The caller holds mu; it is free while wait waits.
func (x *index) wait(patience time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(patience)
	for !ok() {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		c := x.changed.wait(math.MaxInt64)
		x.mu.Unlock()
		_ = wait.Until(context.Background(), c, left) // the deadline is looked at again
		x.mu.Lock()
	}
	return true
}

// acquire pins the blob that n names for a reader.
func (x *index) acquire(n name) (int32, entry, *pin, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.table.find(n)
	if !ok {
		return none, entry{}, nil, false
	}
	e := x.table.at(i)
	if e.state == idle {
		x.unlink(i)
	}
	if e.state == idle || e.state == retained || e.state == unranked {
		x.pins[i] = &pin{}
	}
	e.state = inUse
	p := x.pins[i]
	p.refs++
	return i, *e, p, true
}

// look returns the entry of the blob that n names without pinning it, and the
// name of its share.
func (x *index) look(n name) (e entry, share string, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.table.find(n)
	if !ok {
		return entry{}, "", false
	}
	e = *x.table.at(i)
	return e, x.shares.all[e.share].name, true
}

// use makes the blob that n names the most recently used. It reports whether the
// index holds it, and whether its use has to be noted on disk.
func (x *index) use(n name, now time.Time) (held, note bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.table.find(n)
	if !ok {
		return false, false
	}
	e := x.table.at(i)
	e.last = seconds(now)
	switch e.state {
	case idle:
		x.unlink(i)
		x.link(i, true)
	case unranked:
		x.link(i, true)
	case retained:
		x.table.age(i, true)
	default:
		e.state = inUse
	}
	return true, x.note(i, now)
}

// leave ends one reader of slot i. It reports whether the use has to be noted on
// disk, and whether the shard is over its bound, because blobs that are read can't
// be evicted.
func (x *index) leave(i int32, now time.Time) (note, over bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.pins[i]
	if p.refs--; p.refs > 0 {
		return false, false
	}
	delete(x.pins, i)
	e := x.table.at(i)
	switch st := e.state; {
	case st.held():
		if st == inUse {
			e.last = seconds(now)
		}
		x.link(i, st == inUse)
		return st == inUse && x.note(i, now), x.listed && x.shares.exceeded(e.share)
	case st.leaving():
		x.leaving(e)
		x.changed.fire()
	default:
		x.drop(i)
	}
	return false, false
}

// expel takes the blob in slot i, which its caller reads, out of the shard
// because it is damaged. It reports false if it has left already.
func (x *index) expel(i int32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.table.at(i).state.held() {
		return false
	}
	x.remove(i, expelled)
	return true
}

// clear forgets all blobs: their directory is lost. Those that are read count
// until they are let go. Nothing from that directory is taken any more.
func (x *index) clear() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.listed = true // so that drop leaves nothing behind
	for _, i := range slices.Collect(maps.Values(x.table.slots)) {
		x.table.unname(i)
		switch e := x.table.at(i); {
		case e.state == absent:
			x.table.release(i)
		case e.state.held():
			x.remove(i, evicted)
			x.left(i)
			fallthrough
		case e.state == damaged:
			e.state = gone
			x.drop(i)
		}
	}
	x.listed = false
	x.epoch++
	x.changed.fire()
}

// endListing says that the index now has all that the disk holds.
func (x *index) endListing() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.listed = true
	for _, i := range x.table.where(func(s state) bool { return s == absent }) {
		x.table.release(i)
	}
}

// current returns the epoch of the current directory.
func (x *index) current() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.epoch
}

// nameOf returns the name of the blob in slot i.
func (x *index) nameOf(i int32) name {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.table.name(i)
}

// right notes that all chunks of slot i were right under id at that time.
func (x *index) right(i int32, id identity, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.table.checks[i] = check{id, at.UnixNano()}
}

// trusted reports whether all chunks of slot i were right under id since then.
func (x *index) trusted(i int32, id identity, since time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	c, ok := x.table.checks[i]
	return ok && c.id == id && c.at > since.UnixNano()
}

// damagedNames names the damaged blobs whose files are still there.
func (x *index) damagedNames() (all []name) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, i := range x.table.where(func(s state) bool { return s == damaged }) {
		all = append(all, x.table.name(i))
	}
	return all
}

// removedDamaged says that the file of the blob that n names, if it is damaged,
// is gone.
func (x *index) removedDamaged(n name) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i, ok := x.table.slots[n.key.prefix()]; ok && x.table.at(i).state == damaged && x.table.name(i) == n {
		x.table.at(i).state = gone
		x.drop(i)
	}
}

// isDamaged reports whether the file of the blob that n names is damaged and
// still there.
func (x *index) isDamaged(n name) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.table.slots[n.key.prefix()]
	return ok && x.table.at(i).state == damaged && x.table.name(i) == n
}
