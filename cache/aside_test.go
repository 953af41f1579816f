package cache

import (
	"bytes"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// The first byte of a large blob does not wait until room for all of it is set aside.
func TestRoomIsSetAsideStepByStep(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	s := start(t, t.TempDir(), Options{Fault: func(op, _ string) error {
		if op == "allocate" {
			calls.Add(1)
		}
		return nil
	}})
	b := newSample(4700, 20<<20)
	in := begin(t, s, b)
	in.SetSize(int64(len(b.content)))
	for _, step := range []struct{ upTo, calls int64 }{{0, 1}, {asideFirst, 1}, {asideFirst + 1, 2}, {asideFirst + asideStep, 2}, {20 << 20, 3}} {
		if _, err := in.Write(b.content[in.Offset():step.upTo]); err != nil {
			t.Fatal(err)
		}
		if calls.Load() != step.calls {
			t.Errorf("after %d bytes room was set aside %d times, want %d", step.upTo, calls.Load(), step.calls)
		}
	}
	if err := in.Commit(); err != nil || !in.Stored() {
		t.Fatal(err, in.Stored())
	}
	want(t, s, b)
}

// If the disk turns out to be full in the middle of a blob, nothing is evicted unless that makes
// room for the rest of it.
func TestDiskThatFillsUpInMidBlobEvictsForAllOrNothing(t *testing.T) {
	t.Parallel()
	for _, held := range []int{1 << 20, 12 << 20} {
		dir, enough := t.TempDir(), held > 8<<20
		var small atomic.Bool
		s := start(t, dir, Options{Fault: func(op, name string) error {
			switch {
			case op == "statfs":
				return syscall.EIO
			case op == "allocate" && small.Load() && usage(t, dir) > asideFirst+int64(held)/2:
				return &fs.PathError{Op: op, Path: name, Err: syscall.ENOSPC}
			}
			return nil
		}})
		old := newSample(4710, held)
		keep(t, s, old)
		b := newSample(4711, 8<<20)
		in := begin(t, s, b)
		in.SetSize(int64(len(b.content)))
		small.Store(true)
		var wg sync.WaitGroup
		wg.Go(func() {
			if got, err := send(t, in, 0, -1); err != nil || !bytes.Equal(got, b.content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
		joined(t, in, 1)
		if _, err := in.Write(b.content); err != nil {
			t.Fatal(err)
		}
		if err := in.Commit(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if _, stays := s.Stat(old.digest); stays == enough || in.Stored() != enough {
			t.Errorf("%d bytes held: they stay: %v, the new blob is stored: %v", held, stays, in.Stored())
		}
	}
}
