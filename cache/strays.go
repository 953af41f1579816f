package cache

import "sync"

// A stray is a file that could not be removed: one in tmp, or what was written of a small blob.
// Its bytes go on counting.
type stray struct {
	disk     *disk
	tmp      string
	registry string
	bytes    int64
}

// strays are tried again before room is made. The next start removes the rest.
type strays struct {
	room room

	mu  sync.Mutex // guards the fields below; never held during I/O
	all []stray
}

// add remembers strays.
func (s *strays) add(more ...stray) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, more...)
}

// replaced says that the file of that name is another one now, which stays.
func (s *strays) replaced(d *disk, name string) {
	for _, f := range s.take(func(f stray) bool { return f.disk == d && f.tmp == name }) {
		s.room.release(f.registry, f.bytes)
	}
}

// take takes some strays out. Their bytes count all the same.
func (s *strays) take(some func(stray) bool) (out []stray) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []stray
	for _, f := range s.all {
		if some(f) {
			out = append(out, f)
		} else {
			left = append(left, f)
		}
	}
	s.all = left
	return out
}

// retry tries to remove them, and gives up the bytes of those that it could.
func (s *strays) retry() {
	for _, f := range s.take(func(stray) bool { return true }) {
		if removedAnyhow(f.disk.remove(f.tmp)) {
			s.room.release(f.registry, f.bytes)
		} else {
			s.add(f)
		}
	}
}
