package peer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstream"
	"oci-proxy/transfer/upstreamtest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	kib = 1 << 10
	mib = 1 << 20

	repo = "team/app"
)

var (
	secret = []byte("a secret of this test's cluster")
	nonceA = []byte("boot of a")
	nonceB = []byte("boot of b")
)

// members stand in for gossip.
type members struct {
	mu sync.Mutex
	m  map[string]Member
}

func (g *members) get(id string) (Member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.m[id]
	return m, ok
}

// put adds or changes a member.
func (g *members) put(m Member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.m[m.ID] = m
}

// drop takes a member out.
func (g *members) drop(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.m, id)
}

// newMembers returns the members a, which asks, and b at addr.
func newMembers(addr string) *members {
	return &members{m: map[string]Member{
		"a": {ID: "a", Name: "node-a", Addr: "127.0.0.1:1", Nonce: nonceA},
		"b": {ID: "b", Name: "node-b", Addr: addr, Nonce: nonceB, Boot: 7},
	}}
}

// A setup says what a rig is made of. Its zero value is a plain HTTP peer.
type setup struct {
	tls          bool
	passOn       bool // redirects go to the client
	options      []upstreamtest.Option
	site         grants.Site
	upstream     oci.Upstream // nil: the real one
	listener     func(net.Listener) net.Listener
	peer         func(id string) (mesh.Peer, func())
	out          bool // b lends its way out
	relays       func(registry string) bool
	way          func(registry string) mesh.Way
	pause        func(registry string, d time.Duration)
	refuses      func(user oci.User, ref oci.Ref) error
	keeper       Keeper
	examine      func(ctx context.Context, question []byte) (any, error)
	certificates func(ctx context.Context, sender string, question []byte) (any, error)
	directory    func(sender string, message []byte) (bool, error)
}

// A rig is a complete node b and the client of a node a.
type rig struct {
	*Client
	b        mesh.Peer
	t        testing.TB
	registry *upstreamtest.Registry
	upstream oci.Upstream // of b
	fetcher  *transfer.Fetcher
	server   *Server
	members  *members
	addr     string
}

// newRig builds a rig and takes it down with the test.
func newRig(t testing.TB, s setup) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := &rig{t: t, registry: upstreamtest.New(t, s.options...)}
	up, err := upstream.New([]upstream.Registry{{Host: r.registry.Host(), Configured: true, Insecure: true, FollowRedirects: !s.passOn}}, upstream.Registry{}, log)
	if err != nil {
		t.Fatal(err)
	}
	if s.upstream == nil {
		s.upstream = up
	}
	r.upstream = s.upstream
	s.site.Shard = grants.OpenShard(t.TempDir(), cache.Options{})
	r.fetcher = transfer.New(transfer.Config{
		Upstream: s.upstream, Log: log,
		Site: func(string) grants.Site { return s.site },
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r.fetcher.Close(ctx)
		up.Close()
		_ = s.site.Shard.Close()
	})
	l := listen(t)
	r.addr, r.members = l.Addr().String(), newMembers(l.Addr().String())
	if s.peer == nil {
		s.peer = func(string) (mesh.Peer, func()) { return nil, func() {} }
	}
	var out oci.Upstream
	if s.out {
		out = s.upstream
	}
	r.server = NewServer(ServerConfig{
		Out: out, Relays: s.relays, Way: s.way, Refuses: s.refuses,
		Name: "node-b", Nonce: nonceB, Keys: [][]byte{secret}, Member: r.members.get, Holder: r.fetcher.Holder(),
		Peer: s.peer, Pause: s.pause, Keeper: s.keeper, Examine: s.examine, Certificates: s.certificates, Directory: s.directory, Stats: func() any { return map[string]int{"hits": 7} }, Log: log,
	})
	if s.listener != nil {
		l = s.listener(l)
	}
	r.serve(l, s.tls)
	r.Client = newClient(t, r.members)
	r.b = r.Peer("b")
	return r
}

// serve runs the rig's server on l.
func (r *rig) serve(l net.Listener, secured bool) {
	if !secured {
		serve(r.t, r.server.HTTP(nil), l)
		return
	}
	cert, right, err := NewCertificate()
	if err != nil {
		r.t.Fatal(err)
	}
	m, _ := r.members.get("b")
	m.Fingerprint = right
	r.members.put(m)
	serve(r.t, r.server.HTTP(ServerTLS(cert)), l)
}

// newClient returns the client of node a.
func newClient(t testing.TB, g *members) *Client {
	c := NewClient(ClientConfig{Self: func() string { return "a" }, SelfNonce: nonceA, Keys: [][]byte{secret}, Member: g.get, Log: slog.New(slog.DiscardHandler)})
	c.times.peek, c.times.progress, c.links.handshake = c.times.call, c.times.call, c.times.call // the machine may be busy
	t.Cleanup(c.Close)
	return c
}

// linksOf returns c's links by member.
func linksOf(c *Client) map[string]*link {
	c.links.mu.Lock()
	defer c.links.mu.Unlock()
	return maps.Clone(c.links.byID)
}

