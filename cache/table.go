package cache

// none ends a list of slots.
const none = int32(-1)

// A table holds the entries: by name, and each share's idle ones in their order
// of use. It has no lock; the index guards it.
//
// Entries live in few pieces of memory and name each other by number, so that a million of
// them cost the garbage collector nothing. A piece never moves, so that there is no moment
// with two copies of all.
type table struct {
	slots   map[uint64]int32 // by the first bytes of the key: see key.prefix
	entries []*[slab]entry
	made    int32              // how many of those entries there are
	rests   map[int32][32]byte // second halves of sha512 digests
	checks  map[int32]check    // of blobs whose chunks were all right
	unused  int32              // list of free slots
	orders  []orders           // by share
	tick    uint64             // of the last use
	past    uint64             // counts down: blobs that the listing finds are older than any use
}

// slab is how many entries one piece of memory holds.
const slab = 512

// at returns the entry in slot i.
func (t *table) at(i int32) *entry { return &t.entries[i/slab][i%slab] }

// firstUse is the tick before the first use. What has a lower one was never used since the
// start.
const firstUse = 1 << 40

// An order is idle blobs of one share in their order of use.
type order struct{ head, tail int32 } // most and least recently used

// orders are one share's idle blobs: those that are this node's to keep, and those that
// are another's, which go before.
type orders struct{ own, spare order }

// tail returns the blob that goes first, or none.
func (o *orders) tail() int32 {
	if o.spare.tail != none {
		return o.spare.tail
	}
	return o.own.tail
}

func newTable() table {
	return table{slots: map[uint64]int32{}, rests: map[int32][32]byte{}, checks: map[int32]check{}, unused: none, tick: firstUse, past: firstUse}
}

// find returns the slot of the blob that n names, if it is in the shard. Two
// names share a key only if somebody made one up; the key alone must not stand
// for the blob.
func (t *table) find(n name) (int32, bool) {
	i, ok := t.slots[n.key.prefix()]
	if !ok || !t.at(i).state.held() || t.name(i) != n {
		return none, false
	}
	return i, true
}

// add makes an entry for n, whose key must be free.
func (t *table) add(n name, e entry) int32 {
	i := t.unused
	if i != none {
		t.unused = t.at(i).next
	} else {
		if i = t.made; i%slab == 0 {
			t.entries = append(t.entries, new([slab]entry))
		}
		t.made++
	}
	e.key, e.long, e.prev, e.next = n.key, n.long, none, none
	*t.at(i) = e
	if n.long {
		t.rests[i] = n.rest
	}
	t.slots[n.key.prefix()] = i
	return i
}

// unname frees the key of slot i for another entry.
func (t *table) unname(i int32) {
	if t.named(i) {
		delete(t.slots, t.at(i).key.prefix())
	}
}

// named reports whether the key of slot i leads to slot i.
func (t *table) named(i int32) bool {
	at, ok := t.slots[t.at(i).key.prefix()]
	return ok && at == i
}

// release frees slot i.
func (t *table) release(i int32) {
	t.unname(i)
	delete(t.rests, i)
	delete(t.checks, i)
	*t.at(i) = entry{next: t.unused}
	t.unused = i
}

// name returns the name of the blob in slot i.
func (t *table) name(i int32) name {
	e := t.at(i)
	return name{key: e.key, long: e.long, rest: t.rests[i]}
}

// where returns the named slots in a state for which is returns true.
func (t *table) where(is func(state) bool) (all []int32) {
	for _, i := range t.slots {
		if is(t.at(i).state) {
			all = append(all, i)
		}
	}
	return all
}

// ordersOf returns a share's idle blobs.
func (t *table) ordersOf(sh uint16) *orders {
	for len(t.orders) <= int(sh) {
		t.orders = append(t.orders, orders{order{none, none}, order{none, none}})
	}
	return &t.orders[sh]
}

// order returns the order of use that slot i belongs to.
func (t *table) order(i int32) *order {
	e := t.at(i)
	o := t.ordersOf(e.share)
	if e.spare {
		return &o.spare
	}
	return &o.own
}

// oldest returns the least recently used idle blob of all shares that is another
// node's to keep; if there is none, of those that are this node's; or none.
func (t *table) oldest() int32 {
	spare, own := none, none
	older := func(i, than int32) bool {
		return i != none && (than == none || t.at(i).used < t.at(than).used)
	}
	for _, o := range t.orders {
		if older(o.spare.tail, spare) {
			spare = o.spare.tail
		}
		if older(o.own.tail, own) {
			own = o.own.tail
		}
	}
	if spare != none {
		return spare
	}
	return own
}

// link puts slot i into its order of use: as the most recently used, or as older than
// all.
func (t *table) link(i int32, recent bool) {
	e := t.at(i)
	o := t.order(i)
	e.prev, e.next = none, none
	t.age(i, recent)
	if recent {
		e.next = o.head
	} else {
		e.prev = o.tail
	}
	t.join(o, e.prev, i)
	t.join(o, i, e.next)
}

// age notes that slot i was used just now, or before all others.
func (t *table) age(i int32, recent bool) {
	if recent {
		t.tick++
		t.at(i).used = t.tick
		return
	}
	t.past--
	t.at(i).used = t.past
}

// unlink takes slot i out of its order of use.
func (t *table) unlink(i int32) {
	e := t.at(i)
	t.join(t.order(i), e.prev, e.next)
	e.prev, e.next = none, none
}

// join makes b follow a. One of them may be none: the end of the order.
func (t *table) join(o *order, a, b int32) {
	if a != none {
		t.at(a).next = b
	} else {
		o.head = b
	}
	if b != none {
		t.at(b).prev = a
	} else {
		o.tail = a
	}
}
