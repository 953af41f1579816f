package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

func TestWithoutADiskEverythingIsServedAllTheSame(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, setup{dir: filepath.Join(file, "below")})
	d, content := r.put(1, 6*mib) // more than the window holds
	for _, off := range []int64{0, 100} {
		k, way, err := r.pull(r.ref(d), content, off, -1)
		if err != nil || way.Origin != oci.Miss || way.Stored {
			t.Errorf("from %d: %d bytes, %+v, error %v", off, k, way, err)
		}
	}
	r.wantGets(d, 2)
	for i := range 5 {
		small, smallContent := r.put(uint64(10+i), 100)
		r.mustPull(r.ref(small), smallContent, oci.Miss)
		r.wantGets(small, 1)
	}
	img := r.registry.PutImage(repo, "latest", []byte("layer"))
	for range 2 {
		m, err := r.Manifest(t.Context(), r.tag("latest"), nil, false)
		if err != nil || !bytes.Equal(m.Bytes, img.ManifestBytes) || m.Stored {
			t.Errorf("manifest %+v, error %v", m, err)
		}
	}
	r.wantGets(img.Manifest, 2)
}

func TestADiskThatFailsInMidDownloadIsNotNoticed(t *testing.T) {
	t.Parallel()
	for op, err := range map[string]error{"create": syscall.EROFS, "allocate": syscall.ENOSPC, "write": syscall.EIO, "rename": syscall.EIO} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			calls, broken := 0, true
			r := newRig(t, setup{cache: cache.Options{Fault: func(o, name string) error {
				mu.Lock()
				defer mu.Unlock()
				if o != op || !broken {
					return nil
				}
				if calls++; o == "write" && calls == 1 {
					return nil
				}
				return &os.PathError{Op: o, Path: name, Err: err}
			}}})
			d, content := r.put(2, 3*mib)
			each(3, func(int) {
				if _, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
					t.Error(err)
				}
			})
			mu.Lock()
			broken = false
			mu.Unlock()
			e, content := r.put(3, mib)
			r.mustPull(r.ref(e), content, oci.Miss)
			r.mustPull(r.ref(e), content, oci.Hit)
		})
	}
}

// A blob larger than the bound passes through memory. A very slow client falls behind,
// and its response goes on from a download of its own.
func TestABlobLargerThanTheBoundWithAVerySlowReader(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{cache: cache.Options{Bound: mib}})
	d, content := r.put(3, 12*mib)
	slow := r.begin(d, 1000)
	slow.send(0)
	each(3, func(i int) {
		if k, way, err := r.pull(r.ref(d), content, int64(i)*100, -1); err != nil || way.Stored {
			t.Errorf("%d bytes, %+v, error %v", k, way, err)
		}
	})
	close(slow.open)
	if err := <-slow.ended; err != nil || !bytes.Equal(slow.Bytes(), content) {
		t.Errorf("the slow client got %d bytes: %v", slow.Len(), err)
	}
	if n := r.gets(d); n > 5 {
		t.Errorf("%d GETs", n)
	}
}

// blobFile is where the store keeps a blob.
func blobFile(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
}

// rot flips a bit of a blob's file.
func rot(t *testing.T, dir string, d digest.Digest, at int64) {
	t.Helper()
	f, err := os.OpenFile(blobFile(dir, d), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestBitRotIsNeverSentAndHealsWithinTheResponse(t *testing.T) {
	t.Parallel()
	const size = 3*mib + 1000
	for name, at := range map[string]int64{"first chunk": 0, "in the middle": 2*mib + 5, "last byte": size - 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := newRig(t, setup{dir: dir})
			d, content := r.put(4, size)
			r.mustPull(r.ref(d), content, oci.Miss)
			r.events.await(filled, 1)
			rot(t, dir, d, at)
			r.mustPull(r.ref(d), content, oci.Hit)
			r.events.await(filled, 2)
			chunk := at / (256 * kib) * (256 * kib)
			want := fmt.Sprintf("bytes=%d-", chunk)
			if chunk == 0 {
				want = ""
			}
			if got := r.ranges(d); len(got) != 2 || got[1] != want {
				t.Errorf("upstream was asked for %q, want %q", got, want)
			}
			r.mustPull(r.ref(d), content, oci.Hit)
			r.wantGets(d, 2)
			rot(t, dir, d, at)
			each(5, func(int) {
				if k, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
					t.Errorf("%d bytes, error %v", k, err)
				}
			})
			r.wantGets(d, 3)
		})
	}
}

func TestBitRotInMidResponse(t *testing.T) {
	t.Parallel()
	const size = 4 * mib
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir})
	d, content := r.put(5, size)
	r.mustPull(r.ref(d), content, oci.Miss)
	r.events.await(filled, 1)
	slow := r.begin(d, 1000)
	slow.send(0)
	<-slow.reached
	rot(t, dir, d, 3*mib)
	close(slow.open)
	if err := <-slow.ended; err != nil || !bytes.Equal(slow.Bytes(), content) {
		t.Errorf("got %d bytes, error %v", slow.Len(), err)
	}
	r.events.await(filled, 2)
	if got := r.ranges(d); len(got) != 2 || got[1] != "bytes=3145728-" {
		t.Errorf("upstream was asked for %q", got)
	}
	r.mustPull(r.ref(d), content, oci.Hit)
}

