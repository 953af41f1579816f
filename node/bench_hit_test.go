package node

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

// A sink takes an answer and keeps nothing of it.
type sink struct {
	header http.Header
	bytes  int
}

func (s *sink) Header() http.Header              { return s.header }
func (s *sink) WriteHeader(int)                  {}
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Write(p []byte) (int, error)      { s.bytes += len(p); return len(p), nil }

// BenchmarkAnswer is what this program adds to net/http for a hit: no connection, no client.
func BenchmarkAnswer(b *testing.B) {
	up := upstreamtest.New(b)
	blob := "/v2/" + repo + "/blobs/" + up.PutBlob(repo, random(1, 4<<10)).String()
	manifest := "/v2/" + repo + "/manifests/" + up.PutManifest(repo, "v1", upstreamtest.TypeManifest, []byte(`{"schemaVersion":2,"layers":[]}`)).String()
	n, _ := newNodeOf(b, strings.Replace(settings{registry: "tag_ttl: 1h"}.text(b, up), "log_level: debug", "log_level: error", 1))
	defer func() { _ = n.Close(b.Context()) }()
	h := n.Handler()
	for _, row := range []struct{ name, method, path string }{
		{"blob", http.MethodGet, blob},
		{"blob head", http.MethodHead, blob},
		{"manifest", http.MethodGet, manifest},
		{"manifest head", http.MethodHead, manifest},
		{"tag", http.MethodGet, "/v2/" + repo + "/manifests/v1"},
	} {
		b.Run(row.name, func(b *testing.B) {
			r := httptest.NewRequest(row.method, row.path, http.NoBody)
			r.RemoteAddr = "127.0.0.1:4711"
			w := &sink{header: http.Header{}}
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, row.path, http.NoBody))
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				h.ServeHTTP(w, r)
			}
		})
	}
}
