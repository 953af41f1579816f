package cache

import "math"

// A room gives out the bytes that the index has left. It is the index's other
// door, guarded by the same lock.
type room struct{ x *index }

// reserve gives n bytes to a registry, or errNoRoom and nothing. It returns the
// blobs whose files have to go for it. The caller removes them, reports each to
// the index as removed or stuck, and calls settle before it writes.
func (r room) reserve(registry string, n int64) ([]int32, error) {
	return r.reserveIf(registry, n, (*space).fits)
}

// reserveBeside is reserve for a blob that is another node's to keep: only others like
// it go.
func (r room) reserveBeside(registry string, n int64) ([]int32, error) {
	return r.reserveIf(registry, n, (*space).fitsBeside)
}

// reserveIf is reserve if the bytes fit.
func (r room) reserveIf(registry string, n int64, fits func(*space, int64) bool) ([]int32, error) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	sh := r.x.shares.number(registry)
	if !r.x.shares.every(sh, func(s *space) bool { return fits(s, n) }) {
		return nil, errNoRoom
	}
	out := r.x.evict(sh, n)
	r.x.shares.reserve(sh, n, n)
	return out, nil
}

// settle waits until n reserved bytes can be written without exceeding the
// bound, while others' files are being removed. If that does not help, because a
// file can't be removed or takes too long, it gives the reservation up and
// returns errNoRoom.
func (r room) settle(registry string, n int64) error {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	sh := r.x.shares.number(registry)
	uncrowded := func() bool { return r.x.shares.every(sh, func(s *space) bool { return !s.crowded(n) }) }
	r.x.wait(roomPatience, func() bool { return r.x.shares.total.leaving.blobs == 0 || uncrowded() })
	if !uncrowded() {
		r.x.unreserve(sh, n, n)
		return errNoRoom
	}
	r.x.shares.reserve(sh, 0, -n)
	return nil
}

// cancel gives up n bytes that were reserved but not settled.
func (r room) cancel(registry string, n int64) { r.giveUp(registry, n, n) }

// release gives up n bytes that were settled.
func (r room) release(registry string, n int64) { r.giveUp(registry, n, 0) }

// giveUp gives up n reserved bytes.
func (r room) giveUp(registry string, n, pending int64) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	r.x.unreserve(r.x.shares.number(registry), n, pending)
}

// hold counts n bytes that are on disk already as being on their way in.
func (r room) hold(registry string, n int64) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	r.x.shares.reserve(r.x.shares.number(registry), n, 0)
}

// holds reports whether n bytes of a registry are within the bounds at all.
func (r room) holds(registry string, n int64) bool {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.x.shares.within(r.x.shares.number(registry), n)
}

// hasRoomBeside reports whether n more bytes of a registry have room beside what is this node's to
// keep.
func (r room) hasRoomBeside(registry string, n int64) bool {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.x.shares.every(r.x.shares.number(registry), func(s *space) bool { return s.fitsBeside(n) })
}

// A lack says what n more bytes of a registry would evict.
type lack struct {
	any  bool
	own  bool  // only blobs of the registry are evicted
	used int64 // unix seconds of the first victim's last use; without a victim the end of time
}

// lack returns what n more bytes of a registry would evict: nothing if there is no
// way to make that room.
func (r room) lack(registry string, n int64) lack {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	sh := r.x.shares.number(registry)
	own, all := &r.x.shares.all[sh].space, &r.x.shares.total
	if !r.x.shares.within(sh, n) {
		return lack{}
	}
	l := lack{any: true, own: own.over(n) > 0, used: math.MaxInt64}
	first := r.x.table.oldest()
	switch {
	case l.own && !own.fits(n), !l.own && !all.fits(n):
		return l // evicting all blobs would not be enough
	case l.own:
		first = r.x.table.ordersOf(sh).tail()
	case all.over(n) <= 0:
		return lack{}
	}
	if first != none {
		l.used = int64(r.x.table.at(first).touched)
	}
	return l
}

// evictFor evicts blobs until the bounds of a registry and of the store hold. The
// caller removes their files.
func (r room) evictFor(registry string) []int32 {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.x.evict(r.x.shares.number(registry), 0)
}

// shrink evicts blobs until all bounds hold, as far as nobody reads them. The caller
// removes their files.
func (r room) shrink() (out []int32) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	for sh := range r.x.shares.all {
		out = append(out, r.x.evict(uint16(sh), 0)...)
	}
	return out
}

// narrow limits the store to less than it holds, so that n bytes which are reserved
// fit on a disk that has only free bytes, and returns the limit before and now. To
// make room less often it takes step bytes if that is more, but no more than a quarter
// of what is held beside the n: a small store must not lose all for one blob.
func (r room) narrow(n, step, free int64) (was, limit int64) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	t := &r.x.shares.total
	was = t.limit
	held := t.staying()
	n = max(n, min(step, (held-n)/4), 1)
	t.limit = max(held-max(n-free, 1), 1)
	return was, t.limit
}

// setBounds changes the bounds of the store and of single shares, 0: none. What is too much
// by then goes at the caretaker's next look.
func (r room) setBounds(bound int64, shares map[string]int64) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	r.x.shares.total.bound = bound
	for i := range r.x.shares.all {
		r.x.shares.all[i].space.bound = shares[r.x.shares.all[i].name]
	}
	for name, b := range shares {
		if i := r.x.shares.number(name); r.x.shares.all[i].name == name { // else there are too many shares
			r.x.shares.all[i].space.bound = b
		}
	}
}

// bound returns the bound of the store, 0 if there is none.
func (r room) bound() int64 {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.x.shares.total.bound
}

// setLimit sets the limit, 0: none.
func (r room) setLimit(n int64) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	r.x.shares.total.limit = n
}

// limit returns how many bytes the disk has room for, 0 if it is not known to be
// less than the bound.
func (r room) limit() int64 {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.x.shares.total.limit
}

// widen raises the limit to the bytes held and free bytes more. It lifts the limit
// if that reaches the bound, or if over.
func (r room) widen(free int64, over bool) (lifted bool) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	t := &r.x.shares.total
	if t.limit == 0 {
		return false
	}
	t.limit = max(t.limit, t.staying()+t.leaving.bytes+free)
	if over || t.bound != 0 && t.limit >= t.bound {
		t.limit = 0
	}
	return t.limit == 0
}

// size returns the bytes that count towards the bound now.
func (r room) size() int64 {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.x.shares.total.onDisk()
}

// stats returns the figures of each share.
func (r room) stats() map[string]Stats {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	out := make(map[string]Stats, len(r.x.shares.all))
	for _, sh := range r.x.shares.all {
		bound := sh.space.bound
		if bound == 0 {
			bound = r.x.shares.total.bound
		}
		out[sh.name] = Stats{Items: sh.items, Bytes: sh.space.used.bytes - sh.space.leaving.bytes, Bound: bound, Evictions: sh.evictions}
	}
	return out
}
