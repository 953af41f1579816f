package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

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

// BenchmarkPull is what a small blob costs that nobody has pulled before: asking a registry for it,
// checking it, keeping it and answering. The registry is in the same process, and no part of the
// program; a profile tells them apart.
func BenchmarkPull(b *testing.B) {
	const size = 4 << 10
	content := random(1, size)
	var digests sync.Map // of what the registry has, by the path's end
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, ok := digests.Load(path.Base(r.URL.Path))
		if !ok {
			w.WriteHeader(http.StatusOK)
			return
		}
		mine := bytes.Clone(content)
		binary.BigEndian.PutUint64(mine, i.(uint64))
		w.Header()["Content-Length"] = []string{"4096"}
		_, _ = w.Write(mine)
	}))
	defer up.Close()
	host := strings.TrimPrefix(up.URL, "http://")
	n, _ := newNodeOf(b, fmt.Sprintf("log_level: error\ndefault_registry: %q\ndefaults: {cache_dir: %q, cache_max_size: 40m}\nregistries: {%q: {insecure: true}}\n", host, b.TempDir(), host))
	defer func() { _ = n.Close(b.Context()) }()
	h := n.Handler()
	var last uint64
	b.ReportAllocs()
	for b.Loop() {
		last++
		binary.BigEndian.PutUint64(content, last)
		d := digest.FromBytes(content).String()
		digests.Store(d, last)
		r := httptest.NewRequest(http.MethodGet, "/v2/"+repo+"/blobs/"+d, http.NoBody)
		r.RemoteAddr = "127.0.0.1:4711"
		w := &sink{header: http.Header{}}
		if h.ServeHTTP(w, r); w.bytes != size {
			b.Fatalf("%d bytes", w.bytes)
		}
	}
}
