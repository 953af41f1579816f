package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
)

// restart closes s and opens its directory again.
func restart(t *testing.T, s *Store, opts Options) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return start(t, s.dir, opts)
}

func TestRestartKeepsBlobsAndTheirMediaTypes(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	blob, large := newSample(50, 1000), newSample(51, 900_000)
	manifest, index := newSample(52, 5000), newSample(53, 100_000) // one small enough for memory, one not
	long := sample{large.content[:70_000], digest.SHA512.FromBytes(large.content[:70_000])}
	for _, b := range []sample{blob, large, long} {
		keep(t, s, b)
	}
	types := map[digest.Digest]string{manifest.digest: "application/m", index.digest: "application/i; x=\"y\""}
	for _, b := range []sample{manifest, index} {
		if stored, err := s.Put(t.Context(), b.digest, "other.test", types[b.digest], b.content); !stored || err != nil {
			t.Fatal(stored, err)
		}
	}
	for range 2 {
		for _, b := range []sample{blob, large, long, manifest, index} {
			want(t, s, b)
			m, err := s.Manifest(b.digest)
			if wantType := types[b.digest]; wantType == "" {
				if !errors.Is(err, ErrNotFound) {
					t.Error("a blob was given as a manifest:", err)
				}
			} else if err != nil || m.MediaType != wantType || m.Size != int64(len(b.content)) || m.Size <= smallSize && same(m.Content, b.content) != nil {
				t.Error(m.MediaType, m.Size, err)
			}
		}
		stats := s.Stats()
		if st := stats["other.test"]; st.Items != 2 || st.Bytes != 105_000 {
			t.Errorf("%+v", stats)
		}
		s = restart(t, s, Options{})
	}
}

func TestBlobThatTurnsOutToBeAManifestGainsItsMediaType(t *testing.T) {
	t.Parallel()
	for _, size := range []int{700, 100_000} {
		s := start(t, t.TempDir(), Options{})
		b := newSample(54, size)
		keep(t, s, b)
		want(t, s, b)
		if stored, err := s.Put(t.Context(), b.digest, "other.test", "application/m", b.content); !stored || err != nil {
			t.Fatal(stored, err)
		}
		keep(t, s, b) // brought in as a blob again, it stays a manifest
		for range 2 {
			if m, err := s.Manifest(b.digest); m.MediaType != "application/m" || err != nil {
				t.Error(m.MediaType, err)
			}
			want(t, s, b)
			if got := s.Stats(); got[registry].Bytes != int64(size) || s.Size() != int64(size) {
				t.Errorf("%+v", got)
			}
			s = restart(t, s, Options{})
		}
	}
}

func TestPutRefusesWhatIsNotTheDigests(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(55, 100)
	for _, content := range [][]byte{nil, b.content[1:], append(b.content, 1)} {
		if stored, err := s.Put(t.Context(), b.digest, registry, "t", content); stored || !errors.Is(err, ErrDigest) {
			t.Error(stored, err)
		}
	}
	for _, d := range []digest.Digest{"", "sha256:", "sha256:../../x", "md5:d41d8cd98f00b204e9800998ecf8427e", digest.SHA384.FromString("x")} {
		if _, err := s.Put(t.Context(), d, registry, "t", nil); err == nil {
			t.Error(d)
		}
		if _, err := s.Open(d); err == nil {
			t.Error(d)
		}
	}
}

