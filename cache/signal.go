package cache

import (
	"math"
)

// A signal wakes all who wait for it. It is used under a mutex.
type signal struct {
	c    chan struct{}
	mark int64
}

// wait returns a channel that is closed at the next fire, or at a reach of mark
// or more.
func (s *signal) wait(mark int64) <-chan struct{} {
	if s.c == nil {
		s.c, s.mark = make(chan struct{}), math.MaxInt64
	}
	s.mark = min(s.mark, mark)
	return s.c
}

// fire wakes all.
func (s *signal) fire() {
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}

// reach wakes all if somebody waits for n or less.
func (s *signal) reach(n int64) {
	if s.c != nil && n >= s.mark {
		s.fire()
	}
}
