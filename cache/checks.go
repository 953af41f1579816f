package cache

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/wait"

	"github.com/cespare/xxhash/v2"
)

// sharedChecks are the checks that all readers of a blob share.
type sharedChecks struct{ atomic.Pointer[checks] }

// checks say which chunks of one blob are known to be right.
type checks struct {
	meta  *meta
	id    identity
	since time.Time

	mu    sync.Mutex // guards the fields below; never held during I/O
	right []bool
	left  int                     // chunks that are not right yet
	busy  map[int64]chan struct{} // chunks that a reader checks now
}

// newChecks returns checks of a file that nothing is known of.
func newChecks(m *meta, id identity, now time.Time) *checks {
	return &checks{meta: m, id: id, since: now, right: make([]bool, len(m.sums)), left: len(m.sums), busy: map[int64]chan struct{}{}}
}

// once calls check for chunk i unless the chunk is known to be right. Of several
// readers one checks and the others wait for it. If the file is not settled the
// result counts only for the caller: the file may change without a trace.
func (c *checks) once(ctx context.Context, i int64, settled bool, check func() error) error {
	for {
		right, busy := c.claim(i, settled)
		switch {
		case right:
			return nil
		case busy != nil:
			if err := wait.Until(ctx, busy, 0); err != nil {
				return err
			}
			continue
		}
		err := check()
		if settled {
			c.settle(i, err == nil)
		}
		return err
	}
}

// claim reports whether chunk i is right, or returns what ends another reader's
// check. Otherwise the caller has to check.
func (c *checks) claim(i int64, settled bool) (right bool, busy <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.right[i] {
		return true, nil
	}
	if !settled {
		return false, nil
	}
	if busy, ok := c.busy[i]; ok {
		return false, busy
	}
	c.busy[i] = make(chan struct{})
	return false, nil
}

// settle ends a check.
func (c *checks) settle(i int64, right bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.busy[i])
	delete(c.busy, i)
	if right {
		c.right[i] = true
		c.left--
	}
}

// complete reports whether all chunks are right.
func (c *checks) complete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left == 0
}

// Salvage returns the bytes of a blob that Send called damaged, up to the first
// damaged chunk, so that they need not be downloaded again. It returns nil for
// other blobs. Keep the blob open while you read them.
func Salvage(b Blob) io.Reader {
	fb, ok := b.(*fileBlob)
	if !ok {
		return nil
	}
	c := fb.pin.checks.Load()
	if c == nil {
		return nil
	}
	return &salvage{file: fb.file, meta: c.meta}
}

// A salvage reads a file chunk by chunk until one is not right.
type salvage struct {
	file  *file
	meta  *meta
	chunk int64
	rest  []byte
	buf   [chunkSize]byte
}

// Read implements io.Reader. At the first wrong chunk it returns an unexpected EOF.
func (s *salvage) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.chunk >= int64(len(s.meta.sums)) {
			return 0, io.EOF
		}
		q := s.buf[:min(chunkSize, s.meta.Size-s.chunk*chunkSize)]
		if err := s.file.readAt(q, s.chunk*chunkSize); err != nil || xxhash.Sum64(q) != s.meta.sums[s.chunk] {
			return 0, io.ErrUnexpectedEOF
		}
		s.chunk++
		s.rest = q
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
