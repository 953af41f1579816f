package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// spying serves the node on a listener that sees sendfile.
func spying(t *testing.T, p *proxy) (*testkit.Spy, *proxy) {
	srv := httptest.NewUnstartedServer(p.node.Handler())
	s := &testkit.Spy{Listener: srv.Listener}
	srv.Listener = s
	srv.Start()
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		srv.Close()
	})
	q := *p
	q.url = srv.URL
	return s, &q
}

func TestLargeBlobsLeaveBySendfile(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	const size = 9<<20 + 7
	content := random(1, size)
	d := up.PutBlob(repo, content)
	release := halve(up, d.String(), size)
	s, p := spying(t, newProxy(t, up, settings{top: "auth: {username: u, password: p}"}))
	login := basic("u", "p")
	for _, way := range []string{"oci-proxy; fwd=uri-miss; stored", "oci-proxy; hit"} {
		before := s.Files()
		resp := p.send(http.MethodGet, blobPath(d), login...)
		release()
		a := read(resp)
		a.want(t, 200, "Cache-Status", way)
		if !bytes.Equal(a.body, content) {
			t.Errorf("%s: wrong bytes", way)
		}
		// The first 512 bytes are sent along with the header, and of a miss up to 16 KiB before room is set aside.
		if n := s.Files() - before; n < size-512-16<<10 || n < size-512 && strings.HasSuffix(way, "hit") {
			t.Errorf("%s: %d of %d bytes left by sendfile", way, n, size)
		}
	}
	if l := p.line(d.String()); l["bytes"] != float64(size) {
		t.Errorf("line %v", l)
	}
}

func TestBodyThatCannotBeFinishedEndsByACleanFIN(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	const size = 1 << 20
	for name, untold := range map[string]bool{"with a length": false, "chunked": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			d := up.PutBlob(repo, random(1, size))
			release := halved(up, size, upstreamtest.Fault{
				Match: upstreamtest.Match{PathPart: "/blobs/"}, Corrupt: true, CorruptAt: size - 1, NoLength: untold,
			})
			p := newProxy(t, up, settings{})
			c := p.dial()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", blobPath(d))
			in := bufio.NewReaderSize(c, size)
			if _, err := in.Peek(size/4 + 10<<10); err != nil { // the header and the first part of the body
				t.Fatal(err)
			}
			release()
			raw, err := io.ReadAll(in)
			if err != nil {
				t.Fatalf("after %d bytes: %v, want EOF", len(raw), err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
			if err != nil {
				t.Fatal(err)
			}
			a := read(resp)
			if a.StatusCode != 200 || !errors.Is(a.err, io.ErrUnexpectedEOF) || len(a.body) < size/4 || len(a.body) > size-64<<10 {
				t.Errorf("status %d, %d bytes, %v; want an unexpected EOF before the last 64 KiB", a.StatusCode, len(a.body), a.err)
			}
			if bytes.HasSuffix(raw, []byte("\r\n0\r\n\r\n")) {
				t.Error("the last chunk was sent")
			}
			p.sent.Add(1)
			if l := p.line(d.String()); l["error"] == nil || l["status"] != 200.0 {
				t.Errorf("line %v", l)
			}
		})
	}
}
