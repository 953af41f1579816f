package cache

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A smallDisk has room for a number of bytes of content and does not say so. Room
// set aside counts too. All blobs have size bytes.
type smallDisk struct {
	t    *testing.T
	dir  string
	size int64
	room atomic.Int64
}

func (d *smallDisk) fault(op, name string) error {
	switch op {
	case "statfs":
		return syscall.EIO
	case "allocate":
		if usage(d.t, d.dir)+d.size > d.room.Load() {
			return &fs.PathError{Op: op, Path: name, Err: syscall.ENOSPC}
		}
	}
	return nil
}

// On a disk smaller than the bound, old blobs make room for new ones.
func TestDiskThatIsSmallerThanTheBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const size = 2 << 20
	synctest.Test(t, func(t *testing.T) {
		d := &smallDisk{t: t, dir: dir, size: size}
		d.room.Store(4 * size)
		s := start(t, dir, Options{Bound: 20 * size, Fault: d.fault})
		blobs := make([]sample, 12)
		for i := range blobs {
			blobs[i] = newSample(uint64(400+i), size)
			keep(t, s, blobs[i])
			want(t, s, blobs[i])
		}
		if s.Size() != 4*size || usage(t, dir) != s.Size() {
			t.Errorf("%d bytes count, %d are there", s.Size(), usage(t, dir))
		}
		if err := s.Health(); !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "full") {
			t.Error("health:", err)
		}
		d.room.Store(100 * size)
		time.Sleep(pressureTime + 2*tendInterval) // in the bubble's time
		synctest.Wait()
		if err := s.Health(); err != nil {
			t.Error("the disk has room again, but Health says:", err)
		}
		for _, b := range blobs {
			keep(t, s, b)
		}
		if s.Size() != int64(len(blobs))*size {
			t.Errorf("%d bytes count", s.Size())
		}
	})
}

// If the disk says that it has room again, the bound counts after the next look.
func TestDiskThatHasRoomAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const size = 2 << 20
	synctest.Test(t, func(t *testing.T) {
		d := &smallDisk{t: t, dir: dir, size: size}
		d.room.Store(2 * size)
		s := start(t, dir, Options{Bound: 8 * size, Fault: func(op, name string) error {
			if op == "statfs" {
				return nil // the disk of the test has room
			}
			return d.fault(op, name)
		}})
		for i := range uint64(4) {
			keep(t, s, newSample(420+i, size))
		}
		if s.Health() == nil || s.Size() != 2*size {
			t.Error(s.Health(), s.Size())
		}
		d.room.Store(100 * size)
		time.Sleep(2 * tendInterval) // in the bubble's time
		synctest.Wait()
		if err := s.Health(); err != nil {
			t.Error(err)
		}
	})
}

// A disk that other programs have filled is tried again for each blob.
func TestDiskThatOthersHaveFilled(t *testing.T) {
	t.Parallel()
	d := &smallDisk{t: t, dir: t.TempDir(), size: 1 << 20}
	s := start(t, d.dir, Options{Bound: 1 << 30, Fault: d.fault})
	b := newSample(430, 1<<20)
	if stored, err := s.Put(t.Context(), b.digest, registry, "", b.content); stored || err != nil || s.Health() == nil {
		t.Error("a blob was kept without room:", err, s.Health())
	}
	d.room.Store(1 << 30)
	keep(t, s, b)
	if err := s.Health(); err != nil {
		t.Error(err)
	}
}

// If the directory is removed while the store runs, and perhaps made again by
// somebody else, the store uses it again.
func TestDirectoryThatIsRemovedAndMadeAgain(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(dir string) error{
		"removed":      os.RemoveAll,
		"made again":   func(dir string) error { return firstOf(os.RemoveAll(dir), os.Mkdir(dir, 0o755)) },
		"moved away":   func(dir string) error { return os.Rename(dir, dir+".away") },
		"emptied":      func(dir string) error { return firstOf(os.RemoveAll(dir+"/tmp"), os.RemoveAll(dir+"/blobs")) },
		"lock removed": func(dir string) error { return os.Remove(dir + "/lock") },
		"a link now": func(dir string) error {
			return firstOf(os.Rename(dir, dir+".away"), os.Symlink(dir+".away", dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir() + "/cache"
			s := start(t, dir, Options{Bound: 10 << 20})
			a, b := newSample(440, 300_000), newSample(441, partSize)
			keep(t, s, a)
			breakOff(t, s, b, 2<<20)
			reading, err := s.Open(a.digest)
			if err != nil {
				t.Fatal(err)
			}
			arriving := begin(t, s, newSample(442, 200_000))
			arriving.SetSize(200_000)
			arriving.stream.expectNobody() // nobody will
			if err := remove(dir); err != nil {
				t.Fatal(err)
			}
			s.care.tend(t.Context())
			if name == "a link now" {
				if err := s.Health(); err == nil || !strings.Contains(err.Error(), "symbolic link") {
					t.Fatal("health:", err)
				}
				if err := firstOf(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
					t.Fatal(err)
				}
				s.care.tend(t.Context())
			}
			if err := s.Health(); err != nil {
				t.Error(err)
			}
			var out gate
			if _, err := reading.Send(t.Context(), &out, 0, -1); err != nil || same(out.buf.Bytes(), a.content) != nil {
				t.Error("the reader that was there before:", err)
			}
			if err := reading.Close(); err != nil {
				t.Error(err)
			}
			if err := write(arriving, newSample(442, 200_000), 50_000); err != nil || arriving.Stored() && name != "lock removed" {
				t.Error("the ingest that was there before:", err, arriving.Stored())
			}
			if name != "lock removed" {
				wantGone(t, s, a)
				if s.Size() != 0 {
					t.Errorf("%d bytes count", s.Size())
				}
			}
			keep(t, s, a)
			want(t, s, a)
		})
	}
}

// firstOf is the first error.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A blob larger than the whole disk evicts nothing.
func TestBlobLargerThanTheDisk(t *testing.T) {
	t.Parallel()
	d := &smallDisk{t: t, dir: t.TempDir(), size: 1 << 20}
	d.room.Store(8 << 20)
	s := start(t, d.dir, Options{Bound: 1 << 40, Fault: d.fault})
	kept := []sample{newSample(450, 1<<20), newSample(451, 1<<20), newSample(452, 1<<20)}
	for _, b := range kept {
		keep(t, s, b)
	}
	in := begin(t, s, newSample(453, 1))
	d.room.Store(0) // the real disk would be full for a moment, and so it would for the tests beside this one
	in.SetSize(1 << 39)
	if in.Keeping() {
		t.Error("a blob larger than the disk is being kept")
	}
	in.Abort(errCut)
	for _, b := range kept {
		want(t, s, b)
	}
}
