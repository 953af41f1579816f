package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
)

// workload fills, hits, evicts and restarts, as a node does.
func workload(t *testing.T, dir string, f *testkit.Fuse) error {
	const bound = 190_000
	blobs := []sample{newSample(40, 80_000), newSample(41, 1000), newSample(42, 90_000), newSample(43, 100_000)}
	for life := range 2 {
		s := open(dir, Options{Bound: bound, Fault: f.Fault}, time.Millisecond)
		for round := range 2 - life {
			for i, b := range blobs {
				if err := pull(t.Context(), s, b); err != nil {
					_ = s.Close()
					return fmt.Errorf("round %d, blob %d: %w", round, i, err)
				}
				// A meta that could not be removed does not count as content.
				if got := usage(t, dir); got > bound+2*maxMetaHead {
					_ = s.Close()
					return fmt.Errorf("%d bytes on disk", got)
				}
			}
			s.SetTag(Tag{Key: "a", Digest: blobs[0].digest})
			if tag, ok := s.Tag("a"); !ok || tag.Digest != blobs[0].digest {
				return errors.New("tag is lost")
			}
			_, _ = s.Put(t.Context(), blobs[1].digest, registry, "type", blobs[1].content)
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// A failing read is damage, and pull goes on with another source. Nothing else
// that a disk does reaches a reader.
func TestNoFaultOfTheDiskReachesAReader(t *testing.T) {
	t.Parallel()
	step := int64(3) // transfer's test goes through all of them
	switch {
	case testkit.Times(0, 1) > 0:
		step = 1
	case testing.Short():
		step = 11
	}
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.EMFILE} {
		for _, good := range []bool{false, true} {
			if good && errno == syscall.EMFILE {
				continue // files are closed some time
			}
			t.Run(fmt.Sprintf("%v, for good %v", errno, good), func(t *testing.T) {
				t.Parallel()
				for n := int64(1); ; n++ {
					f := &testkit.Fuse{At: n, ForGood: good, Err: errno}
					if good && n > 40 && n%7 != 0 || n%step != 0 {
						continue // later calls of a dead disk tell nothing new
					}
					err := workload(t, t.TempDir(), f)
					if f.Blown() == "" {
						t.Log("calls:", n)
						if n < 50 {
							t.Error("the workload makes few calls:", n)
						}
						if err != nil {
							t.Error("without a fault:", err)
						}
						return
					}
					if err != nil {
						t.Fatalf("call %d, %s: %v", n, f.Blown(), err)
					}
				}
			})
		}
	}
}

// What nobody asked for makes no room on a full disk: all that is held stays, and the shard is
// well.
func TestWhatNobodyAskedForMakesNoRoomOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"allocate", "write", "create", "rename"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			var full atomic.Bool
			s := start(t, t.TempDir(), Options{Fault: func(o, name string) error {
				if full.Load() && o == op {
					return &fs.PathError{Op: o, Path: name, Err: syscall.ENOSPC}
				}
				return nil
			}})
			own := newSample(46, 1<<20)
			if err := fill(t, s, own).Commit(); err != nil {
				t.Fatal(err)
			}
			full.Store(true)
			b := newSample(47, 2<<20)
			in := begin(t, s, b)
			in.Copy(false)
			in.SetSize(int64(len(b.content)))
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
			if _, held := s.Stat(own.digest); !held || in.Stored() || s.Health() != nil {
				t.Errorf("held %v, stored %v, health %v", held, in.Stored(), s.Health())
			}
			if s.Size() != int64(len(own.content)) || temporaries(t, s.dir) != 0 {
				t.Errorf("%d bytes count, %d files are left", s.Size(), temporaries(t, s.dir))
			}
		})
	}
}

// The disk fills up in the middle of a blob.
func TestFullDiskInMidBlob(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"allocate", "write", "create", "rename", "truncate"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			var full atomic.Bool
			s := start(t, t.TempDir(), Options{Bound: 4 << 20, Fault: func(o, name string) error {
				if full.Load() && (o == op || op == "truncate" && o == "write") {
					return &fs.PathError{Op: o, Path: name, Err: syscall.ENOSPC}
				}
				return nil
			}})
			b := newSample(44, 3<<20)
			in := begin(t, s, b)
			full.Store(op != "write" && op != "truncate")
			in.SetSize(int64(len(b.content)))
			var wg sync.WaitGroup
			for i := range int64(5) {
				wg.Go(func() {
					off := i * 600_000
					got, err := send(t, in, off, -1)
					if err != nil || !bytes.Equal(got, b.content[off:]) {
						t.Errorf("from %d: %d bytes, %v", off, len(got), err)
					}
				})
			}
			joined(t, in, 5)
			for i, p := 0, b.content; len(p) > 0; i, p = i+1, p[min(100_000, len(p)):] {
				if i == 15 {
					full.Store(true)
				}
				if _, err := in.Write(p[:min(100_000, len(p))]); err != nil {
					t.Fatal(err)
				}
			}
			if err := in.Commit(); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			if in.Stored() || s.Health() == nil {
				t.Errorf("stored %v, health %v", in.Stored(), s.Health())
			}
			if s.Size() != 0 || temporaries(t, s.dir) != 0 {
				t.Errorf("%d bytes count, %d files are left", s.Size(), temporaries(t, s.dir))
			}
			full.Store(false)
			keep(t, s, b)
			if err := s.Health(); err != nil {
				t.Error("the disk works again, but Health says:", err)
			}
		})
	}
}

// A file that can't be removed counts until it can.
func TestLeftoverThatCanNotBeRemovedCounts(t *testing.T) {
	t.Parallel()
	var stuck atomic.Bool
	s := start(t, t.TempDir(), Options{Bound: 1 << 20, Fault: func(op, name string) error {
		if stuck.Load() && op == "remove" && strings.HasPrefix(name, "tmp/") {
			return syscall.EIO
		}
		return nil
	}})
	b := newSample(45, 600_000)
	in := begin(t, s, b)
	in.SetSize(600_000)
	if _, err := in.Write(b.content[:500_000]); err != nil {
		t.Fatal(err)
	}
	stuck.Store(true)
	in.Abort(errors.New("source is gone"))
	if s.Size() != 600_000 || temporaries(t, s.dir) != 1 {
		t.Errorf("%d bytes, %d files", s.Size(), temporaries(t, s.dir))
	}
	stuck.Store(false)
	keep(t, s, b)
	if s.Size() != 600_000 || temporaries(t, s.dir) != 0 {
		t.Errorf("%d bytes, %d files", s.Size(), temporaries(t, s.dir))
	}
}

// A blob whose file can't be removed stays. Next time another is evicted instead.
func TestBlobThatCanNotBeRemovedStays(t *testing.T) {
	t.Parallel()
	a, b, c := newSample(46, 400_000), newSample(47, 400_000), newSample(48, 400_000)
	n, _ := nameOf(a.digest)
	bubbleFault := Options{Bound: 1_000_000, Fault: func(op, name string) error {
		if op == "remove" && name == n.path() {
			return syscall.EIO
		}
		return nil
	}}
	bubble(t, bubbleFault, func(t *testing.T, s *Store) {
		keep(t, s, a)
		keep(t, s, b)
		if fill(t, s, c).Stored() {
			t.Error("a blob was kept without room")
		}
		want(t, s, a)
		if s.Health() == nil {
			t.Error("healthy")
		}
		keep(t, s, c) // evicts b
		want(t, s, a)
		wantGone(t, s, b)
		if s.Size() != 800_000 {
			t.Errorf("%d bytes count", s.Size())
		}
	})
}
