package cache

import (
	"cmp"
	"slices"
	"time"
)

// A stockroom lists what the index has, keeps some of it from eviction, and takes some
// out. It is the index's third door, guarded by the same lock.
type stockroom struct{ x *index }

// label notes that the blob that n names is a manifest.
func (r stockroom) label(n name) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	if i, ok := r.x.table.find(n); ok {
		r.x.table.at(i).manifest = true
	}
}

// A stored is an entry as a stockroom lists it.
type stored struct {
	name     name
	share    uint16
	size     int64
	touched  uint32 // unix seconds
	manifest bool
	retained bool
}

// all lists the blobs of the shard, in no order, and the names of the shares. It takes some at
// a time, so that others may use the index in between.
func (r stockroom) all() (all []stored, shares []string) {
	for from, end := int32(0), false; !end; from += placeBatch {
		all, end = r.next(all, from, placeBatch)
	}
	return all, room(r).shares()
}

// next adds the blobs in so many slots to all, and reports whether there are no more.
func (r stockroom) next(all []stored, from, most int32) (_ []stored, end bool) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	last := min(from+most, r.x.table.made)
	for i := from; i < last; i++ {
		e := r.x.table.at(i)
		if !e.state.held() || !r.x.table.named(i) {
			continue
		}
		n := r.x.table.name(i)
		_, kept := r.x.retains[n]
		all = append(all, stored{name: n, share: e.share, size: e.size, touched: e.touched, manifest: e.manifest, retained: kept})
	}
	return all, last == r.x.table.made
}

// A use is a blob in a slot, and when it was last used.
type use struct {
	used uint64 // as in entry
	slot int32
}

// uses lists the blobs, those last used first, some at a time as all does.
func (r stockroom) uses() (all []use) {
	some := func(from int32) (end bool) {
		r.x.mu.Lock()
		defer r.x.mu.Unlock()
		last := min(from+placeBatch, r.x.table.made)
		for i := from; i < last; i++ {
			if e := r.x.table.at(i); e.state.held() && r.x.table.named(i) {
				all = append(all, use{e.used, i})
			}
		}
		return last == r.x.table.made
	}
	for from := int32(0); !some(from); from += placeBatch {
	}
	slices.SortFunc(all, func(a, b use) int { return cmp.Compare(b.used, a.used) })
	return all
}

// held returns what the shard holds in those slots, each with the name of its share as the
// registry.
func (r stockroom) held(uses []use) (out []Held) {
	some := func(uses []use) {
		r.x.mu.Lock()
		defer r.x.mu.Unlock()
		for _, u := range uses {
			if e := r.x.table.at(u.slot); e.state.held() && r.x.table.named(u.slot) {
				out = append(out, Held{Digest: r.x.table.name(u.slot).digest(), Registry: r.x.shares.all[e.share].name, Size: e.size})
			}
		}
	}
	out = make([]Held, 0, len(uses))
	for one := range slices.Chunk(uses, placeBatch) {
		some(one)
	}
	return out
}

// bounds returns the bound of the store and that of a registry's share, 0 for none.
func (r stockroom) bounds(registry string) (bound, share int64) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	for _, sh := range r.x.shares.all {
		if sh.name == registry {
			share = sh.space.bound
		}
	}
	return r.x.shares.total.bound, share
}

// retain replaces the blobs that are never evicted. The caller does not change names
// any more.
func (r stockroom) retain(names map[name]struct{}) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	before := r.x.retains
	r.x.retains = names
	for n := range before {
		if _, still := names[n]; still {
			continue
		}
		if i, ok := r.x.table.find(n); ok && r.x.table.at(i).state == retained {
			r.x.link(i, true)
		}
	}
	for n := range names {
		if i, ok := r.x.table.find(n); ok && r.x.table.at(i).state == idle {
			r.x.unlink(i)
			r.x.table.at(i).state = retained
		}
	}
}

// used returns when a blob was last used, zero for a replica that nobody asked for.
func (s stored) used() time.Time {
	if s.touched == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s.touched), 0)
}

// confirm notes that the blob that n names was right under id at that time. It reports
// false if the shard does not hold it, or with another size.
func (r stockroom) confirm(n name, id identity, at time.Time) bool {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	i, ok := r.x.table.find(n)
	if !ok || r.x.table.at(i).size != id.size {
		return false
	}
	if id.size > smallSize { // a small blob is checked each time it is read
		r.x.table.checks[i] = check{id, at.UnixNano()}
	}
	return true
}

// read reports whether others than the caller read the blob in slot i.
func (r stockroom) read(i int32) bool {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.x.pins[i].refs > 1
}
