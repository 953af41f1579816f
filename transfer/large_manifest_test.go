package transfer_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// largeManifest is an image manifest of some 400 KB that lists a layer.
func largeManifest(layer digest.Digest) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":2,"mediaType":%q},"layers":[{"digest":%q,"size":10,"mediaType":%q}],"annotations":{"pad":%q}}`,
		upstreamtest.TypeManifest, digest.FromString("{}"), upstreamtest.TypeConfig, layer, upstreamtest.TypeLayer, bytes.Repeat([]byte("x"), 400_000))
}

func TestALargeManifestIsSentFromTheShard(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]setup{"public": {}, "private": {private: func(string) bool { return true }}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.dir = t.TempDir()
			r := newRig(t, s)
			layer := r.registry.PutBlob(repo, []byte("0123456789"))
			m := largeManifest(layer)
			d := r.registry.PutManifest(repo, "v1", upstreamtest.TypeManifest, m)
			for range 2 { // it comes, then it is held
				for _, ref := range []oci.Ref{r.tag("v1"), r.ref(d)} {
					found := r.mustFind(ref, m, upstreamtest.TypeManifest)
					if found.Bytes != nil {
						t.Error("the bytes are in memory too")
					}
					if head, err := r.Manifest(t.Context(), ref, nil, true); err != nil || head.Body != nil || head.Size != int64(len(m)) || head.MediaType != upstreamtest.TypeManifest {
						t.Errorf("HEAD: %+v, %v", head, err)
					}
				}
			}
			if n := r.registry.Count("GET", "/manifests/"); n != 1 {
				t.Errorf("the registry was asked for it %d times", n)
			}
			if used := r.MemoryUsed(); used != 0 {
				t.Errorf("%d bytes of memory are claimed at the end", used)
			}
			if s.private == nil {
				return
			}
			asked := r.registry.Count("", layer.String())
			r.mustPull(r.ref(layer), []byte("0123456789"), oci.Miss)
			if n := r.registry.Count("HEAD", layer.String()); n != asked {
				t.Error("the registry was asked for the layer's grant, which the manifest gave")
			}
		})
	}
}

func TestADamagedLargeManifestIsGotAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir})
	m := largeManifest(digest.FromString("layer"))
	d := r.registry.PutManifest(repo, "v1", upstreamtest.TypeManifest, m)
	r.mustFind(r.ref(d), m, upstreamtest.TypeManifest)
	file := filepath.Join(dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
	damaged := bytes.Clone(m)
	damaged[300_000] ^= 1
	if err := os.WriteFile(file, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	r.mustFind(r.ref(d), m, upstreamtest.TypeManifest)
	r.mustFind(r.tag("v1"), m, upstreamtest.TypeManifest)
	if n := r.registry.Count("GET", "/manifests/"); n != 2 {
		t.Errorf("the registry was asked for it %d times", n)
	}
}

// What the shard does not keep is in memory once for all who ask at the time, and
// counts until the last of them has it.
func TestALargeManifestThatIsNotKeptCountsUntilItIsSent(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	r := newRig(t, setup{cache: cache.Options{Bound: 1000}})
	m := largeManifest(digest.FromString("layer"))
	d := r.registry.PutManifest(repo, "v1", upstreamtest.TypeManifest, m)
	const many = 20
	release := r.registry.Hold(upstreamtest.Match{PathPart: "/manifests/"})
	found := make([]*oci.Found, many)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		each(many, func(i int) {
			var err error
			if found[i], err = r.Manifest(t.Context(), r.ref(d), nil, false); err != nil {
				t.Error(err)
			}
		})
	}()
	r.registry.WaitFor(upstreamtest.Match{PathPart: "/manifests/"}, 1)
	release()
	<-asked
	if t.Failed() {
		return
	}
	gets := r.registry.Count("GET", "/manifests/")
	if used := r.MemoryUsed(); used < int64(len(m)) || used > int64(gets*2*len(m)) {
		t.Errorf("%d answers of %d downloads claim %d bytes", many, gets, used)
	}
	for _, f := range found {
		if !bytes.Equal(r.body(f), m) {
			t.Error("wrong bytes")
		}
	}
	testkit.Await(t, "the memory is given back", func() bool { return r.MemoryUsed() == 0 })
}

// A registry's manifest that another one's clients ask for is sent from the shard too, if
// its bytes bear out its type.
func TestALargeManifestOfTwoRegistries(t *testing.T) {
	t.Parallel()
	other := upstreamtest.New(t)
	r := newRig(t, setup{registries: []*upstreamtest.Registry{other}})
	m := largeManifest(digest.FromString("layer"))
	odd := append([]byte(`[`), append(bytes.Repeat([]byte("1,"), 100_000), "1]"...)...)
	for _, c := range []struct {
		content   []byte
		mediaType string
		asked     int
	}{{m, upstreamtest.TypeManifest, 0}, {odd, "application/vnd.example.odd", 3}} {
		d := r.registry.PutManifest(repo, "", c.mediaType, c.content)
		other.PutManifest(repo, "", c.mediaType, c.content)
		r.mustFind(r.ref(d), c.content, c.mediaType)
		for range 3 {
			r.mustFind(oci.Ref{Registry: other.Host(), Repository: repo, Digest: d}, c.content, c.mediaType)
		}
		if n := other.Count("GET", d.String()); n != c.asked {
			t.Errorf("%s: the other registry was asked %d times", c.mediaType, n)
		}
	}
}
