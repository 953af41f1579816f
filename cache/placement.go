package cache

import (
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"
)

// placeBatch is how many blobs are looked at before others may use the index again.
const placeBatch = 4096

// Place says anew which blobs of the shard are another node's to keep: those for which
// spare returns true. They go before all that is this node's, whoever used them last.
// Each keeps its place in the order of use. spare must not call the store.
func (s *Stock) Place(spare func(registry string, d digest.Digest) bool) {
	r := stockroom{s.shard.index}
	var all []shift
	for from, end := int32(0), false; !end; from += placeBatch {
		var some []move
		some, end = r.some(from, placeBatch)
		for _, m := range some {
			if is := spare(m.registry, m.name.digest()); is != m.spare {
				all = append(all, shift{m.name.key.prefix(), m.used, m.slot, m.share, is})
			}
		}
	}
	slices.SortFunc(all, shift.compare)
	for shifts := (&shifts{left: all, after: none}); len(shifts.left) > 0; {
		r.shift(shifts)
	}
}

// own makes the blob in slot i, which its caller reads, this node's to keep.
func (r stockroom) own(i int32) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	r.x.table.at(i).spare = false
}

// A move is a blob in a slot, and whether it is another node's to keep.
type move struct {
	slot     int32
	name     name
	registry string
	spare    bool
	share    uint16
	used     uint64
}

// some lists the blobs in so many slots, and reports whether there are no more.
func (r stockroom) some(from, most int32) (all []move, end bool) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	last := min(from+most, r.x.table.made)
	for i := from; i < last; i++ {
		if e := r.x.table.at(i); e.state.held() && r.x.table.named(i) {
			all = append(all, move{i, r.x.table.name(i), r.x.shares.all[e.share].name, e.spare, e.share, e.used})
		}
	}
	return all, last == r.x.table.made
}

// A shift is a blob that is to be another node's to keep from now on, or no longer.
type shift struct {
	prefix uint64 // of the blob's key
	used   uint64 // as in entry
	slot   int32
	share  uint16
	spare  bool
}

// compare sorts shifts by the order of use that they go to, there what was used last first.
func (a shift) compare(b shift) int {
	spare := func(s shift) int {
		if s.spare {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.share, b.share), cmp.Compare(spare(a), spare(b)), cmp.Compare(b.used, a.used))
}

// shifts are those that are still to be made.
type shifts struct {
	left  []shift
	after int32 // where the last one went; none: nowhere yet
}

// shift makes some of the shifts, or a part of the way to the place of the next one, so that
// others may use the index in between.
func (r stockroom) shift(s *shifts) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	for steps := placeBatch; len(s.left) > 0 && steps > 0; steps-- {
		one := s.left[0]
		e := r.x.table.at(one.slot)
		switch {
		case !e.state.held() || !r.x.table.named(one.slot) || e.key.prefix() != one.prefix || e.spare == one.spare: // another blob, or placed meanwhile
		case e.state != idle:
			e.spare = one.spare
		default:
			var there bool
			if s.after, steps, there = r.x.table.seek(one, s.after, steps); !there {
				return
			}
			r.x.unlink(one.slot)
			e.spare = one.spare
			r.x.table.put(one.slot, s.after)
			r.x.count(one.slot)
			s.after = one.slot
		}
		s.left = s.left[1:]
	}
}

// seek finds the blob after which a shift's goes in its new order of use, none if it goes
// first. It begins at a blob, if that is one of those that go before, and takes so many steps
// at most; there is false if that was not enough.
func (t *table) seek(one shift, from int32, steps int) (after int32, left int, there bool) {
	used, after := t.at(one.slot).used, none
	if from != none {
		if e := t.at(from); e.state == idle && e.share == one.share && e.spare == one.spare && e.used > used {
			after = from
		}
	}
	o := &t.ordersOf(one.share).own
	if one.spare {
		o = &t.ordersOf(one.share).spare
	}
	for ; steps > 0; steps-- {
		next := o.head
		if after != none {
			next = t.at(after).next
		}
		if next == none || t.at(next).used < used {
			return after, steps, true
		}
		after = next
	}
	return after, 0, false
}

// put puts slot i into its order of use behind another; behind none it is the first.
func (t *table) put(i, after int32) {
	e, o := t.at(i), t.order(i)
	e.prev, e.next = after, o.head
	if after != none {
		e.next = t.at(after).next
	}
	next := e.next
	t.join(o, after, i)
	t.join(o, i, next)
}
