package node

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// old asks for a path by HTTP/1.0, as nginx does for its clients. started is called when
// the header has come.
func (p *proxy) old(path, header string, started func()) (head string, body []byte, err error) {
	p.t.Helper()
	c := p.dial()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: localhost\r\n%s\r\n", path, header); err != nil {
		p.t.Fatal(err)
	}
	var all bytes.Buffer
	for !bytes.Contains(all.Bytes(), []byte("\r\n\r\n")) {
		if _, err := io.CopyN(&all, c, 1); err != nil {
			p.t.Fatalf("no header: %v", err)
		}
	}
	started()
	_, err = io.Copy(&all, c)
	head, rest, _ := strings.Cut(all.String(), "\r\n\r\n")
	return head, []byte(rest), err
}

// TestACutIsSeenOverHTTP10: there the end of a connection is the end of a body whose size
// is not told, so a part must not end as the whole does.
func TestACutIsSeenOverHTTP10(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	content := random(1, size)
	blobs := upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/"}
	for name, c := range map[string]struct {
		fault upstreamtest.Fault
		then  upstreamtest.Fault
		stop  bool
		whole bool
	}{
		"all of it":                   {fault: upstreamtest.Fault{NoLength: true}, whole: true},
		"goes on":                     {fault: upstreamtest.Fault{NoLength: true, CutAfter: size / 2, Times: 1}, whole: true},
		"cut":                         {fault: upstreamtest.Fault{NoLength: true, CutAfter: size / 2, Times: 1}, then: upstreamtest.Fault{Status: http.StatusForbidden}},
		"wrong bytes":                 {fault: upstreamtest.Fault{NoLength: true, Corrupt: true, CorruptAt: size / 3}},
		"the node ends":               {fault: upstreamtest.Fault{NoLength: true, Stall: true, StallAfter: size / 2}, stop: true},
		"the size is told, and a cut": {fault: upstreamtest.Fault{CutAfter: size / 2, Times: 1}, then: upstreamtest.Fault{Status: http.StatusForbidden}},
	} {
		for _, header := range []string{"", "Connection: keep-alive\r\n"} {
			t.Run(name+" "+header, func(t *testing.T) {
				t.Parallel()
				up := upstreamtest.New(t)
				d := up.PutBlob("team/app", content)
				first, then := c.fault, c.then // copies: the other header's test runs beside this one
				first.Match, then.Match = blobs, blobs
				up.Fault(first)
				if then.Status != 0 {
					up.Fault(then)
				}
				p, stop, _ := running(t, up, settings{top: "shutdown_timeout: 100ms"})
				started := func() {}
				if c.stop {
					started = stop
				}
				head, body, err := p.old("/v2/team/app/blobs/"+d.String(), header, started)
				promised := strings.Contains(head, fmt.Sprintf("Content-Length: %d", size))
				switch {
				case !strings.HasPrefix(head, "HTTP/1.0 200"):
					t.Errorf("the answer begins with %q", head)
				case c.whole && (err != nil || !bytes.Equal(body, content)):
					t.Errorf("%d bytes, then %v; want the whole blob", len(body), err)
				case !c.whole && !promised && !errors.Is(err, syscall.ECONNRESET):
					t.Errorf("%d of %d bytes, then %v: want a reset", len(body), size, err)
				case !c.whole && promised && len(body) >= size:
					t.Errorf("%d bytes", len(body))
				}
			})
		}
	}
}

// Over TLS likewise: few clients look for its last word.
func TestACutIsSeenOverHTTP10AndTLS(t *testing.T) {
	t.Parallel()
	const size = 6 << 20 // of less no byte leaves before it is known to be right
	content := random(1, size)
	for _, cut := range []bool{false, true} {
		up := upstreamtest.New(t)
		d := up.PutBlob(repo, content)
		up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/blobs/"}, NoLength: true, Corrupt: cut})
		files := newPair(t, "proxy.example")
		p := overtls(t, up, files, false)
		c, err := tls.Dial("tcp", strings.TrimPrefix(p.url, "https://"), &tls.Config{RootCAs: files.pool, ServerName: "proxy.example"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: proxy.example\r\n\r\n", blobPath(d)); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(c)
		_, body, _ := bytes.Cut(all, []byte("\r\n\r\n"))
		if reset := errors.Is(err, syscall.ECONNRESET); reset != cut || !cut && !bytes.Equal(body, content) {
			t.Errorf("cut %v: %d bytes, then %v", cut, len(body), err)
		}
		if err := c.Close(); err != nil && !cut {
			t.Error(err)
		}
	}
}