// If upstream can't replace the damaged bytes of a blob, the response is cut before
// them.
func TestBitRotWithoutUpstreamIsCutNotSent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir})
	d, content := r.put(6, 2*mib)
	r.mustPull(r.ref(d), content, oci.Miss)
	r.events.await(filled, 1)
	rot(t, dir, d, mib)
	r.end()
	off := newRig(t, setup{dir: dir, registry: r.registry, policy: grants.Site{Offline: true}})
	k, _, err := off.pull(off.ref(d), content, 0, -1)
	wantKind(t, err, oci.Offline)
	if k != mib {
		t.Errorf("%d bytes were sent, want those before the damage", k)
	}
}

func TestEvictionUnderLoadNeverGivesAWrongByte(t *testing.T) {
	t.Parallel()
	const blobs, size, bound = 24, 300 * kib, 2 * mib
	r := newRig(t, setup{cache: cache.Options{Bound: bound, Memory: 100 * kib}})
	var digests [blobs]digest.Digest
	var contents [blobs][]byte
	for i := range blobs {
		digests[i], contents[i] = r.put(uint64(i), size-int64(i*12*kib)-1)
	}
	each(8, func(worker int) {
		rnd := rand.New(rand.NewPCG(1, uint64(worker)))
		for range 40 {
			i := rnd.IntN(blobs)
			off := rnd.Int64N(int64(len(contents[i])))
			if k, _, err := r.pull(r.ref(digests[i]), contents[i], off, -1); err != nil {
				t.Errorf("blob %d from %d: %d bytes, error %v", i, off, k, err)
			}
		}
	})
	if n := r.store.Size(); n > bound {
		t.Errorf("the store holds %d bytes, bound %d", n, bound)
	}
	var evicted uint64
	for _, s := range r.store.Stats() {
		evicted += uint64(s.Evicted())
	}
	if evicted == 0 {
		t.Error("nothing was evicted, so nothing was tested")
	}
}

func TestARestartKeepsWhatWasStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir})
	var all []func(*rig)
	for i, size := range []int64{0, 100, 3 * mib} {
		d, content := r.put(uint64(i), size)
		r.mustPull(r.ref(d), content, oci.Miss)
		all = append(all, func(r *rig) { r.mustPull(r.ref(d), content, oci.Hit) })
	}
	r.events.await(filled, len(all))
	r.end()
	again := newRig(t, setup{dir: dir, registry: r.registry})
	r.registry.Down()
	for _, check := range all {
		check(again)
	}
}

func TestTheLogNamesNoLinkOfTheCDN(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{options: []upstreamtest.Option{upstreamtest.Redirect()}, passOn: true})
	d, _ := r.put(1, 100)
	a, err := r.Blob(t.Context(), r.ref(d))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r.events.await(notFilled, 1)
	if all := r.events.text(); strings.Contains(all, "Signature") {
		t.Errorf("a signed link is in the log:\n%s", all)
	}
}

// A response that moved from one download to another consists of parts of both. It is
// completed only if the first download was right, too.
func TestAPartOfAWrongDownloadIsNotCompletedFromARightOne(t *testing.T) {
	t.Parallel()
	const size = 12 * mib
	for name, at := range map[string]int{"both right": -1, "the first wrong": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{cache: cache.Options{Bound: mib}})
			d, content := r.put(3, size)
			first, rest := bytes.Clone(content), make(chan struct{})
			if at >= 0 {
				first[at] ^= 1
			}
			r.registry.Fault(upstreamtest.Fault{Match: get, Times: 1, Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Length", strconv.Itoa(size))
				_, _ = w.Write(first[:11*mib])
				<-rest
				_, _ = w.Write(first[11*mib:])
				return true
			}})
			slow, fast := r.begin(d, 1000), r.begin(d, 10*mib)
			slow.send(0)
			fast.send(0)
			<-slow.reached
			<-fast.reached // the bytes that slow needs next are out of the window
			close(slow.open)
			r.registry.WaitFor(get, 2)
			close(rest)
			close(fast.open)
			for name, c := range map[string]*client{"slow": slow, "fast": fast} {
				err := <-c.ended
				if at < 0 && (err != nil || !bytes.Equal(c.Bytes(), content)) || at >= 0 && (!errors.Is(err, cache.ErrDigest) || c.Len() > size-cache.HoldBack) {
					t.Errorf("the %s client got %d of %d bytes, error %v", name, c.Len(), size, err)
				}
			}
			r.wantGets(d, 2)
		})
	}
}
