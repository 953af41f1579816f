package lanes

import (
	"context"
	"sync"

	"oci-proxy/transfer/wait"
)

// blockSize is how many bytes a block of memory has.
const blockSize = 256 << 10

// A block holds bytes of a leg that have not been read.
type block [blockSize]byte

// blocks are those that were read and can be used again.
var blocks = sync.Pool{New: func() any { return new(block) }}

// reserve is how many bytes of memory a download keeps until its end, so that it gets on
// whatever other downloads do.
const reserve = firstLeg

// A store is a download's part of the memory that all downloads share. Its caller sees to
// it that one goroutine at a time uses it.
type store struct {
	claim      *wait.Claim
	held, used int64
}

// open takes the reserve. It reports false, and holds nothing, if others have the memory.
func (s *store) open(ctx context.Context) bool {
	if s.claim.Grow(ctx, reserve) != nil {
		return false
	}
	s.held = reserve
	return true
}

// take takes n bytes, or reports false. It waits for nothing.
func (s *store) take(ctx context.Context, n int64) bool {
	if more := s.used + n - s.held; more > 0 {
		if s.claim.Grow(ctx, more) != nil {
			return false
		}
		s.held += more
	}
	s.used += n
	return true
}

// give gives n bytes back, but for the reserve.
func (s *store) give(n int64) {
	s.used -= n
	if keep := max(s.used, reserve); s.held > keep {
		s.held = keep
		s.claim.Shrink(keep)
	}
}

// close gives all back.
func (s *store) close() {
	s.held, s.used = 0, 0
	s.claim.Release()
}