// listen returns a listener on a free port.
func listen(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs srv on l until the test ends.
func serve(t testing.TB, srv *http.Server, l net.Listener) {
	var done sync.WaitGroup
	done.Go(func() {
		if srv.TLSConfig != nil {
			_ = srv.ServeTLS(l, "", "")
			return
		}
		_ = srv.Serve(l)
	})
	t.Cleanup(func() {
		_ = srv.Close()
		done.Wait()
	})
}

// certificate returns the certificate that all liars share, and its fingerprint.
var certificate = sync.OnceValues(func() (tls.Certificate, [32]byte) {
	cert, fingerprint, err := NewCertificate()
	if err != nil {
		panic(err)
	}
	return cert, fingerprint
})

// liar starts a member b that answers by answer, and returns a client that asks it. Like
// an older member it does not sign: TLS proves who it is.
func liar(t testing.TB, answer http.HandlerFunc) (*Client, mesh.Peer) {
	cert, fingerprint := certificate()
	return answering(t, answer, ServerTLS(cert), fingerprint)
}

// impostor is liar at b's address without TLS.
func impostor(t testing.TB, answer http.HandlerFunc) (*Client, mesh.Peer) {
	return answering(t, answer, nil, [32]byte{})
}

// answering serves answer at b's address, and returns a client that asks b.
func answering(t testing.TB, answer http.Handler, secure *tls.Config, fingerprint [32]byte) (*Client, mesh.Peer) {
	l := listen(t)
	serve(t, &http.Server{Handler: answer, TLSConfig: secure, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}, l)
	g := newMembers(l.Addr().String())
	m, _ := g.get("b")
	m.Fingerprint = fingerprint
	g.put(m)
	c := newClient(t, g)
	return c, c.Peer("b")
}

// ref names a blob or a manifest by digest.
func (r *rig) ref(d digest.Digest) oci.Ref {
	return oci.Ref{Registry: r.registry.Host(), Repository: repo, Digest: d}
}

// somewhere is a ref for peers that ignore it.
var somewhere = oci.Ref{Registry: "registry.example.com", Repository: repo, Digest: digest.FromString("x")}

// pull reads a blob to its end.
func pull(ctx context.Context, p mesh.Peer, ref oci.Ref, off int64, held bool) ([]byte, *oci.Stream, error) {
	s, err := p.Open(ctx, ref, off, mesh.Terms{Held: held})
	if err != nil || s.Redirect != "" {
		return nil, s, err
	}
	b, err := io.ReadAll(s.Body)
	return b, s, errors.Join(err, s.Body.Close())
}

// wantPeerError fails the test unless err is the peer's own and contains part.
func wantPeerError(t testing.TB, err error, part string) *mesh.PeerError {
	t.Helper()
	e, ok := errors.AsType[*mesh.PeerError](err)
	if !ok {
		t.Fatalf("error %v (%T), want a *mesh.PeerError", err, err)
	}
	if e.Peer != "node-b" || !strings.Contains(e.Error(), part) {
		t.Errorf("error %q, want one of node-b with %q", e, part)
	}
	if len(e.Error()) > 4*kib {
		t.Errorf("an error of %d bytes", len(e.Error()))
	}
	return e
}

// wantError fails the test unless err is the registry's and of that kind.
func wantError(t testing.TB, err error, kind oci.Kind) *oci.Error {
	t.Helper()
	e, ok := errors.AsType[*oci.Error](err)
	if !ok {
		t.Fatalf("error %v (%T), want a *oci.Error", err, err)
	}
	if e.Kind != kind {
		t.Errorf("error %v of kind %v, want %v", e, e.Kind, kind)
	}
	return e
}

// random returns a blob's bytes.
func random(seed uint64, size int64) []byte { return upstreamtest.RandomBytes(seed, size) }

// A raw request is sent exactly as it stands, so that a test can change any of it.
type raw struct {
	statement
	key    []byte
	proto  string
	header []string // further lines
	auth   string   // the signature, right or not
}

// good returns a request that b answers once it is signed.
func good(number uint64) raw {
	return raw{key: secret, proto: "HTTP/1.1", statement: statement{
		receiver: nonceB, sender: "a", nonce: nonceA, number: number, method: "GET", path: root + "ping",
	}}
}

// signed signs the request in its present form.
func (q raw) signed() raw {
	var k keys
	k.set([][]byte{q.key})
	q.auth = auth{q.sender, q.number, q.sign(k.all()[0])}.String()
	return q
}

// text is the request as it is sent.
func (q raw) text() string {
	target := q.path
	if q.query != "" {
		target += "?" + q.query
	}
	s := fmt.Sprintf("%s %s %s\r\nHost: peer\r\n", q.method, target, q.proto)
	if q.auth != "" {
		s += headerAuth + ": " + q.auth + "\r\n"
	}
	if q.span != "" {
		s += "Range: " + q.span + "\r\n"
	}
	if len(q.body) > 0 {
		s += fmt.Sprintf("Content-Length: %d\r\n", len(q.body))
	}
	for _, h := range q.header {
		s += h + "\r\n"
	}
	return s + "\r\n" + string(q.body)
}

// roundTrip sends text to addr and returns the first answer as it came.
func roundTrip(t testing.TB, addr, text, method string) (string, *http.Response) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c, &seen)), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return seen.String(), resp
}
