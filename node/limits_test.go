package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/gate"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// served starts a proxy with limits on the node's own server.
func served(t *testing.T, up *upstreamtest.Registry, s settings, limits gate.Limits) *proxy {
	t.Helper()
	p := newProxyOf(t, up, s, seams{limits: &limits})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := p.node.server()
	srv.ReadHeaderTimeout = 2 * patience // what ends sooner is ended by the limits
	over := make(chan error, 1)
	go func() { over <- serve(srv, l) }()
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		_ = srv.Close() // cuts the connections that the test left open
		<-over
	})
	p.url = "http://" + l.Addr().String()
	return p
}

func TestIdleConnectionsGoWhenDescriptorsRunLow(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(1, 1000))
	const files = 100
	p := served(t, up, settings{}, gate.Limits{Files: files, Pulls: 100, Waiting: 100})
	used := p.dial() // it got one answer and is idle since then
	fmt.Fprintf(used, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(used), nil); err != nil {
		t.Fatal(err)
	}
	const many = 2000
	var conns []net.Conn
	for i := range many {
		c := p.dial()
		if i%3 == 1 {
			fmt.Fprintf(c, "GET /v2/ HTTP/1.1\r\nHo") // half a header counts as idle
		}
		conns = append(conns, c)
	}
	// The listener accepts one connection after the other, so this one comes last.
	p.get(blobPath(d)).want(t, 200)
	testkit.Await(t, "its pull has ended", func() bool { return p.node.gate.Figures().Pulls == 0 })
	if n := p.node.gate.Figures().Connections; n > files {
		t.Fatalf("%d connections of %d", n, files)
	}
	last := conns[many-2] // it has sent nothing
	fmt.Fprintf(last, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(last), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the youngest connection got no answer: %v", err)
	}
	for i, c := range append([]net.Conn{used}, conns[:many-files]...) {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		// A reset is fine if half a header was on its way.
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("connection %d was not closed in order: %v", i, err)
		}
	}
}

func TestNewConnectionsWaitWhenAllArePulls(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	up := upstreamtest.New(t)
	content := random(1, 1<<20)
	d := up.PutBlob(repo, content)
	release := halve(up, d.String(), 1<<20)
	p := served(t, up, settings{}, gate.Limits{Files: 4, Pulls: 8, Waiting: 8}) // enough for one connection and its pull
	pull := p.send(http.MethodGet, blobPath(d))
	q := *p
	q.client = newClient(t)
	got := make(chan error, 1)
	go func() {
		resp, err := q.try(http.MethodGet, "/v2/")
		if err == nil {
			err = read(resp).err
		}
		got <- err
	}()
	release()
	if a := read(pull); len(a.body) != len(content) {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestSlowReadersLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(1, 12<<20) // more than the sockets' buffers hold
	d := up.PutBlob(repo, content)
	p := served(t, up, settings{top: "trusted_proxies: [127.0.0.0/8]"}, gate.Limits{Files: 18000, Pulls: 20, Waiting: 4500})
	p.get(blobPath(d)).want(t, 200)
	for range 100 {
		c := p.dial()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", blobPath(d))
	}
	for f := p.node.gate.Figures(); f.Pulls != 16 || f.Waiting != 84; f = p.node.gate.Figures() {
		p.get("/v2/").want(t, 200) // until the pulls hold all that one client may, and the rest wait
	}
	for i := range 4 {
		a := p.get(blobPath(d), "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", 2+i))
		if a.want(t, 200); len(a.body) != len(content) {
			t.Errorf("%d bytes, %v", len(a.body), a.err)
		}
	}
}

func TestBusyAnswersSuitTheClient(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := served(t, up, settings{top: "queue_timeout: 0s"}, gate.Limits{Files: 18000, Pulls: 0, Waiting: 4500})
	for agent, status := range map[string]int{
		"docker/20.10.24 go/go1.19": 503, "": 503, "curl/8": 503, "containerd/1.6.20": 429, "skopeo/1.9.3": 429,
		"containers/5.24.1 (github.com/containers/image)": 429, "Buildah/1.28": 429, "cri-o/1.30": 429, "libpod/4.3.1": 429,
	} {
		t.Run(agent, func(t *testing.T) {
			t.Parallel()
			code := "UNAVAILABLE"
			if status == 429 {
				testkit.SkipShort(t) // the answer is delayed; node/gate tests this in virtual time
				code = "TOOMANYREQUESTS"
			}
			q := *p
			q.t = t
			a := q.get("/v2/"+repo+"/manifests/v1", "User-Agent", agent)
			if dt := a.wantError(t, status, code); dt.RetryAfter != 10 || a.Header.Get("Retry-After") != "10" {
				t.Errorf("%+v %v", dt, a.Header)
			}
		})
	}
	p.get("/v2/").want(t, 200) // this request needs no turn
	p.get("/_/health").want(t, 200)
}

// pipes is a listener without a network, so that time can be virtual.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }
func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// Requests that are never complete, and connections that never send anything, end.
func TestHalfRequestsEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sent string
		within     time.Duration
	}{
		{"nothing at all", "", headerTime},
		{"half a request line", "GET /v2", headerTime},
		{"half a header", "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-A:", headerTime},
		{"an answered request, and half a second", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nGET /", headerTime},
		{"an answered request", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", idleTime},
		{"half a body of a pull", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", headerTime + time.Second},
		{"half a chunk of a pull", "GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", headerTime + time.Second},
		{"half a body of a push", "PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", headerTime + time.Second},
		{"half a body of a leave", "POST /_/leave HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc", headerTime + time.Second},
		{"half a body of nothing", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc", headerTime + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				n, _ := newNodeOf(t, fmt.Sprintf("defaults: {cache_dir: %q}", dir))
				l, srv := newPipes(), n.server()
				over := make(chan error, 1)
				go func() { over <- srv.Serve(l) }()
				conn := l.dial()
				start := time.Now()
				go func() { _, _ = io.WriteString(conn, c.sent) }() // the node may hang up first
				_, err := io.Copy(io.Discard, conn)
				if took := time.Since(start); err != nil || took > c.within {
					t.Errorf("closed after %s, %v; want %s at most", took, err, c.within)
				}
				_ = srv.Close()
				<-over
				if err := n.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestARequestThatReadsHasNoBody(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	for _, path := range []string{"/v2/", "/v2/a/b/manifests/c", "/_/stats", "/"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		a := read(resp)
		if a.wantError(t, http.StatusBadRequest, "UNSUPPORTED"); !a.Close {
			t.Errorf("%s: the connection stays open", path)
		}
	}
}
