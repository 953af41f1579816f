package upstream

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// A shortcut answers requests at once, as a Transport does that has an idle connection.
type shortcut struct{ conn net.Conn }

// RoundTrip implements http.RoundTripper.
func (s shortcut) RoundTrip(req *http.Request) (*http.Response, error) {
	if t := httptrace.ContextClientTrace(req.Context()); t != nil {
		t.GetConn(req.URL.Host)
		t.GotConn(httptrace.GotConnInfo{Conn: s.conn, Reused: true})
	}
	return &http.Response{
		StatusCode: http.StatusOK, ContentLength: 2, Body: io.NopCloser(strings.NewReader("{}")), Request: req,
		Header: http.Header{"Content-Type": {"application/octet-stream"}, "Docker-Distribution-Api-Version": {"registry/2.0"}},
	}, nil
}

// BenchmarkOpen is what a request for a blob costs here, without the connection and net/http.
func BenchmarkOpen(b *testing.B) {
	c, err := New([]Registry{plainly("127.0.0.1:5000")}, Registry{FollowRedirects: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	r := c.now().named["127.0.0.1:5000"]
	r.net.own, r.net.elsewhere = shortcut{conn}, shortcut{conn}
	r.home.plain.Store(true)
	ref := oci.Ref{Registry: "127.0.0.1:5000", Repository: "bench/image", Digest: digest.FromString("{}")}
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Open(b.Context(), ref, 0)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, s.Body)
		_ = s.Body.Close()
	}
}
