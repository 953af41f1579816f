package node

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// TestAnswersInSlices: some caches on the way answer a request for the whole by 206 and a
// slice of it (coreweave/docker-registry-proxy#40). The blob arrives whole.
func TestAnswersInSlices(t *testing.T) {
	t.Parallel()
	content := random(1, 6<<20)
	for name, slice := range map[string]int{"many": 512 << 10, "two": 4 << 20, "one": 6 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			d := up.PutBlob(repo, content)
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/"}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
				from := 0
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from) // without one, from the beginning
				part := content[from:min(from+slice, len(content))]
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+len(part)-1, len(content)))
				w.Header().Set("Content-Length", fmt.Sprint(len(part)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(part) // the test sees what came
				return true
			}})
			p := newProxy(t, up, settings{})
			a := p.get(blobPath(d))
			a.want(t, http.StatusOK, "Content-Length", fmt.Sprint(len(content)))
			if a.err != nil || !bytes.Equal(a.body, content) {
				t.Errorf("%d bytes, %v", len(a.body), a.err)
			}
		})
	}
}

// TestManifestsWithOddHeaders: what a registry writes beside a manifest is believed as far
// as it is right, and the manifest is served with its digest, length and type.
func TestManifestsWithOddHeaders(t *testing.T) {
	t.Parallel()
	const digestHeader = "Docker-Content-Digest"
	for name, change := range map[string]func(w http.ResponseWriter, digest string){
		"early hints": func(w http.ResponseWriter, d string) {
			w.Header().Set(digestHeader, d)
			w.WriteHeader(http.StatusEarlyHints)
		},
		"the digest twice":  func(w http.ResponseWriter, d string) { w.Header()[digestHeader] = []string{d, d} },
		"with a comma":      func(w http.ResponseWriter, d string) { w.Header().Set(digestHeader, d+", "+d) },
		"in quotes":         func(w http.ResponseWriter, d string) { w.Header().Set(digestHeader, `"`+d+`"`) },
		"in capitals":       func(w http.ResponseWriter, d string) { w.Header().Set(digestHeader, strings.ToUpper(d)) },
		"unknown algorithm": func(w http.ResponseWriter, d string) { w.Header().Set(digestHeader, "blake3:"+d[7:]) },
		"none":              func(http.ResponseWriter, string) {},
		"no type":           func(w http.ResponseWriter, _ string) { w.Header()["Content-Type"] = nil },
		"plain text":        func(w http.ResponseWriter, _ string) { w.Header().Set("Content-Type", "text/plain; charset=utf-8") },
		"JSON": func(w http.ResponseWriter, d string) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set(digestHeader, d)
		},
		"no length": func(w http.ResponseWriter, d string) {
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Header().Set(digestHeader, d)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			img := up.PutImage(repo, "v1", random(1, 1000))
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/manifests/"}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Type", upstreamtest.TypeManifest)
				change(w, img.Manifest.String())
				w.WriteHeader(http.StatusOK)
				if r.Method == http.MethodGet {
					_, _ = w.Write(img.ManifestBytes) // the test sees what came
				}
				return true
			}})
			p := newProxy(t, up, settings{})
			for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodHead} {
				for _, ref := range []string{"v1", img.Manifest.String()} {
					a := p.do(method, "/v2/"+repo+"/manifests/"+ref)
					a.want(t, http.StatusOK, digestHeader, img.Manifest.String(), "Content-Type", upstreamtest.TypeManifest)
					if length := a.Header.Get("Content-Length"); length != fmt.Sprint(len(img.ManifestBytes)) {
						t.Errorf("%s of %s: Content-Length %q", method, ref, length)
					}
					if method == http.MethodGet && !bytes.Equal(a.body, img.ManifestBytes) {
						t.Errorf("%s of %s: %q", method, ref, a.body)
					}
				}
			}
		})
	}
}

// TestAHeadWithABody: the body of a HEAD is not taken for the answer to the next request.
func TestAHeadWithABody(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 1000))
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead, PathPart: "/manifests/"}, Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		const wrong = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n"
		fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nDocker-Content-Digest: %s\r\nContent-Length: %d\r\n\r\n%s",
			upstreamtest.TypeManifest, img.Manifest, len(wrong), wrong)
		_ = rw.Flush()
		_, _ = rw.ReadByte() // until the client hangs up
		return true
	}})
	p := newProxy(t, up, settings{})
	for range 5 {
		if a := p.get("/v2/" + repo + "/manifests/v1"); a.StatusCode != http.StatusOK || !bytes.Equal(a.body, img.ManifestBytes) {
			t.Errorf("%d, %q", a.StatusCode, a.body)
		}
	}
}

// TestACertificateThatIsNotTrustedAnyMore: a network that looks into TLS, or a certificate
// that has ended, is an outage: what is cached is served (moby#11534).
func TestACertificateThatIsNotTrustedAnyMore(t *testing.T) {
	t.Parallel()
	right, other := upstreamtest.New(t, upstreamtest.TLS()), upstreamtest.New(t, upstreamtest.TLS())
	img := right.PutImage(repo, "v1", random(1, 1000))
	var leads atomic.Value
	leads.Store(right.Host())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go upstreamtest.Tunnel(c, leads.Load().(string))
		}
	}()
	host := l.Addr().String()
	n, log := newNodeOf(t, fmt.Sprintf("default_registry: %q\ndefaults: {cache_dir: %q}\nregistries: {%q: {ca_file: %q}}\n", host, t.TempDir(), host, right.CAFile()))
	p := serving(t, n, log)
	for range 2 {
		p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
		p.get(blobPath(img.Layers[0])).want(t, http.StatusOK)
		leads.Store(other.Host())
		right.Down() // ends the connections that are open
	}
	if a := p.get("/v2/" + repo + "/manifests/v1"); a.Header.Get("Warning") == "" {
		t.Error("the manifest is not marked as stale")
	}
	if d := p.get("/v2/"+repo+"/manifests/v2").wantError(t, http.StatusBadGateway, "UNAVAILABLE"); !strings.Contains(d.Reason, "certificate") {
		t.Errorf("the reason is %q", d.Reason)
	}
}
