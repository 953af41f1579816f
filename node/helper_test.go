package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/journal"
	"oci-proxy/node/reply"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// TestMain makes the tests' own CA the only trusted one, and their own DNS the only
// place where names are looked up.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "oci-proxy-ca")
	if err == nil {
		err = trustAuthority(dir)
	}
	if err != nil {
		panic(err)
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: dns.dial}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		_ = os.Unsetenv(name)
	}
	testkit.Main(tidy{m, dir}) // it waits for memberlist's last probes, which end within 8 s
}

// A tidy run removes the directory of the whole package.
type tidy struct {
	*testing.M
	dir string
}

func (r tidy) Run() int {
	defer func() { _ = os.RemoveAll(r.dir) }()
	return r.M.Run()
}

// patience bounds how long a test waits for something.
const patience = testkit.Patience

// settings are the parts of a config that a test chooses.
type settings struct {
	top      string // lines at the top level
	registry string // members of upstream's flow mapping, for example "tag_ttl: 1h, alias: [up]"
	more     string // further registries, one on each line
	dir      string // the cache directory; "": a new one
	defaults string // members of defaults

	proxyPassword string // of a world's proxy; "": any
}

// newNode builds a node in front of up. The caller closes it.
func newNode(t testing.TB, up *upstreamtest.Registry, s settings) (*Node, *testkit.Log) {
	t.Helper()
	return newNodeOf(t, s.text(t, up))
}

// text returns the config of a node in front of up.
func (s settings) text(t testing.TB, up *upstreamtest.Registry) string {
	t.Helper()
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	if s.registry != "" {
		s.registry = ", " + s.registry
	}
	if s.defaults != "" {
		s.defaults = ", " + s.defaults
	}
	return fmt.Sprintf("log_level: debug\ndefault_registry: %q\n%s\ndefaults: {cache_dir: %q%s}\nregistries:\n  %q: {insecure: true%s}\n%s\n",
		up.Host(), s.top, s.dir, s.defaults, up.Host(), s.registry, s.more)
}

// newNodeOf builds a node of a config. The caller closes it.
func newNodeOf(t testing.TB, text string) (*Node, *testkit.Log) {
	t.Helper()
	return buildNode(t, text, seams{})
}

// buildNode builds a node of a config, with seams. The caller closes it.
func buildNode(t testing.TB, text string, test seams) (*Node, *testkit.Log) {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatalf("the test's config:\n%s\n%v", text, err)
	}
	log := new(testkit.Log)
	n, err := build(cfg, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: cfg.LogLevel})), test)
	if err != nil {
		t.Fatal(err)
	}
	return n, log
}

// A proxy is a node that serves.
type proxy struct {
	t      testing.TB
	node   *Node
	up     *upstreamtest.Registry
	log    *testkit.Log
	url    string
	client *http.Client
	sent   *atomic.Int64 // requests
	close  func()        // ends it before the test ends
}

// newProxy serves a node in front of up until the test ends.
func newProxy(t testing.TB, up *upstreamtest.Registry, s settings) *proxy {
	t.Helper()
	return newProxyOf(t, up, s, seams{})
}

// newProxyOf is newProxy with seams.
func newProxyOf(t testing.TB, up *upstreamtest.Registry, s settings, test seams) *proxy {
	t.Helper()
	n, log := buildNode(t, s.text(t, up), test)
	p := serving(t, n, log)
	p.up = up
	return p
}

// serving serves a node until the test ends.
func serving(t testing.TB, n *Node, log *testkit.Log) *proxy {
	t.Helper()
	n.ready.Store(true)
	srv, own := httptest.NewUnstartedServer(nil), n.server()
	srv.Config, srv.Listener = own.Server, own.lane.Listener(srv.Listener)
	srv.Start()
	client := newClient(t)
	end := sync.OnceFunc(func() {
		client.CloseIdleConnections()
		srv.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := n.Close(ctx); err != nil {
			t.Errorf("closing the node: %v", err)
		}
		wantSchema(t, log)
	})
	t.Cleanup(end)
	return &proxy{t: t, node: n, log: log, url: srv.URL, client: client, sent: new(atomic.Int64), close: end}
}

// wantSchema fails the test unless each line of the log is of the schema that the
// documentation promises.
func wantSchema(t testing.TB, log *testkit.Log) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		if err := journal.Check([]byte(line)); err != nil {
			t.Errorf("the log: %v in %s", err, line)
		}
	}
}

