package node

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

// sendOn answers with bytes that end after 128 MiB only, and tells no length. It reports true.
func sendOn(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
	for range 128 * mib >> 16 {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return true
		}
	}
	return true
}

// A bucket that sends bytes without end costs nobody a pull, and no client gets them.
func TestABucketSendsWithoutEnd(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"a known size": true, "an unknown size": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			layers := [][]byte{random(7, 100_000), random(8, 6*mib)}
			img := up.PutImage(repo, "v1", layers...)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, d := range img.Layers {
					if strings.HasSuffix(r.URL.Path, d.Encoded()) && r.Method == http.MethodGet && sendOn(w, r) {
						return
					}
				}
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
			}))
			defer srv.Close()
			for i, d := range img.Layers {
				p := newProxy(t, up, (&coldStore{url: srv.URL}).settings(""))
				if known {
					p.get("/v2/"+repo+"/manifests/"+img.Manifest.String()).want(t, http.StatusOK)
				}
				if a := p.get(blobPath(d)); a.StatusCode != http.StatusOK || !bytes.Equal(a.body, layers[i]) {
					t.Errorf("layer %d: status %d, %d bytes, %v", i, a.StatusCode, len(a.body), a.err)
				}
			}
		})
	}
}

// A mirror may tell no size. If the manifest tells it, no client gets more.
func TestAMirrorSendsWithoutEnd(t *testing.T) {
	t.Parallel()
	up, mirror := upstreamtest.New(t), upstreamtest.New(t)
	layers := [][]byte{random(7, 100_000), random(8, 6*mib)}
	img := up.PutImage(repo, "v1", layers...)
	mirror.PutImage(repo, "v1", layers...)
	for i, d := range img.Layers {
		mirror.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: "blobs/" + d.String()}, Wrap: sendOn})
		p := newProxy(t, up, settings{registry: fmt.Sprintf("mirrors: [%q]", mirror.Host()), more: fmt.Sprintf("  %q: {insecure: true}", mirror.Host())})
		p.get("/v2/"+repo+"/manifests/"+img.Manifest.String()).want(t, http.StatusOK)
		a := p.get(blobPath(d))
		if i == 1 && !bytes.Equal(a.body, layers[i]) { // a large one is cut off, and asked for again
			if a.err == nil || len(a.body) > len(layers[i]) {
				t.Errorf("status %d, %d bytes, %v", a.StatusCode, len(a.body), a.err)
			}
			a = p.get(blobPath(d))
		}
		if a.StatusCode != http.StatusOK || !bytes.Equal(a.body, layers[i]) {
			t.Errorf("layer %d: status %d, %d bytes, %v", i, a.StatusCode, len(a.body), a.err)
		}
		if mirror.Count(http.MethodGet, d.String()) == 0 {
			t.Error("the mirror was not asked")
		}
	}
}

// A bucket, or a mirror, may make up a size. That alone makes nothing go from the cache.
func TestASizeThatABucketOrAMirrorMakesUpEvictsNothing(t *testing.T) {
	t.Parallel()
	boast := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", strconv.Itoa(60*mib))
		_, _ = w.Write(make([]byte, mib))
		_ = http.NewResponseController(w).Flush()
		return true // and ends early
	}
	for name, mirrored := range map[string]bool{"a bucket": false, "a mirror": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, mirror := upstreamtest.New(t), upstreamtest.New(t)
			target := up.PutBlob(repo, random(1, 100_000))
			mirror.PutBlob(repo, random(1, 100_000))
			part := target.Encoded()
			mirror.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: part}, Wrap: boast})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, part) || r.Method != http.MethodGet || !boast(w, r) {
					w.WriteHeader(http.StatusNotFound)
					_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
				}
			}))
			defer srv.Close()
			s := (&coldStore{url: srv.URL}).settings("")
			if mirrored {
				s = settings{registry: fmt.Sprintf("mirrors: [%q]", mirror.Host()), more: fmt.Sprintf("  %q: {insecure: true}", mirror.Host())}
			}
			s.defaults = "cache_max_size: 64m"
			p := newProxy(t, up, s)
			for i := range 12 {
				content := random(uint64(10+i), 4*mib)
				mirror.PutBlob(repo, content)
				p.get(blobPath(up.PutBlob(repo, content))).want(t, http.StatusOK)
			}
			_ = p.get(blobPath(target)) // it may be cut off
			if all := p.stats()[up.Host()]; all["Evictions"] != 0 {
				t.Errorf("%d blobs had to go, %d bytes are left", all["Evictions"], all["CurrentSize"])
			}
		})
	}
}
