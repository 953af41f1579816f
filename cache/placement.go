package cache

import "github.com/opencontainers/go-digest"

// placeBatch is how many blobs are looked at before others may use the index again.
const placeBatch = 4096

// Place says anew which blobs of the shard are another node's to keep: those for which
// spare returns true. They go before all that is this node's, whoever used them last.
// Each keeps its place in the order of use. spare must not call the store.
func (s *Stock) Place(spare func(registry string, d digest.Digest) bool) {
	r := stockroom{s.shard.index}
	var moves []move
	for from, end := int32(0), false; !end; from += placeBatch {
		var some []move
		some, end = r.some(from, placeBatch)
		for _, m := range some {
			if is := spare(m.registry, m.name.digest()); is != m.spare {
				m.spare = is
				moves = append(moves, m)
			}
		}
	}
	if len(moves) > 0 {
		r.move(moves)
	}
}

// own makes the blob in slot i, which its caller reads, this node's to keep.
func (r stockroom) own(i int32) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	r.x.table.entries[i].spare = false
}

// A move is a blob in a slot, and whether it is another node's to keep.
type move struct {
	slot     int32
	name     name
	registry string
	spare    bool
}

// some lists the blobs in so many slots, and reports whether there are no more.
func (r stockroom) some(from, most int32) (all []move, end bool) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	last := min(from+most, int32(len(r.x.table.entries)))
	for i := from; i < last; i++ {
		if e := &r.x.table.entries[i]; e.state.held() && r.x.table.named(i) {
			all = append(all, move{i, r.x.table.name(i), r.x.shares.all[e.share].name, e.spare})
		}
	}
	return all, last == int32(len(r.x.table.entries))
}

// move puts blobs among those that they belong to now, if they are still in their slots.
func (r stockroom) move(moves []move) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	orders := make([][]int32, len(r.x.table.orders))
	for sh := range orders {
		orders[sh] = r.x.table.take(uint16(sh))
	}
	for _, m := range moves {
		e := &r.x.table.entries[m.slot]
		if !e.state.held() || !r.x.table.named(m.slot) || r.x.table.name(m.slot) != m.name || e.spare == m.spare {
			continue
		}
		if e.spare = m.spare; e.state == idle {
			r.x.shares.count(e.share, func(s *space) {
				if m.spare {
					s.spare.add(loadOf(e.size))
				} else {
					s.spare.take(loadOf(e.size))
				}
			})
		}
	}
	for _, slots := range orders {
		for _, i := range slots {
			r.x.table.push(i)
		}
	}
}

// take empties a share's orders, and returns their blobs, those last used first.
func (t *table) take(sh uint16) (slots []int32) {
	o := t.ordersOf(sh)
	a, b := o.own.head, o.spare.head
	for a != none || b != none {
		next := &a
		if a == none || b != none && t.entries[b].used > t.entries[a].used {
			next = &b
		}
		slots = append(slots, *next)
		*next = t.entries[*next].next
	}
	*o = orders{order{none, none}, order{none, none}}
	return slots
}

// push puts slot i behind all others of its order of use.
func (t *table) push(i int32) {
	e, o := &t.entries[i], t.order(i)
	e.prev, e.next = o.tail, none
	t.join(o, e.prev, i)
	t.join(o, i, none)
}