// newClient returns a client that changes nothing of an answer.
func newClient(t testing.TB) *http.Client {
	c := &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// An answer is a response whose body has been read.
type answer struct {
	*http.Response
	body []byte
	err  error // of reading the body
}

// send sends a request. header holds names and values in turn.
func (p *proxy) send(method, path string, header ...string) *http.Response {
	p.t.Helper()
	resp, err := p.try(method, path, header...)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp
}

// try is send for goroutines other than the test's.
func (p *proxy) try(method, path string, header ...string) (*http.Response, error) {
	req, err := http.NewRequest(method, p.url+path, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := p.client.Do(req)
	if err == nil {
		p.sent.Add(1)
	}
	return resp, err
}

// do sends a request and reads the answer.
func (p *proxy) do(method, path string, header ...string) answer {
	p.t.Helper()
	return read(p.send(method, path, header...))
}

func (p *proxy) get(path string, header ...string) answer {
	p.t.Helper()
	return p.do(http.MethodGet, path, header...)
}

// read reads an answer to its end.
func read(resp *http.Response) answer {
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(resp.Body)
	return answer{resp, body, err}
}

// want fails the test unless the answer has this status and these headers
// (names and values in turn; "" for a header that must be missing).
func (a answer) want(t testing.TB, status int, header ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("%s %s: status %d, want %d; body %.300q", a.Request.Method, a.Request.URL, a.StatusCode, status, a.body)
	}
	for i := 0; i < len(header); i += 2 {
		if got := strings.Join(a.Header.Values(header[i]), " | "); got != header[i+1] {
			t.Errorf("%s %s: %s is %q, want %q", a.Request.Method, a.Request.URL, header[i], got, header[i+1])
		}
	}
}

// wantError fails the test unless the answer is one OCI error of this status
// and code, and returns its detail.
func (a answer) wantError(t testing.TB, status int, code string) reply.Detail {
	t.Helper()
	a.want(t, status, "Content-Type", "application/json")
	var body struct {
		Errors []struct {
			Code, Message string
			Detail        *reply.Detail
		}
	}
	if err := json.Unmarshal(a.body, &body); err != nil || len(body.Errors) != 1 {
		t.Fatalf("%s %s: %q is not an OCI error: %v", a.Request.Method, a.Request.URL, a.body, err)
	}
	e := body.Errors[0]
	if e.Code != code || e.Message == "" {
		t.Errorf("%s %s: code %q with message %q, want %s", a.Request.Method, a.Request.URL, e.Code, e.Message, code)
	}
	if e.Detail == nil {
		return reply.Detail{}
	}
	return *e.Detail
}

// settle waits until the node is done with every request that was sent: it logs and
// counts after it has answered.
func (p *proxy) settle() {
	p.t.Helper()
	p.log.Await(p.t, `"msg":"request"`, int(p.sent.Load()))
}

// stats returns the node's figures once it is done with all requests.
func (p *proxy) stats(header ...string) map[string]map[string]int64 {
	p.t.Helper()
	p.settle()
	a := p.get("/_/stats", header...)
	a.want(p.t, http.StatusOK, "Content-Type", "application/json", "X-Cluster-Nodes", "1/1")
	var out map[string]map[string]int64
	if err := json.Unmarshal(a.body, &out); err != nil {
		p.t.Fatalf("stats: %v in %s", err, a.body)
	}
	return out
}

// line returns the last line of the log about a request that contains word.
func (p *proxy) line(word string) map[string]any {
	p.t.Helper()
	p.settle()
	for _, l := range slices.Backward(strings.Split(strings.TrimSpace(p.log.String()), "\n")) {
		var line map[string]any
		if err := json.Unmarshal([]byte(l), &line); err != nil {
			p.t.Fatalf("a line of the log is not JSON: %q", l)
		}
		if line["msg"] == "request" && strings.Contains(l, word) {
			return line
		}
	}
	p.t.Fatalf("the log has no line with %s:\n%s", word, p.log.String())
	return nil
}

// halve makes upstream stop once in the middle of the blob whose path contains part,
// until release is called.
func halve(up *upstreamtest.Registry, part string, size int64) (release func()) {
	return halved(up, size, upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: part}, Times: 1})
}

// halved is halve with another fault added.
func halved(up *upstreamtest.Registry, size int64, f upstreamtest.Fault) (release func()) {
	rest := make(chan struct{})
	f.Stall, f.StallAfter, f.StallUntil = true, size/2, rest
	up.Fault(f)
	return sync.OnceFunc(func() { close(rest) })
}

// random returns size bytes that depend only on seed.
func random(seed uint64, size int64) []byte { return upstreamtest.RandomBytes(seed, size) }

// dial opens a raw connection to the proxy.
func (p *proxy) dial() *net.TCPConn {
	p.t.Helper()
	addr, err := netip.ParseAddrPort(strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() }) // mostly closed before
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	return c
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse("http://x" + s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