func TestSmallerBoundAppliesAtStart(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	blobs := make([]sample, 10)
	for i := range blobs {
		blobs[i] = newSample(uint64(60+i), 100_000)
		keep(t, s, blobs[i])
		used := time.Now().Add(time.Duration(i-100) * time.Minute)
		if i == 2 {
			used = time.Now() // old, but used recently
		}
		if err := os.Chtimes(blobs[i].path(s.dir), used, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	s = restart(t, s, Options{Bound: 350_000})
	if got := usage(t, s.dir); got != 300_000 || s.Size() != got {
		t.Errorf("%d bytes on disk, %d counted", got, s.Size())
	}
	for _, i := range []int{2, 9, 8} {
		want(t, s, blobs[i])
	}
	s = restart(t, s, Options{Shares: map[string]int64{registry: 150_000}})
	if s.Size() != 100_000 {
		t.Errorf("%d bytes after the share became smaller", s.Size())
	}
	s = restart(t, s, Options{Bound: 1})
	if s.Size() != 0 || usage(t, s.dir) != 0 {
		t.Errorf("%d bytes", s.Size())
	}
}

func TestUseIsNotedForTheOrderAfterARestart(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	a, b := newSample(70, 100_000), newSample(71, 100) // read from disk, read from memory
	old := time.Now().Add(-time.Hour)
	for _, x := range []sample{a, b} {
		keep(t, s, x)
		if err := os.Chtimes(x.path(s.dir), old, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	s = restart(t, s, Options{})
	for _, x := range []sample{a, b} {
		st, err := os.Stat(x.path(s.dir))
		if err != nil {
			t.Fatal(err)
		}
		want(t, s, x)
		now, err := os.Stat(x.path(s.dir))
		if err != nil {
			t.Fatal(err)
		}
		atime := now.Sys().(*syscall.Stat_t).Atim
		if time.Unix(atime.Unix()).Before(time.Now().Add(-time.Minute)) || now.ModTime() != st.ModTime() {
			t.Error("use was not noted, or the file's time has changed")
		}
	}
}

// The store serves while the directory is listed. Only new blobs have to wait.
func TestStoreServesBeforeTheDirectoryIsListed(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, func(t *testing.T, first *Store) {
		small, large := newSample(72, 100), newSample(73, 400_000)
		keep(t, first, small)
		keep(t, first, large)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		held := make(chan struct{})
		s := Open(first.dir, Options{Fault: func(op, _ string) error {
			if op == "list" {
				<-held
			}
			return nil
		}})
		defer func() { _ = s.Close() }()
		if n, ok := s.Stat(large.digest); !ok || n != 400_000 {
			t.Error("Stat:", n, ok)
		}
		want(t, s, small)
		want(t, s, large)
		wantGone(t, s, newSample(74, 10))
		if err := pull(t.Context(), s, newSample(75, 100_000)); err != nil { // not kept
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Listed(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(held)
		if err := s.Listed(t.Context()); err != nil {
			t.Error(err)
		}
		if s.Size() != 400_100 {
			t.Errorf("%d bytes count", s.Size())
		}
		keep(t, s, newSample(75, 100_000))
	})
}

func TestOneStoreHasTheDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "by", "us")
	b := newSample(76, 100_000)
	first := start(t, dir, Options{})
	keep(t, first, b)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Error(st.Mode(), err)
	}
	second := open(dir, Options{}, time.Millisecond)
	defer func() { _ = second.Close() }()
	if err := second.Health(); err == nil || !strings.Contains(err.Error(), "used by another process") {
		t.Error("health:", err)
	}
	wantGone(t, second, b)
	if err := pull(t.Context(), second, b); err != nil {
		t.Error(err)
	}
	want(t, first, b)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, second, b)
	if err := second.Health(); err != nil {
		t.Error(err)
	}
	if err := first.Listed(t.Context()); err != nil {
		t.Error("Listed fails though the listing ended before Close:", err)
	}
}

// A process that is forked just then holds a copy of the lock's descriptor. The
// directory is free once Close returns all the same.
func TestCloseGivesTheLockUp(t *testing.T) {
	t.Parallel()
	first := start(t, t.TempDir(), Options{})
	copied, err := syscall.Dup(int(first.shard.dir.inUse().lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(copied) }()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := Open(first.dir, Options{})
	defer func() { _ = second.Close() }()
	if err := second.Health(); err != nil {
		t.Error("health:", err)
	}
}

func TestWideDirectoryIsNarrowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	start(t, dir, Options{})
	for _, sub := range []string{"", "tmp", "tags", "blobs"} {
		if st, err := os.Stat(filepath.Join(dir, sub)); err != nil || st.Mode().Perm() != 0o700 {
			t.Error(sub, st.Mode(), err)
		}
	}
}

// A listing that fails is tried again. Until then nothing new is kept, because
// nobody knows how much room there is.
func TestListingIsTriedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, Options{})
	b := newSample(77, 100_000)
	keep(t, s, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	broken.Store(true)
	s = open(dir, Options{Fault: func(op, _ string) error {
		if op == "list" && broken.Load() {
			return syscall.EIO
		}
		return nil
	}}, time.Millisecond)
	defer func() { _ = s.Close() }()
	testkit.Await(t, "the listing fails", func() bool { return s.Health() != nil && s.shard.listing.failed.Load() })
	want(t, s, b)
	if err := pull(t.Context(), s, newSample(78, 1000)); err != nil {
		t.Error(err)
	}
	wantGone(t, s, newSample(78, 1000))
	broken.Store(false)
	if err := s.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Size() != 100_000 || s.Health() != nil {
		t.Error(s.Size(), s.Health())
	}
}

// A blob that is being read when the listing ends can't be evicted then. It is
// evicted when its readers leave, not only when room is needed next.
func TestSmallerBoundAppliesToWhatIsReadAtStartToo(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{
		"of all":     {Bound: 250_000},
		"of a share": {Shares: map[string]int64{registry: 250_000}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := start(t, t.TempDir(), Options{})
			var blobs []sample
			for i := range 4 {
				b := newSample(uint64(80+i), 100_000)
				keep(t, first, b)
				blobs = append(blobs, b)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			held := make(chan struct{})
			opts.Fault = func(op, _ string) error {
				if op == "list" {
					<-held
				}
				return nil
			}
			s := Open(first.dir, opts)
			defer func() { _ = s.Close() }()
			var open []Blob
			for _, b := range blobs {
				blob, err := s.Open(b.digest)
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, blob)
			}
			close(held)
			if err := s.Listed(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, blob := range open {
				if _, err := blob.Send(t.Context(), discard{}, 0, -1); err != nil {
					t.Errorf("blob %d: %v", i, err)
				}
				if err := blob.Close(); err != nil {
					t.Error(err)
				}
			}
			if got := usage(t, s.dir); got != 200_000 || s.Size() != got {
				t.Errorf("%d bytes on disk, %d counted, 250000 allowed", got, s.Size())
			}
			for _, b := range blobs[2:] {
				want(t, s, b)
			}
		})
	}
}
