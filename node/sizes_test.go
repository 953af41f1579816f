package node

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/upstreamtest"
)

// A size that can't be is not told to a client that asks by HEAD.
func TestSizesThatCannotBe(t *testing.T) {
	t.Parallel()
	const size = 3000
	for name, c := range map[string]struct {
		told     string // by the registry's HEAD
		manifest bool   // the node has a manifest that tells the right one
		want     string
	}{
		"right":                      {strconv.Itoa(size), false, strconv.Itoa(size)},
		"right, and a manifest":      {strconv.Itoa(size), true, strconv.Itoa(size)},
		"nothing":                    {"0", false, ""},
		"nothing, and a manifest":    {"0", true, ""},
		"too much, and a manifest":   {"4000", true, ""},
		"too little, and no witness": {"1000", false, "1000"},
		"too little, and a manifest": {"1000", true, ""},
	} {
		up := upstreamtest.New(t)
		img := up.PutImage(repo, "v1", random(1, size))
		up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead, PathPart: "/blobs/"}, Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", c.told)
			w.WriteHeader(http.StatusOK)
			return true
		}})
		p := newProxy(t, up, settings{})
		if c.manifest {
			p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
		}
		path := blobPath(img.Layers[0])
		if got := p.do(http.MethodHead, path); got.StatusCode != http.StatusOK || got.Header.Get("Content-Length") != c.want {
			t.Errorf("%s: %d, Content-Length %q, want %q", name, got.StatusCode, got.Header.Get("Content-Length"), c.want)
		}
		if n := up.Count(http.MethodGet, "/blobs/"); n != 0 {
			t.Errorf("%s: %d GETs for a HEAD", name, n)
		}
		if a := p.get(path); len(a.body) != size {
			t.Errorf("%s: a GET gives %d bytes", name, len(a.body))
		}
		p.do(http.MethodHead, path).want(t, http.StatusOK, "Content-Length", strconv.Itoa(size)) // the disk knows
	}
}

// What is named by the digest of nothing has no bytes, whatever a HEAD says.
func TestTheDigestOfNothing(t *testing.T) {
	t.Parallel()
	for _, told := range []string{"0", "5"} {
		up := upstreamtest.New(t)
		for _, d := range []digest.Digest{digest.FromBytes(nil), digest.SHA512.FromBytes(nil)} {
			up.PutBlob(repo, nil)
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead, PathPart: "/blobs/"}, Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Length", told)
				w.WriteHeader(http.StatusOK)
				return true
			}})
			p := newProxy(t, up, settings{})
			p.do(http.MethodHead, blobPath(d)).want(t, http.StatusOK, "Content-Length", "0")
		}
	}
}

// A blob that comes compressed is refused with the reason, after one more try.
func TestCompressedBlobs(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1000, 5 * mib} {
		up := upstreamtest.New(t)
		d := up.PutBlob(repo, []byte(strings.Repeat("hello", int(size)/5)))
		up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/blobs/"}, Gzip: true})
		p := newProxy(t, up, settings{})
		a := p.get(blobPath(d))
		if a.StatusCode != http.StatusBadGateway || !strings.Contains(string(a.body), "Content-Encoding gzip") || !strings.Contains(string(a.body), up.Host()) {
			t.Errorf("%d bytes: %d %.300s", size, a.StatusCode, a.body)
		}
		if n := up.Count(http.MethodGet, "/blobs/"); n != 2 {
			t.Errorf("%d bytes: %d GETs", size, n)
		}
		up.ClearFaults()
		if a := p.get(blobPath(d)); len(a.body) != int(size) {
			t.Errorf("%d bytes afterwards", len(a.body))
		}
	}
}
