package cache

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Many blobs that pass through memory share it, whether their readers read or not, and
// all arrive whole.
func TestWindowsShareMemory(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		bubble(t, Options{Bound: 1, Windows: NewWindows(1 << 20)}, func(t *testing.T, s *Store) {
			const many = 30
			all := s.shard.windows
			open := make(chan struct{})
			var passing sync.WaitGroup
			for i := range many {
				b := newSample(uint64(i), 300_000+rand.IntN(600_000))
				in, out := begin(t, s, b), &gate{open: open}
				passing.Go(func() {
					blob, err := in.Follow(t.Context())
					if err == nil {
						_, err = blob.Send(t.Context(), out, 0, -1)
						err = errors.Join(err, blob.Close())
					}
					if err != nil || !bytes.Equal(out.buf.Bytes(), b.content) {
						t.Errorf("told %v: %d of %d bytes, %v", told, out.n.Load(), len(b.content), err)
					}
				})
				passing.Go(func() {
					if told {
						in.SetSize(int64(len(b.content)))
					}
					if _, err := in.Write(b.content); err != nil {
						t.Error(err)
					}
					if err := in.Commit(); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait() // nobody reads
			if n := all.bytes.Load(); n < 1<<20 || n > 1<<20+many*(windowLeast+blockSize) {
				t.Errorf("%d bytes are held", n)
			}
			close(open)
			passing.Wait()
			synctest.Wait()
			if n := all.bytes.Load(); n != 0 {
				t.Errorf("%d bytes are held at the end", n)
			}
		})
	}
}

// A reader that stands still is not left behind because others take the memory.
func TestStandingStillCostsNoPlaceInASmallWindow(t *testing.T) {
	t.Parallel()
	bubble(t, Options{Bound: 1, Windows: NewWindows(0)}, func(t *testing.T, s *Store) {
		b := newSample(1, 1<<20)
		in, out := begin(t, s, b), &gate{open: make(chan struct{})}
		sent := make(chan error, 1)
		go func() {
			blob, err := in.Follow(t.Context())
			if err == nil {
				_, err = blob.Send(t.Context(), out, 0, -1)
				err = errors.Join(err, blob.Close())
			}
			sent <- err
		}()
		written := make(chan error, 1)
		go func() { written <- write(in, b, 100_000) }()
		synctest.Wait()
		time.Sleep(100 * patience) // in the bubble
		close(out.open)
		if err := errors.Join(<-sent, <-written, same(out.buf.Bytes(), b.content)); err != nil {
			t.Error(err)
		}
	})
}
