package transfer_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// A registry that does not answer is an outage, whichever node notices it. Every node
// that knows the tag serves it.
func TestAHangingRegistryLeavesTheStaleTag(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1}, {1, 0}, {1, 1}} {
		testkit.Bubble(t, func(t *testing.T, dir string) {
			up := newTagged(nil)
			m := fakeMesh(t, dir, 2, up, grants.Site{StaleIfError: time.Hour})
			defer m.end()
			for _, n := range m.nodes {
				if _, err := n.Manifest(t.Context(), aTag, nil, false); err != nil {
					t.Fatal(err)
				}
			}
			up.stat = func(ctx context.Context) (oci.Descriptor, error) {
				select {
				case <-time.After(38 * time.Second): // as the upstream client does
					return oci.Descriptor{}, failure(oci.Timeout)
				case <-ctx.Done():
					return oci.Descriptor{}, ctx.Err()
				}
			}
			var wg sync.WaitGroup
			for k, i := range order {
				wg.Go(func() {
					time.Sleep(time.Duration(k) * 5 * time.Second) // in the bubble's time
					start := time.Now()
					found, err := m.nodes[i].Manifest(t.Context(), aTag, nil, false)
					if took := time.Since(start); err != nil || found.Stale == nil || string(found.Bytes) != up.now || took > 40*time.Second {
						t.Errorf("%v: node %d: %+v, %v after %v", order, i, found, err, took)
					}
				})
			}
			wg.Wait()
		})
	}
}

// meshOfAHolder returns a mesh of two nodes. The first one holds content. Call its end.
func meshOfAHolder(t *testing.T, dir string, content []byte) (*meshRig, *fake) {
	t.Helper()
	f := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
		return &oci.Stream{Size: int64(len(content)), Offset: o, Body: endsWith(content[o:], io.EOF)}, nil
	}}
	m := fakeMesh(t, dir, 2, f, grants.Site{})
	if _, _, err := m.nodes[0].pull(fakeRef(digest.FromBytes(content)), content, 0, -1); err != nil {
		t.Fatal(err)
	}
	return m, f
}

// wantFromHolder fails the test unless the second node gets content from the first and
// does not blame it.
func (m *meshRig) wantFromHolder(f *fake, content []byte) {
	m.t.Helper()
	if _, _, err := m.nodes[1].pull(fakeRef(digest.FromBytes(content)), content, 0, -1); err != nil {
		m.t.Error(err)
	}
	if n := m.nodes[0].faulted.Load(); n != 0 || f.opens != 1 {
		m.t.Errorf("the holder was called faulty %d times, and there were %d downloads", n, f.opens)
	}
}

// A node that holds a blob and makes others wait for their turn does not count as
// crawling.
func TestABusyHolderIsNotLeft(t *testing.T) {
	t.Parallel()
	_, content := fakeBlob(8 << 20)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		m, f := meshOfAHolder(t, dir, content)
		defer m.end()
		m.nodes[0].fails.Store(&fault{busy: 8 * time.Second})
		m.wantFromHolder(f, content)
	})
}

// A node that holds a blob but whose disk hangs is left.
func TestAHolderThatNeverBeginsIsLeft(t *testing.T) {
	t.Parallel()
	_, content := fakeBlob(8 << 20)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		m, f := meshOfAHolder(t, dir, content)
		defer m.end()
		m.nodes[0].fails.Store(&fault{busy: time.Hour})
		start := time.Now()
		if _, _, err := m.nodes[1].pull(fakeRef(digest.FromBytes(content)), content, 0, -1); err != nil {
			t.Error(err)
		}
		if took, n := time.Since(start), m.nodes[0].faulted.Load(); n != 1 || f.opens != 2 || took > 15*time.Second {
			t.Errorf("faulty %d times, %d downloads, %v", n, f.opens, took)
		}
	})
}

// A peer that crawls is left after about a second. A peer that is only slow is not. It
// does not matter when between two looks the first bytes come.
func TestWhatCrawlsIsLeftAndWhatIsSlowIsNot(t *testing.T) {
	t.Parallel()
	_, content := fakeBlob(16 << 20)
	phases := 10
	if testing.Short() {
		phases = 1
	}
	for kib, left := range map[int]bool{100: true, 300: true, 1000: true, 1400: false, 1700: false, 2400: false} {
		for phase := range phases {
			testkit.Bubble(t, func(t *testing.T, dir string) {
				m, f := meshOfAHolder(t, dir, content)
				defer m.end()
				every := time.Second * 4 / time.Duration(kib)
				m.nodes[0].fails.Store(&fault{busy: time.Duration(phase)*50*time.Millisecond + 1, every: every})
				start := time.Now()
				if _, _, err := m.nodes[1].pull(fakeRef(digest.FromBytes(content)), content, 0, -1); err != nil {
					t.Error(err)
				}
				took, n := time.Since(start), m.nodes[0].faulted.Load()
				if left && (n != 1 || f.opens != 2 || took > 2*time.Second) || !left && (n != 0 || f.opens != 1) {
					t.Errorf("%d KiB/s, phase %d: faulty %d times, %d downloads, %v", kib, phase, n, f.opens, took)
				}
			})
		}
	}
}

// If this node waits for its own disk, the peer is not judged.
func TestASlowDiskOfOursIsNoFaultOfThePeer(t *testing.T) {
	t.Parallel()
	_, content := fakeBlob(8 << 20)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		m, f := meshOfAHolder(t, dir, content)
		defer m.end()
		m.nodes[1].disk.Store(int64(6 * time.Second))
		m.wantFromHolder(f, content)
	})
}

