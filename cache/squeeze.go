package cache

import (
	"fmt"
	"time"
)

const (
	// squeezeStep is for how many bytes room is made, at least, on a full disk.
	squeezeStep = 1 << 20
	// squeezeTime is for how long a disk counts as smaller than the bound once
	// it was full; it is over sooner if the disk says that it has room.
	squeezeTime = 5 * time.Minute
	// squeezeSpare is what is left free on a disk that was full: for metas.
	squeezeSpare = 1 << 20
)

// squeeze makes room on a disk that is full though the bound is not reached:
// what it holds now is taken for what it can hold, and the bound is that for a
// while. It reports whether anything went. n bytes are those that did not fit;
// they are reserved.
func (s *Store) squeeze(d *disk, registry string, n int64) bool {
	n = max(n, squeezeStep)
	free, err := d.free()
	if err != nil || free >= n {
		free = 0 // it does not know: a quota, perhaps
	}
	was, limit := s.index.narrow(n - free)
	if n > limit {
		s.index.setLimit(was) // all that we hold would not do
		return false
	}
	gone := s.yield(registry, 0)
	victims := s.index.evictFor(registry)
	if len(victims) == 0 && !gone {
		s.index.setLimit(was) // nothing of ours is in the way
		return false
	}
	s.squeezed.Store(time.Now().UnixNano())
	if was == 0 {
		s.log.Warn("the disk is full: keeping less than the bound", "bytes", limit, "bound", s.opts.Bound)
	}
	if err := s.removeFiles(d, victims); err != nil {
		s.noteHealth(err)
		return false
	}
	return true
}

// widen lets the bound count again as far as the disk has room.
func (s *Store) widen(d *disk) {
	if s.index.limit() == 0 {
		return
	}
	free, err := d.free()
	if err != nil {
		free = 0
	}
	over := time.Since(time.Unix(0, s.squeezed.Load())) > squeezeTime
	if s.index.widen(free-squeezeSpare, over) {
		s.log.Info("the disk is not full any more: the bound counts again", "bound", s.opts.Bound)
	}
}

// narrowed says that less is kept than was allowed.
func (s *Store) narrowed() error {
	if limit := s.index.limit(); limit != 0 {
		return fmt.Errorf("the disk is full: %d bytes are kept at most", limit)
	}
	return nil
}

// narrow limits the store to n bytes less than it holds, and returns the limit
// before and now.
func (x *index) narrow(n int64) (was, limit int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	was = x.room.limit
	x.room.limit = max(x.room.used-x.room.leaving+x.room.reserved-n, 1)
	return was, x.room.limit
}

// setLimit sets the limit, 0: none.
func (x *index) setLimit(n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.room.limit = n
}

// limit returns what the disk is known to have room for, 0: more than the bound.
func (x *index) limit() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.room.limit
}

// widen raises the limit to what is held and free bytes more, and lifts it if
// that is no less than the bound, or if it is over.
func (x *index) widen(free int64, over bool) (lifted bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := &x.room
	if r.limit == 0 {
		return false
	}
	r.limit = max(r.limit, r.used+r.reserved+free)
	if over || r.bound != 0 && r.limit >= r.bound {
		r.limit = 0
	}
	return r.limit == 0
}

// evictFor takes out what exceeds the bounds of a registry and of the store;
// the caller removes it.
func (x *index) evictFor(registry string) []int32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.evict(x.share(registry), 0)
}
