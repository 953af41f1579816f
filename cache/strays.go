package cache

import "sync"

// A stray is a file in tmp that could not be removed. Its bytes go on counting.
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

// takeAll takes all strays out. Their bytes count all the same.
func (s *strays) takeAll() []stray {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

// retry tries to remove them, and gives up the bytes of those that it could.
func (s *strays) retry() {
	for _, f := range s.takeAll() {
		if removedAnyhow(f.disk.remove(f.tmp)) {
			s.room.release(f.registry, f.bytes)
		} else {
			s.add(f)
		}
	}
}