// A node does not repair a damaged copy for a member. The member asks elsewhere itself,
// and may be the node that this one would follow.
func TestHeldContentThatIsDamagedIsCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir})
	content := random(1, 4<<20)
	d := r.registry.PutBlob(repo, content)
	if _, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "blobs/sha256", d.Encoded()[:2], d.Encoded())
	damaged := append([]byte(nil), content...)
	damaged[2<<20] ^= 1
	if err := os.WriteFile(file, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := r.Holder().Blob(t.Context(), r.ref(d), mesh.Terms{Held: true}, "another")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	n, err := a.Send(t.Context(), io.Discard, 0, -1)
	if err == nil || n > 2<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if gets := r.registry.Count("GET", d.String()); gets != 1 {
		t.Errorf("%d GETs", gets)
	}
}

// A HEAD finds what a GET would find, both when the registry is not asked and when it
// fails.
func TestHeadOfWhatAnotherHolds(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(1 << 20)
	for name, policy := range map[string]grants.Site{"offline": {Offline: true}, "in an outage": {}} {
		testkit.Bubble(t, func(t *testing.T, dir string) {
			up := newTagged(content)
			m := fakeMesh(t, dir, 2, up, grants.Site{})
			defer m.end()
			if _, _, err := m.nodes[0].pull(fakeRef(d), content, 0, -1); err != nil {
				t.Fatal(err)
			}
			up.down = true
			m.nodes[1].sees(func(string) []int { return []int{1} }, []int{0})
			m.nodes[1].policy = policy
			if s, err := m.nodes[1].StatBlob(t.Context(), fakeRef(d)); err != nil || s.Size != int64(len(content)) {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
			if _, err := m.nodes[1].StatBlob(t.Context(), fakeRef(digest.FromString("none"))); err == nil {
				t.Errorf("%s: a blob was found that no node has", name)
			}
		})
	}
}

// A twoFaced registry has its manifest only as a manifest. A test decides how it answers
// HEADs of blobs.
type twoFaced struct {
	*tagged
	heads func(blob bool) error
}

func (u *twoFaced) Stat(ctx context.Context, _ oci.Ref, blob bool, _ []string) (oci.Descriptor, error) {
	d, err := u.stat(ctx)
	if err == nil && u.heads != nil {
		time.Sleep(time.Second) // in the bubble's time, so that others join
		err = u.heads(blob)
	}
	return d, err
}

// An untold registry does not tell the sizes of blobs.
type untold struct{ *tagged }

func (u *untold) Stat(ctx context.Context, _ oci.Ref, blob bool, _ []string) (oci.Descriptor, error) {
	d, err := u.stat(ctx)
	if blob {
		d = oci.Descriptor{Size: -1, By: oci.Registry}
	}
	return d, err
}

// Whether a repository has a digest as a blob and whether it has it as a manifest are two
// questions.
func TestAVoucherForAManifestIsNotAskedAsABlobs(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := &twoFaced{tagged: newTagged(nil)}
		m := fakeMesh(t, dir, 1, up, grants.Site{Private: true, StaleIfError: time.Hour})
		defer m.end()
		n := m.nodes[0]
		if _, err := n.Manifest(t.Context(), aTag, nil, false); err != nil {
			t.Fatal(err)
		}
		<-time.After(11 * time.Minute) // the grant is too old by now
		up.heads = func(blob bool) error {
			if blob {
				return failure(oci.NotFound)
			}
			return nil
		}
		up.open = func(context.Context, oci.Ref, int64) (*oci.Stream, error) {
			return nil, failure(oci.NotFound)
		}
		ref := fakeRef(up.digest())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := n.Blob(t.Context(), ref)
			wantKind(t, err, oci.NotFound)
		})
		<-time.After(time.Second / 2)
		if _, err := n.Manifest(t.Context(), ref, nil, false); err != nil {
			t.Error(err)
		}
		wg.Wait()
		up.down = true
		<-time.After(11 * time.Minute)
		if _, err := n.Manifest(t.Context(), ref, nil, false); err != nil {
			t.Error("in an outage:", err)
		}
	})
}

// Some registries do not tell the size of a blob that they deliver. Clients get the blob
// all the same.
func TestABlobOfUntoldSize(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(1 << 20)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := &untold{newTagged(content)}
		m := fakeMesh(t, dir, 1, up, grants.Site{Private: true})
		defer m.end()
		n := m.nodes[0]
		if s, err := n.StatBlob(t.Context(), fakeRef(d)); err != nil || s.Size != int64(len(content)) {
			t.Errorf("%+v, %v", s, err)
		}
		for range 2 {
			if _, _, err := n.pull(fakeRef(d), content, 0, -1); err != nil {
				t.Error(err)
			}
			<-time.After(11 * time.Minute)
		}
	})
}

// A member cannot turn a blob into a manifest by what it says.
func TestAnOfferedBlobIsNoManifest(t *testing.T) {
	t.Parallel()
	for size, typ := range map[int64]string{100: "application/octet-stream", cache.MaxManifest + 1: ""} {
		m := newMesh(t, 2, setup{})
		content := random(1, size)
		d := m.registry.PutBlob(repo, content)
		if _, _, err := m.nodes[0].pull(m.nodes[0].ref(d), content, 0, -1); err != nil {
			t.Fatal(err)
		}
		ref := oci.Ref{Registry: m.nodes[0].ref(d).Registry, Digest: d}
		err := m.nodes[1].Holder().Take(t.Context(), &fakePeer{m.nodes[0], m.nodes[1]}, ref, "application/vnd.oci.image.index.v1+json")
		if (err == nil) != (typ != "") {
			t.Errorf("%d bytes: %v", size, err)
		}
		if got := m.nodes[1].store.MediaType(d); got != typ {
			t.Errorf("%d bytes are %q", size, got)
		}
	}
}
