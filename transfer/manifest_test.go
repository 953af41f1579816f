package transfer_test

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// mustFind fails the test unless the manifest comes, byte for byte.
func (r *rig) mustFind(ref oci.Ref, want []byte, mediaType string) *oci.Found {
	r.t.Helper()
	m, err := r.Manifest(r.t.Context(), ref, nil, false)
	if err != nil {
		r.t.Fatal(err)
	}
	if !bytes.Equal(r.body(m), want) || m.MediaType != mediaType || m.Size != int64(len(want)) || m.Digest != m.Digest.Algorithm().FromBytes(want) {
		r.t.Errorf("manifest %+v, want %q of type %s", m, want, mediaType)
	}
	return m
}

// body returns a manifest's bytes, as they are sent, and closes it.
func (r *rig) body(m *oci.Found) []byte {
	r.t.Helper()
	var b bytes.Buffer
	_, err := m.Send(r.t.Context(), &b, 0, m.Size)
	if err = errors.Join(err, m.Close()); err != nil {
		r.t.Error("sending a manifest:", err)
	}
	return b.Bytes()
}

func TestAManifestByDigestIsAskedForOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir})
	img := r.registry.PutImage(repo, "")
	each(30, func(int) {
		if m, err := r.Manifest(t.Context(), r.ref(img.Manifest), nil, false); err != nil || !bytes.Equal(m.Bytes, img.ManifestBytes) {
			t.Errorf("manifest %+v, error %v", m, err)
		}
	})
	if n := r.registry.Count("", ""); n != 1 {
		t.Errorf("%d requests reached the registry", n)
	}
	r.registry.Down()
	if m := r.mustFind(r.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest); m.Origin != oci.Hit {
		t.Errorf("it came as a %v", m.Origin)
	}
	c := r.Counters()[r.registry.Host()]
	if c.Hits.Load()+c.Misses.Load() != 31 {
		t.Errorf("%d hits and %d misses counted", c.Hits.Load(), c.Misses.Load())
	}
	r.end()
	again := newRig(t, setup{dir: dir, registry: r.registry})
	again.mustFind(again.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest)
}

func TestHeadOfAManifestByDigest(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]upstreamtest.Fault{
		"is passed on": {},
		"is answered from a GET where it is not offered":   {Match: upstreamtest.Match{Method: "HEAD"}, Status: 405},
		"is answered from a GET where it tells no length":  {Match: upstreamtest.Match{Method: "HEAD"}, NoLength: true},
		"is answered from a GET where it tells no type":    {Match: upstreamtest.Match{Method: "HEAD"}, Header: http.Header{"Content-Type": nil}},
		"is answered as ever where it tells a wrong thing": {Match: upstreamtest.Match{Method: "HEAD"}, WrongDigest: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			img := r.registry.PutImage(repo, "")
			r.registry.Fault(fault)
			for range 2 {
				m, err := r.Manifest(t.Context(), r.ref(img.Manifest), nil, true)
				if err != nil || m.Digest != img.Manifest || m.Size != int64(len(img.ManifestBytes)) || m.MediaType != upstreamtest.TypeManifest {
					t.Errorf("HEAD: %+v, error %v", m, err)
				}
			}
		})
	}
}

func TestAManifestFetchedAsABlobHasItsMediaTypeLater(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 100 * kib} {
		r := newRig(t, setup{})
		content := []byte(`{"x":"` + string(bytes.Repeat([]byte("x"), size)) + `"}`)
		d := r.registry.PutBlob(repo, content)
		r.registry.PutManifest(repo, "", upstreamtest.TypeIndex, content)
		r.mustPull(r.ref(d), content, oci.Miss)
		r.events.await(filled, 1)
		r.mustFind(r.ref(d), content, upstreamtest.TypeIndex)
		r.mustFind(r.ref(d), content, upstreamtest.TypeIndex)
		r.mustPull(r.ref(d), content, oci.Hit)
		r.wantGets(d, 2)
	}
}

func TestSha512(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	content := random(5, 300*kib)
	d := digest.SHA512.FromBytes(content)
	r.registry.Fault(upstreamtest.Fault{
		Match: upstreamtest.Match{PathPart: d.Encoded()},
		Wrap: func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Content-Type", upstreamtest.TypeManifest)
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
			_, _ = w.Write(content)
			return true
		},
	})
	r.mustPull(r.ref(d), content, oci.Miss)
	r.events.await(filled, 1)
	r.mustPull(r.ref(d), content, oci.Hit)
	r.mustFind(r.ref(d), content, upstreamtest.TypeManifest)
	r.mustFind(r.ref(d), content, upstreamtest.TypeManifest)
	r.wantGets(d, 2)
}

func TestAManifestThatIsNotWhatItsDigestNamesIsNeitherServedNorKept(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]upstreamtest.Fault{
		"corrupt":      {Wrap: forged},
		"wrong digest": {WrongDigest: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			img := r.registry.PutImage(repo, "latest")
			fault.Match = upstreamtest.Match{Method: "GET", PathPart: "/manifests/"}
			r.registry.Fault(fault)
			for _, ref := range []oci.Ref{r.ref(img.Manifest), r.tag("latest")} {
				_, err := r.Manifest(t.Context(), ref, nil, false)
				wantKind(t, err, oci.Corrupt)
			}
			if n := len(r.store.Stats()); n != 0 && r.store.Size() != 0 {
				t.Errorf("the store holds %d bytes", r.store.Size())
			}
			r.registry.ClearFaults()
			r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
		})
	}
}

// forged answers with other bytes under the right header.
func forged(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Type", upstreamtest.TypeManifest)
	_, _ = w.Write([]byte(`{"forged":true}`))
	return true
}

func TestATransferErrorOfAManifestIsMendedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	img := r.registry.PutImage(repo, "latest")
	r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET"}, Wrap: forged, Times: 1})
	r.mustFind(r.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest)
}

func TestAManifestOver4MiBIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	big := []byte(`{"x":"` + string(bytes.Repeat([]byte("x"), 4*mib)) + `"}`)
	d := r.registry.PutManifest(repo, "big", upstreamtest.TypeManifest, big)
	for _, ref := range []oci.Ref{r.ref(d), r.tag("big")} {
		_, err := r.Manifest(t.Context(), ref, nil, false)
		wantKind(t, err, oci.Unavailable)
	}
	fits := []byte(`{"x":"` + string(bytes.Repeat([]byte("x"), 4*mib-100)) + `"}`)
	r.registry.PutManifest(repo, "fits", upstreamtest.TypeManifest, fits)
	r.mustFind(r.tag("fits"), fits, upstreamtest.TypeManifest)
}

func TestListingsArePassedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	img := r.registry.PutImage(repo, "latest")
	body, way, err := r.list("")
	if err != nil || !strings.Contains(body, `"latest"`) || way.CacheStatus("a", true) != "a; fwd=uri-miss; stored" {
		t.Errorf("tags %s, %+v, error %v", body, way, err)
	}
	p, err := r.Referrers(t.Context(), r.ref(img.Manifest), "")
	if err != nil || p.Page.MediaType != upstreamtest.TypeIndex {
		t.Fatalf("referrers %+v, error %v", p, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
