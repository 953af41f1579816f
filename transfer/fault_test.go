package transfer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A badDisk is a registry with the blobs for the life of a node whose disk fails.
type badDisk struct {
	registry *upstreamtest.Registry
	digests  [4]digest.Digest
	contents [4][]byte
	image    upstreamtest.Image
}

// badDiskBound is less than the blobs come to. The largest of them is larger than
// what a node holds back until its digest is known: a client would wait for that.
const badDiskBound = 9 * mib

func newBadDisk(t *testing.T) *badDisk {
	f := &badDisk{registry: upstreamtest.New(t)}
	for i, size := range []int64{3 * mib, 3*mib + 7, 4*mib + 9, 1000} {
		f.contents[i] = random(uint64(i), size)
		f.digests[i] = f.registry.PutBlob(repo, f.contents[i])
	}
	f.image = f.registry.PutImage(repo, "latest", []byte("layer"))
	return f
}

// live runs a node twice: it starts, fills its cache, serves hits, evicts, stops in the
// middle of a download, and starts again.
func (f *badDisk) live(t *testing.T, dir string, fault func(op, name string) error) {
	t.Helper()
	for life := range 2 {
		r := newRig(t, setup{dir: dir, registry: f.registry, cache: cache.Options{Bound: badDiskBound, Fault: fault}})
		f.pullAll(t, r, dir, life)
		r.end()
		if open := openBelow(t, dir); open > 0 {
			t.Errorf("%d files are left open", open)
		}
	}
}

// pullAll pulls blobs whole and in part, and a manifest.
func (f *badDisk) pullAll(t *testing.T, r *rig, dir string, life int) {
	t.Helper()
	order := [][]int{{0, 0, 1, 3, 3, 0}, {2, 1, 2, 3}}[life]
	for k, i := range order {
		off := int64(k) * 100 // the first byte, and others
		if _, _, err := r.pull(r.ref(f.digests[i]), f.contents[i], off, -1); err != nil {
			t.Errorf("life %d, blob %d: %v", life, i, err)
		}
		if n := contentBelow(t, dir); n > badDiskBound {
			t.Errorf("life %d, blob %d: %d bytes on disk", life, i, n)
		}
	}
	if m, err := r.Manifest(t.Context(), r.tag("latest"), nil, false); err != nil || string(m.Bytes) != string(f.image.ManifestBytes) {
		t.Errorf("life %d, manifest: %v", life, err)
	}
	if life > 0 {
		return
	}
	d, content := f.digests[2], f.contents[2]
	r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET", PathPart: d.Encoded()}, Times: 1, Stall: true, StallAfter: 3 * mib})
	if n, _, err := r.pull(r.ref(d), content, 0, mib); err != nil {
		t.Errorf("the beginning of a blob: %d bytes, %v", n, err)
	}
}

// well fails the test unless the store in dir works as if no call had failed.
func (f *badDisk) well(t *testing.T, dir string) {
	t.Helper()
	r := newRig(t, setup{dir: dir, registry: f.registry, cache: cache.Options{Bound: badDiskBound}})
	if err := r.store.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, d := range f.digests {
		if _, _, err := r.pull(r.ref(d), f.contents[i], 0, -1); err != nil {
			t.Errorf("afterwards, blob %d: %v", i, err)
		}
		r.mustPull(r.ref(d), f.contents[i], oci.Hit)
	}
	if err := r.store.Health(); err != nil {
		t.Error("afterwards:", err)
	}
	if n := contentBelow(t, dir); n > badDiskBound || n != r.store.Size() {
		t.Errorf("afterwards: %d bytes on disk, %d count", n, r.store.Size())
	}
}

// openBelow returns how many files below dir the process has open.
func openBelow(t *testing.T, dir string) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	for _, e := range all {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

// contentBelow returns how many bytes of content are in a store's directory.
func contentBelow(t *testing.T, dir string) (n int64) {
	t.Helper()
	for _, pattern := range []string{"blobs/*/*/*", "tmp/*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if st, err := os.Stat(file); err == nil && !strings.HasSuffix(file, ".meta") {
				n += st.Size()
			}
		}
	}
	return n
}

// Clients do not notice when a file call fails, whichever it is. With LONG_TESTS=1 the
// test tries every call, without it some.
func TestNoFaultOfTheDiskFailsAPull(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	t.Cleanup(func() { t.Log("runs:", runs.Load()) })
	for i, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.EACCES} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			f := newBadDisk(t)
			count := new(testkit.Fuse)
			f.live(t, t.TempDir(), count.Fault)
			calls := count.Calls()
			if calls < 100 {
				t.Error("too few file calls for this test:", calls)
			}
			step := max(1, calls/int64(testkit.Times(4, 1000)))
			for n := 1 + int64(i)*step/5; n <= calls; n += step {
				for _, good := range []bool{false, true} {
					runs.Add(1)
					f.run(t, &testkit.Fuse{At: n, ForGood: good, Err: errno})
				}
			}
		})
	}
}

// run runs a life with one fault.
func (f *badDisk) run(t *testing.T, fuse *testkit.Fuse) {
	t.Helper()
	t.Run(fmt.Sprintf("call %d, for good %v", fuse.At, fuse.ForGood), func(t *testing.T) {
		f.registry.ClearFaults()
		dir := t.TempDir()
		f.live(t, dir, fuse.Fault)
		f.well(t, dir)
		if call := fuse.Blown(); t.Failed() && call != "" {
			t.Log("the call:", call)
		}
	})
}
