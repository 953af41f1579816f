package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
)

// blocks is the room that all files and directories below dir take on disk, and how many
// files there are.
func blocks(t testing.TB, dir string) (bytes int64, files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Lstat(path, &st)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !e.IsDir() {
			files++
		}
		bytes += 512 * st.Blocks
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, files
}

// A great many tiny blobs keep within the bound on disk too, and still do after a restart.
func TestTinyBlobsKeepWithinTheBoundOnDisk(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, c := range map[string]struct {
		bound     int64
		shares    map[string]int64
		mediaType string
		size      int
	}{
		"five bytes":             {bound: mib, size: 5},
		"no bytes to speak of":   {bound: 1, size: 1},
		"a few pages":            {bound: mib, size: 3 * pageSize / 2},
		"just over a page":       {bound: 8 * mib, size: pageSize + 1},
		"manifests":              {bound: mib, size: 700, mediaType: "application/vnd.oci.image.manifest.v1+json"},
		"a share's own bound":    {bound: 1 << 30, shares: map[string]int64{registry: mib}, size: 5},
		"no bound but a share's": {shares: map[string]int64{registry: 2 * mib}, size: 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			opts := Options{Bound: c.bound, Shares: c.shares}
			s := start(t, dir, opts)
			bound := c.bound
			if own, ok := c.shares[registry]; ok {
				bound = own
			}
			for i := range testkit.Times(4000, 20_000) {
				content := fmt.Appendf(nil, "%0*d", c.size, i)[:c.size]
				if c.size < 5 {
					content = fmt.Appendf(nil, "%d", i)[:1]
				}
				if _, err := s.Put(t.Context(), digest.FromBytes(content), registry, c.mediaType, content); err != nil {
					t.Fatal(err)
				}
			}
			check := func() Stats {
				t.Helper()
				used, files := blocks(t, dir)
				if most := bound + bound/50 + 4*mib; used > most {
					t.Errorf("%d bytes on disk in %d files, want at most %d", used, files, most)
				}
				st := s.Stats()[registry]
				if st.Bytes > bound || st.Bytes != st.Items*int64(c.size) || st.Bound != bound {
					t.Errorf("%+v", st)
				}
				return st
			}
			before := check()
			used, files := blocks(t, dir)
			t.Logf("%d blobs take %d KiB on disk in %d files", before.Items, used>>10, files)
			if int64(c.size) <= bound && before.Items < 100 && c.size > 1 {
				t.Errorf("only %d are kept", before.Items)
			}
			s = restart(t, s, opts)
			if after := check(); after.Items != before.Items {
				t.Errorf("%d blobs before a restart, %d after it", before.Items, after.Items)
			}
		})
	}
}

// What blobs take beside their bytes counts only where there are very many small ones.
func TestLoads(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	sum := func(n int, size int64) (l load) {
		for range n {
			l.add(loadOf(size))
		}
		return l
	}
	for name, c := range map[string]struct {
		load          load
		bound, counts int64
	}{
		"one large":        {sum(1, gib), gib, gib},
		"ordinary":         {sum(500, 20_000_001), 10 * gib, 500 * 20_000_001},
		"a few small":      {sum(100, 1000), 1 << 20, 100_000},
		"more small":       {sum(300, 5), 1 << 20, 1500 + 2*(300*(2*pageSize-5)-freeExtra-1<<14)},
		"many small":       {sum(1000, 5), 1 << 20, 1000 * 2 * pageSize},
		"more than inodes": {sum(100_000, 5), 10 * gib, (100_000 - freeBlobs) * leastPerBlob},
		"none":             {load{}, 1, 0},
		"empty ones":       {sum(10, 0), 1, 0},
	} {
		if got := c.load.counts(c.bound); got != c.counts {
			t.Errorf("%s: %d, want %d", name, got, c.counts)
		}
	}
	all := sum(10, 5000)
	if left := all.without(sum(10, 5000)); left != (load{}) {
		t.Errorf("%+v are left of nothing", left)
	}
}

// A large blob still finds room where very many small ones are.
func TestALargeBlobTakesThePlaceOfTinyOnes(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{Bound: 1 << 20})
	for i := range 1000 {
		keep(t, s, newSample(uint64(i), 9))
	}
	for i := range 3 {
		b := newSample(uint64(2000+i), 1<<20)
		keep(t, s, b)
		want(t, s, b)
	}
}
