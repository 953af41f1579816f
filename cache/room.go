package cache

import "math"

// maxShares bounds the shares. Registries beyond it have one share together,
// so that names made up by clients cost neither memory nor time.
const maxShares = 1024

// A share is what one registry has of the shard.
type share struct {
	name       string
	room       space
	head, tail int32 // most and least recently used
	items      int64
	evictions  uint64
}

// A space is a bound and what counts towards it, in bytes.
//
// Room is given out by what will be once files that are leaving are gone, so
// that two blobs on their way in do not both evict for the same bytes; it is
// written to only once what is on disk allows it.
type space struct {
	bound    int64 // 0: none
	limit    int64 // what the disk has room for, where that is less; 0: not known to be
	used     int64 // blobs of the shard, leaving ones too
	idle     int64 // part of used that could be evicted
	leaving  int64 // part of used whose files are being removed
	reserved int64 // on its way in
	pending  int64 // part of reserved that may not be written to yet
}

// over is by how much n more bytes would exceed the bound once what is leaving
// is gone.
func (s *space) over(n int64) int64 {
	most := s.most()
	if most == 0 {
		return math.MinInt64
	}
	return n - (most - (s.used - s.leaving + s.reserved))
}

// most is the bound that counts: the lesser of bound and limit, 0: none.
func (s *space) most() int64 {
	if s.limit == 0 || s.bound != 0 && s.bound < s.limit {
		return s.bound
	}
	return s.limit
}

// fits reports whether n bytes could be had by evicting what nobody reads.
// What exceeds the bound by itself is refused before it is added to anything:
// sizes are what strangers announce.
func (s *space) fits(n int64) bool {
	most := s.most()
	return most == 0 || n <= most && s.over(n) <= s.idle
}

// onDisk is what the disk holds at most.
func (s *space) onDisk() int64 { return s.used + s.reserved - s.pending }

// crowded reports whether n pending bytes may not be written yet.
func (s *space) crowded(n int64) bool {
	most := s.most()
	return most != 0 && s.onDisk() > most-n
}

// share returns the number of a registry's share, making it if it is new.
func (x *index) share(name string) uint16 {
	if i, ok := x.names[name]; ok {
		return i
	}
	if len(x.shares) >= maxShares {
		name = "" // all others; always there by then
		if i, ok := x.names[name]; ok {
			return i
		}
	}
	i := uint16(len(x.shares))
	x.shares = append(x.shares, share{name: name, head: none, tail: none})
	x.names[name] = i
	return i
}

// reserve gives n bytes to a registry, or errNoRoom and nothing. It returns
// the blobs whose files have to go for it: the caller removes them, says gone
// or stuck for each, and calls settle before it writes.
func (x *index) reserve(registry string, n int64) ([]int32, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	sh := x.share(registry)
	if !x.shares[sh].room.fits(n) || !x.room.fits(n) {
		return nil, errNoRoom
	}
	out := x.evict(sh, n)
	for _, s := range x.spaces(sh) {
		s.reserved += n
		s.pending += n
	}
	return out, nil
}

// holds reports whether n bytes of a registry are within the bounds at all.
func (x *index) holds(registry string, n int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.within(x.share(registry), n)
}

// within is holds for a share. The caller holds mu.
func (x *index) within(sh uint16, n int64) bool {
	for _, s := range x.spaces(sh) {
		if most := s.most(); most != 0 && n > most {
			return false
		}
	}
	return true
}

// settle waits until n reserved bytes can be written without exceeding the
// bound, while others' files are being removed. If that does not help (a file
// could not be removed) it gives the reservation up and says errNoRoom.
func (x *index) settle(registry string, n int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	sh := x.share(registry)
	for x.shares[sh].room.crowded(n) || x.room.crowded(n) {
		if x.room.leaving == 0 {
			x.unreserve(sh, n, true)
			return errNoRoom
		}
		x.settled.Wait()
	}
	for _, s := range x.spaces(sh) {
		s.pending -= n
	}
	return nil
}

// cancel gives up n bytes that were reserved but not settled.
func (x *index) cancel(registry string, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unreserve(x.share(registry), n, true)
}

// release gives up n bytes that were settled.
func (x *index) release(registry string, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unreserve(x.share(registry), n, false)
}

// unreserve takes n bytes off what is on its way in.
func (x *index) unreserve(sh uint16, n int64, pending bool) {
	for _, s := range x.spaces(sh) {
		s.reserved -= n
		if pending {
			s.pending -= n
		}
	}
	x.settled.Broadcast()
}

// hold counts n bytes that are on disk already as being on their way in.
func (x *index) hold(registry string, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.spaces(x.share(registry)) {
		s.reserved += n
	}
}

// A lack says what n more bytes of a registry would push out.
type lack struct {
	any  bool
	own  bool  // it has to be the registry's
	used int64 // unix seconds of the blob's last use that would go first; no blob: the end of time
}

// lack returns what n more bytes of a registry would push out. What can't be
// had at all pushes out nothing.
func (x *index) lack(registry string, n int64) lack {
	x.mu.Lock()
	defer x.mu.Unlock()
	sh := x.share(registry)
	own := &x.shares[sh]
	if !x.within(sh, n) {
		return lack{}
	}
	l := lack{any: true, own: own.room.over(n) > 0, used: math.MaxInt64}
	first := x.oldest()
	switch {
	case l.own && own.room.over(n) > own.room.idle, !l.own && x.room.over(n) > x.room.idle:
		return l // even all the blobs would not do
	case l.own:
		first = own.tail
	case x.room.over(n) <= 0:
		return lack{}
	}
	if first != none {
		l.used = x.entries[first].touched
	}
	return l
}

// spaces are what bytes of a share count towards.
func (x *index) spaces(sh uint16) [2]*space { return [2]*space{&x.shares[sh].room, &x.room} }

// evict takes out the least recently used blobs, first of the share until n
// more bytes are within its own bound, then of all, and returns their slots.
func (x *index) evict(sh uint16, n int64) []int32 {
	var out []int32
	take := func(i int32) {
		x.shares[x.entries[i].share].evictions++
		x.remove(i)
		out = append(out, i)
	}
	own := &x.shares[sh]
	for own.room.over(n) > 0 && own.tail != none {
		take(own.tail)
	}
	for x.room.over(n) > 0 {
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

// shrink takes out what exceeds the bounds, but for what is being read, once
// all that the disk holds is in the index; the caller removes it.
func (x *index) shrink() []int32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bounded = true
	clear(x.expelled)
	var out []int32
	for sh := range x.shares {
		out = append(out, x.evict(uint16(sh), 0)...)
	}
	return out
}

// link puts slot i into its share's order of use as the most recent, or as
// older than all.
func (x *index) link(i int32, recent bool) {
	e := &x.entries[i]
	s := &x.shares[e.share]
	e.prev, e.next = none, none
	if recent {
		x.tick++
		e.used = x.tick
		e.next = s.head
	} else {
		x.past--
		e.used = x.past
		e.prev = s.tail
	}
	if e.prev != none {
		x.entries[e.prev].next = i
	} else {
		s.head = i
	}
	if e.next != none {
		x.entries[e.next].prev = i
	} else {
		s.tail = i
	}
	for _, r := range x.spaces(e.share) {
		r.idle += e.size
	}
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
	for _, r := range x.spaces(e.share) {
		r.idle -= e.size
	}
}
