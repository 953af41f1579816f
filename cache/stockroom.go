package cache

import "time"

// A stockroom lists what the index has, keeps some of it from eviction, and takes some
// out. It is the index's third door, guarded by the same lock.
type stockroom struct{ x *index }

// label notes that the blob that n names is a manifest.
func (r stockroom) label(n name) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	if i, ok := r.x.table.find(n); ok {
		r.x.table.entries[i].manifest = true
	}
}

// A stored is an entry as a stockroom lists it.
type stored struct {
	name     name
	share    uint16
	size     int64
	touched  int64 // unix seconds
	manifest bool
	retained bool
}

// all lists the blobs of the shard, in no order, and the names of the shares.
func (r stockroom) all() (all []stored, shares []string) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	all = make([]stored, 0, len(r.x.table.slots))
	for _, i := range r.x.table.slots {
		e := &r.x.table.entries[i]
		if !e.state.held() {
			continue
		}
		n := r.x.table.name(i)
		_, kept := r.x.retains[n]
		all = append(all, stored{name: n, share: e.share, size: e.size, touched: e.touched, manifest: e.manifest, retained: kept})
	}
	for _, sh := range r.x.shares.all {
		shares = append(shares, sh.name)
	}
	return all, shares
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
		if i, ok := r.x.table.find(n); ok && r.x.table.entries[i].state == retained {
			r.x.link(i, true)
		}
	}
	for n := range names {
		if i, ok := r.x.table.find(n); ok && r.x.table.entries[i].state == idle {
			r.x.unlink(i)
			r.x.table.entries[i].state = retained
		}
	}
}

// used returns when a blob was last used, zero for a replica that nobody asked for.
func (s stored) used() time.Time {
	if s.touched <= 0 {
		return time.Time{}
	}
	return time.Unix(s.touched, 0)
}

// confirm notes that the blob that n names was right under id at that time. It reports
// false if the shard does not hold it, or with another size.
func (r stockroom) confirm(n name, id identity, at time.Time) bool {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	i, ok := r.x.table.find(n)
	if !ok || r.x.table.entries[i].size != id.size {
		return false
	}
	r.x.table.entries[i].id, r.x.table.entries[i].checked = id, at.UnixNano()
	return true
}

// read reports whether others than the caller read the blob in slot i.
func (r stockroom) read(i int32) bool {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.x.pins[i].refs > 1
}
