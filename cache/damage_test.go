package cache

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// flip changes one byte of a file, and its times.
func flip(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [1]byte
	_, err = f.ReadAt(c[:], at)
	if err == nil {
		c[0] ^= 0x10
		_, err = f.WriteAt(c[:], at)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// quietly does something to a file and gives it the times it had.
func quietly(t testing.TB, path string, do func()) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	do()
	if err := os.Chtimes(path, time.Time{}, st.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// damageSize is a blob of five chunks, the last one short.
const damageSize = 4*chunkSize + 1000

// wantDamaged reads b and fails the test unless it is found damaged at the chunk
// at; at < 0: unless it is not found at all.
func wantDamaged(t *testing.T, s *Store, b sample, at int64) {
	t.Helper()
	blob, err := s.Open(b.digest)
	if at < 0 {
		if !errors.Is(err, ErrNotFound) {
			t.Fatal("open:", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, err = blob.Send(t.Context(), &out, 0, -1)
	if !errors.Is(err, ErrDamaged) {
		t.Fatal("send:", err)
	}
	if !bytes.HasPrefix(b.content, out.Bytes()) || int64(out.Len()) > at {
		t.Fatalf("%d bytes were sent of a blob damaged at %d", out.Len(), at)
	}
	if r := Salvage(blob); r != nil {
		got, err := io.ReadAll(r)
		if !bytes.HasPrefix(b.content, got) || int64(len(got)) != at-at%chunkSize || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("salvaged %d bytes of a blob damaged at %d, %v", len(got), at, err)
		}
	} else if at > 0 {
		t.Error("Salvage returned nothing")
	}
	if err := blob.Close(); err != nil {
		t.Error(err)
	}
}

func TestDamageIsFoundBeforeItIsSent(t *testing.T) {
	t.Parallel()
	type damage struct {
		name string
		do   func(t *testing.T, path string)
		at   int64
	}
	damages := []damage{
		{"blob truncated", func(t *testing.T, p string) { _ = os.Truncate(p, damageSize-1) }, -1},
		{"blob empty", func(t *testing.T, p string) { _ = os.Truncate(p, 0) }, -1},
		{"blob extended", func(t *testing.T, p string) { _ = os.Truncate(p, damageSize+1) }, -1},
		{"blob gone", func(t *testing.T, p string) { _ = os.Remove(p) }, -1},
		{"blob a directory", func(t *testing.T, p string) { _ = os.Remove(p); _ = os.Mkdir(p, 0o700) }, -1},
		{"meta gone", func(t *testing.T, p string) { _ = os.Remove(p + ".meta") }, -1},
		{"meta truncated", func(t *testing.T, p string) { _ = os.Truncate(p+".meta", 40) }, -1},
		{"meta extended", func(t *testing.T, p string) { _ = os.Truncate(p+".meta", 400) }, -1},
		{"meta vast", func(t *testing.T, p string) { _ = os.Truncate(p+".meta", 1<<40) }, -1},
	}
	for at := int64(0); at < damageSize; at += 70_001 {
		damages = append(damages, damage{"blob flipped", func(t *testing.T, p string) { quietly(t, p, func() { flip(t, p, at) }) }, at})
	}
	for at := int64(0); at < 200; at += 13 {
		damages = append(damages, damage{"meta flipped", func(t *testing.T, p string) { flip(t, p+".meta", at) }, -1})
	}
	for _, restart := range []bool{false, true} {
		for _, d := range damages {
			t.Run(d.name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				b, other := newSample(8, damageSize), newSample(9, 1000)
				s := start(t, dir, Options{})
				keep(t, s, b)
				keep(t, s, other)
				if restart {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
				d.do(t, b.path(dir))
				if restart {
					s = start(t, dir, Options{})
				}
				wantDamaged(t, s, b, d.at)
				wantGone(t, s, b)
				want(t, s, other)
				if s.Size() != 1000 {
					t.Errorf("%d bytes count", s.Size())
				}
				if d.name != "blob a directory" || restart {
					keep(t, s, b)
					want(t, s, b)
				}
			})
		}
	}
}

func TestSwappedFilesAreFound(t *testing.T) {
	t.Parallel()
	for _, metas := range []bool{false, true} {
		dir := t.TempDir()
		a, b := newSample(10, damageSize), newSample(11, damageSize)
		s := start(t, dir, Options{})
		keep(t, s, a)
		keep(t, s, b)
		swap := func(suffix string) {
			x, y := a.path(dir)+suffix, b.path(dir)+suffix
			if err := errors.Join(os.Rename(x, dir+"/x"), os.Rename(y, x), os.Rename(dir+"/x", y)); err != nil {
				t.Fatal(err)
			}
		}
		swap("")
		if metas {
			swap(".meta")
		}
		at := int64(0)
		if metas {
			at = -1
		}
		wantDamaged(t, s, a, at)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = start(t, dir, Options{})
		wantGone(t, s, a)
		if _, err := read(t, s, b); err == nil {
			t.Error("a wrong blob was served")
		}
	}
}

func TestChunksAreCheckedAgain(t *testing.T) { //nolint:tparallel // its steps build on each other
	t.Parallel()
	dir := t.TempDir()
	b := newSample(12, damageSize)
	s := start(t, dir, Options{Verify: time.Hour})
	keep(t, s, b)
	settleTime(t, s, b, dir)
	want(t, s, b)
	n, _ := nameOf(b.digest)
	x := s.shard.index
	if _, checked := x.table.checks[x.table.slots[n.key.prefix()]]; !checked {
		t.Fatal("a blob that was read whole does not count as checked")
	}
	t.Run("not within the interval", func(t *testing.T) {
		quietly(t, b.path(dir), func() { flip(t, b.path(dir), 10) })
		if got, err := read(t, s, b); err != nil || bytes.Equal(got, b.content) {
			t.Error("the blob was checked again within the interval", err)
		}
	})
	t.Run("after the interval", func(t *testing.T) {
		x.mu.Lock()
		c := x.table.checks[x.table.slots[n.key.prefix()]]
		c.at -= int64(time.Hour)
		x.table.checks[x.table.slots[n.key.prefix()]] = c
		x.mu.Unlock()
		wantDamaged(t, s, b, 10)
		wantGone(t, s, b)
	})
	t.Run("when the file has changed", func(t *testing.T) {
		keep(t, s, b)
		settleTime(t, s, b, dir)
		want(t, s, b)
		flip(t, b.path(dir), damageSize-1)
		wantDamaged(t, s, b, damageSize-1)
	})
}

// settleTime makes a file so old that a change shows in its time stamp.
func settleTime(t testing.TB, s *Store, b sample, dir string) {
	t.Helper()
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(b.path(dir), old, old); err != nil {
		t.Fatal(err)
	}
}

func TestFileReplacedUnderAReader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := newSample(13, damageSize)
	s := start(t, dir, Options{})
	keep(t, s, b)
	settleTime(t, s, b, dir)
	blob, err := s.Open(b.digest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blob.Close() }()
	var out bytes.Buffer
	if _, err := blob.Send(t.Context(), &out, 0, chunkSize); err != nil {
		t.Fatal(err)
	}
	junk := newSample(14, damageSize).content
	if err := errors.Join(os.WriteFile(dir+"/new", junk, 0o600), os.Rename(dir+"/new", b.path(dir))); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.Send(t.Context(), &out, chunkSize, -1); err != nil || !bytes.Equal(out.Bytes(), b.content) {
		t.Errorf("the file that was opened: %d bytes, %v", out.Len(), err)
	}
	wantDamaged(t, s, b, 0)
	out.Reset()
	if _, err := blob.Send(t.Context(), &out, 0, -1); err != nil && !errors.Is(err, ErrDamaged) || !bytes.HasPrefix(b.content, out.Bytes()) {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
	wantGone(t, s, b)
}

// A file overwritten while it is read is noticed at the next segment.
func TestFileChangedUnderAReader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := newSample(15, 3*segment)
	s := start(t, dir, Options{})
	keep(t, s, b)
	settleTime(t, s, b, dir)
	want(t, s, b) // all checked
	blob, err := s.Open(b.digest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blob.Close() }()
	var out bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		if out.Len() == 0 {
			flip(t, b.path(dir), 2*segment+7)
		}
		return out.Write(p)
	})
	n, err := blob.Send(t.Context(), w, 0, -1)
	if !errors.Is(err, ErrDamaged) || n > 2*segment || !bytes.HasPrefix(b.content, out.Bytes()) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// A writerFunc is a Write.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A damaged blob whose file can't be removed is not served again. It counts until
// the file is removed or replaced.
func TestDamagedBlobThatCanNotBeRemoved(t *testing.T) {
	t.Parallel()
	for name, fetched := range map[string]bool{"removed later": false, "fetched again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newSample(170, 3*chunkSize)
			n, _ := nameOf(b.digest)
			var stuck atomic.Bool
			stuck.Store(true)
			opts := Options{Fault: func(op, name string) error {
				if op == "remove" && name == n.path() && stuck.Load() {
					return syscall.EROFS
				}
				return nil
			}}
			s := start(t, t.TempDir(), opts)
			counts := func(want int) {
				t.Helper()
				if s.Size() != int64(want) {
					t.Errorf("%d bytes count, want %d", s.Size(), want)
				}
			}
			keep(t, s, b)
			settleTime(t, s, b, s.dir)
			s = restart(t, s, opts)
			flip(t, b.path(s.dir), chunkSize)
			wantDamaged(t, s, b, chunkSize)
			wantGone(t, s, b)
			counts(len(b.content))
			if fetched {
				keep(t, s, b)
				want(t, s, b)
				counts(len(b.content))
				stuck.Store(false)
				s.shard.remover.retryDamaged(t.Context(), s.shard.dir.inUse(), s.shard.commits)
				want(t, s, b)
				return
			}
			s.shard.remover.retryDamaged(t.Context(), s.shard.dir.inUse(), s.shard.commits)
			counts(len(b.content))
			stuck.Store(false)
			s.shard.remover.retryDamaged(t.Context(), s.shard.dir.inUse(), s.shard.commits)
			wantGone(t, s, b)
			counts(0)
		})
	}
}
