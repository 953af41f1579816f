package directory

import (
	"hash/maphash"
	"unsafe"
)

const (
	none   = int32(-1) // ends a list of entries
	nobody = uint16(0) // stands for holders that are not named
)

// An entry says that a member holds a blob. It has no pointer: see table.
type entry struct {
	key          Key
	next         int32 // in the same bucket; of those that are free
	older, newer int32 // in the order in which they were made
	member       uint16
	round        uint16 // of the member's tellings
}

// A table finds entries by their keys, and knows which is the oldest. It has no lock; the
// Directory guards it. It grows as it is filled, up to its bound. Entries name each other by
// number, so that they cost the garbage collector nothing.
type table struct {
	most           int
	seed           maphash.Seed // so that nobody can choose keys that share a bucket
	buckets        []int32      // first entries; as many as a power of two
	entries        []entry
	free           int32
	used           int
	oldest, newest int32
}

func newTable(most int) table {
	return table{most: most, seed: maphash.MakeSeed(), buckets: []int32{none}, free: none, oldest: none, newest: none}
}

// full reports whether no entry can be added.
func (t *table) full() bool { return t.used >= t.most }

// bytes is how much memory the table takes.
func (t *table) bytes() int {
	return cap(t.entries)*int(unsafe.Sizeof(entry{})) + cap(t.buckets)*int(unsafe.Sizeof(none))
}

// bucket returns where the first entry of the key's bucket stands.
func (t *table) bucket(k Key) *int32 {
	return &t.buckets[maphash.Comparable(t.seed, k)&uint64(len(t.buckets)-1)]
}

// first returns the newest entry of the key, or none.
func (t *table) first(k Key) int32 { return t.from(*t.bucket(k), k) }

// after returns the entry of the same key that comes after i, or none.
func (t *table) after(i int32) int32 { return t.from(t.entries[i].next, t.entries[i].key) }

// from returns the first entry of the key from i on.
func (t *table) from(i int32, k Key) int32 {
	for i != none && t.entries[i].key != k {
		i = t.entries[i].next
	}
	return i
}

// add adds an entry as the newest. The table is not full.
func (t *table) add(k Key, member, round uint16) {
	i := t.free
	if i != none {
		t.free = t.entries[i].next
	} else {
		i = int32(len(t.entries))
		t.grow()
	}
	b := t.bucket(k)
	t.entries[i] = entry{key: k, next: *b, member: member, round: round}
	*b = i
	t.used++
	t.link(i)
}

// grow makes room for one entry more.
func (t *table) grow() {
	if len(t.entries) == cap(t.entries) { // by a quarter, as append would not always
		to := make([]entry, len(t.entries), min(t.most, max(16, len(t.entries)*5/4)))
		copy(to, t.entries)
		t.entries = to
	}
	if len(t.entries) == len(t.buckets) {
		t.buckets = make([]int32, 2*len(t.buckets))
		for b := range t.buckets {
			t.buckets[b] = none
		}
		for i := t.oldest; i != none; i = t.entries[i].newer { // none is free
			b := t.bucket(t.entries[i].key)
			t.entries[i].next = *b
			*b = i
		}
	}
	t.entries = append(t.entries, entry{})
}

// remove takes an entry out.
func (t *table) remove(i int32) {
	at := t.bucket(t.entries[i].key)
	for *at != i {
		at = &t.entries[*at].next
	}
	*at = t.entries[i].next
	t.unlink(i)
	t.entries[i] = entry{next: t.free}
	t.free = i
	t.used--
}

// renew makes an entry the newest.
func (t *table) renew(i int32) {
	t.unlink(i)
	t.link(i)
}

// link puts an entry at the end of the order.
func (t *table) link(i int32) {
	e := &t.entries[i]
	e.older, e.newer = t.newest, none
	if t.newest != none {
		t.entries[t.newest].newer = i
	} else {
		t.oldest = i
	}
	t.newest = i
}

// unlink takes an entry out of the order.
func (t *table) unlink(i int32) {
	e := &t.entries[i]
	if e.older != none {
		t.entries[e.older].newer = e.newer
	} else {
		t.oldest = e.newer
	}
	if e.newer != none {
		t.entries[e.newer].older = e.older
	} else {
		t.newest = e.older
	}
}
