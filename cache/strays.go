package cache

import (
	"errors"
	"os"
	"sync"
)

// A stray is a file in tmp that could not be removed. Its bytes go on counting.
type stray struct {
	disk     *disk
	tmp      string
	registry string
	bytes    int64
}

// strays are tried again before room is made; the next start removes the rest.
type strays struct {
	mu  sync.Mutex
	all []stray
}

// add remembers a stray.
func (s *strays) add(f stray) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, f)
}

// remove tries to remove them, and calls gone for each that it could.
func (s *strays) remove(gone func(stray)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.all[:0]
	for _, f := range s.all {
		if err := f.disk.remove(f.tmp); err != nil && !errors.Is(err, os.ErrClosed) {
			rest = append(rest, f)
			continue
		}
		gone(f)
	}
	s.all = rest
}
