package transfer_test

import (
	"fmt"
	"net/http"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// TestABlobWhoseEndIsLost: all bytes came, and the connection ended before it said that
// they were all (chunked, without Content-Length). The digest says it (podman#18142).
func TestABlobWhoseEndIsLost(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1, 5_000, 300_000, 9 * mib} {
		for _, then := range []string{"416", "the same", "nothing"} {
			t.Run(fmt.Sprintf("%d bytes, then %s", size, then), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, setup{})
				d, content := r.put(1, size)
				blobs := upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/"}
				r.registry.Fault(upstreamtest.Fault{Match: blobs, Times: 1, NoLength: true, CutAfter: size})
				r.registry.Fault(map[string]upstreamtest.Fault{
					"416":      {Match: blobs, Status: http.StatusRequestedRangeNotSatisfiable},
					"the same": {Match: blobs, IgnoreRange: true, NoLength: true, CutAfter: size},
					"nothing":  {Match: blobs, Status: http.StatusBadGateway},
				}[then])
				r.mustPull(r.ref(d), content, oci.Miss)
				r.wantGets(d, 1)
				r.mustPull(r.ref(d), content, oci.Hit)
			})
		}
	}
}

// openEnded answers with part of the content, over a connection whose end is the body's end:
// nothing tells a part from the whole. Ranges are served likewise.
func openEnded(content []byte, part int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		from, status := 0, "200 OK"
		if n, _ := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); n == 1 {
			status = fmt.Sprintf("206 Partial Content\r\nContent-Range: bytes %d-%d/*", from, len(content)-1)
		}
		fmt.Fprintf(rw, "HTTP/1.1 %s\r\nConnection: close\r\n\r\n", status)
		_, _ = rw.Write(content[from:min(from+part, len(content))]) // the test sees what came
		_ = rw.Flush()
		return true
	}
}

// TestABodyThatEndsAnywhere: where a manifest tells the size, a body that ends before it
// was cut, though nothing says so, and is gone on with (harbor#23373).
func TestABodyThatEndsAnywhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size, part int
		ranges     bool
	}{
		"twice":               {9 * mib, 4 * mib, true},
		"many times":          {9 * mib, mib, true},
		"a small one":         {40_000, 15_000, true},
		"a byte is missing":   {300_000, 299_999, true},
		"nothing is missing":  {300_000, 300_000, true},
		"and there is no 206": {300_000, 200_000, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			content := random(1, int64(c.size))
			d := r.registry.PutImage(repo, "v1", content).Layers[0]
			f := upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: d.String()}, Wrap: openEnded(content, c.part)}
			if !c.ranges {
				f.Times = 1
				r.registry.Fault(f)
				f = upstreamtest.Fault{Match: f.Match, IgnoreRange: true}
			}
			r.registry.Fault(f)
			if _, err := r.Manifest(t.Context(), r.tag("v1"), nil, false); err != nil {
				t.Fatal(err)
			}
			r.mustPull(r.ref(d), content, oci.Miss)
			r.mustPull(r.ref(d), content, oci.Hit)
		})
	}
}

// TestAnotherSizeThanTheManifests: a cache on the way that has kept a part of a blob, or
// twice the blob (distribution#2168), is asked once more before a byte is sent. If the size
// stays, the registry is believed: a manifest may be wrong as well (containerd#2401).
func TestAnotherSizeThanTheManifests(t *testing.T) {
	t.Parallel()
	const size = 9 * mib
	other := func(n int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", fmt.Sprint(n))
			content := random(1, size)
			_, _ = w.Write(append(content, content...)[:n]) // the client leaves
			return true
		}
	}
	for name, n := range map[string]int{"half of it": size / 2, "a page": 1200, "nothing": 0, "one byte less": size - 1, "twice": 2 * size} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			content := random(1, size)
			d := r.registry.PutImage(repo, "v1", content).Layers[0]
			r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: d.String()}, Times: 1, Wrap: other(n)})
			if _, err := r.Manifest(t.Context(), r.tag("v1"), nil, false); err != nil {
				t.Fatal(err)
			}
			r.mustPull(r.ref(d), content, oci.Miss)
			r.wantGets(d, 2)
		})
	}
	t.Run("the manifest is wrong", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, setup{})
		d, content := r.put(1, size)
		r.registry.PutManifest(repo, "v1", upstreamtest.TypeManifest, fmt.Appendf(nil,
			`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"c","digest":%q,"size":17},"layers":[{"mediaType":"l","digest":%q,"size":17}]}`,
			upstreamtest.TypeManifest, r.registry.PutBlob(repo, []byte("the configuration")), d))
		if _, err := r.Manifest(t.Context(), r.tag("v1"), nil, false); err != nil {
			t.Fatal(err)
		}
		r.mustPull(r.ref(d), content, oci.Miss)
		r.wantGets(d, 2)
		r.mustPull(r.ref(d), content, oci.Hit)
	})
}

// TestRangesThatAreRefused: some registries answer a range by an error (containerd#11953), and
// some CDNs. The whole is asked for again, and what came before is skipped.
func TestRangesThatAreRefused(t *testing.T) {
	t.Parallel()
	const size = 6 * mib
	for _, redirected := range []bool{false, true} {
		for _, status := range []int{400, 405, 406, 412, 416, 422, 501, 403, 404, 500, 503} {
			if !redirected && (status == 403 || status == 404) {
				continue // the registry refuses the blob itself
			}
			t.Run(fmt.Sprintf("%d, redirected %v", status, redirected), func(t *testing.T) {
				t.Parallel()
				if !redirected && status >= 500 && status != 501 || redirected {
					testkit.SkipShort(t) // it may pass, so it is waited for
				}
				s := setup{}
				if redirected {
					s.options = []upstreamtest.Option{upstreamtest.Redirect()}
				}
				r := newRig(t, s)
				d, content := r.put(1, size)
				part := upstreamtest.Match{Method: http.MethodGet, PathPart: d.Encoded()}
				if redirected {
					part.Server = "cdn"
				}
				r.registry.Fault(upstreamtest.Fault{Match: part, Times: 1, CutAfter: size / 2})
				r.registry.Fault(upstreamtest.Fault{Match: part, Wrap: func(w http.ResponseWriter, req *http.Request) bool {
					if req.Header.Get("Range") == "" {
						return false
					}
					w.WriteHeader(status)
					return true
				}})
				r.mustPull(r.ref(d), content, oci.Miss)
				r.mustPull(r.ref(d), content, oci.Hit)
			})
		}
	}
}
