package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer"
	"oci-proxy/transfer/egress"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/mirrors"
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

// A rig is a fetcher with a store of its own, the real upstream client and a
// registry that misbehaves on request.
type rig struct {
	*transfer.Fetcher
	t        testing.TB
	registry *upstreamtest.Registry
	out      oci.Upstream // this node's own way out, for other nodes
	store    *grants.Shard
	dir      string // of the store
	events   *events
}

// A setup says what a rig is made of. The zero value is valid.
type setup struct {
	dir        string // of the store; "": a new one
	cache      cache.Options
	stall      time.Duration
	policy     grants.Site
	private    func(registry string) bool // nil: none is
	passOn     bool                       // redirects go to the client
	registry   *upstreamtest.Registry     // nil: a new one with options
	options    []upstreamtest.Option
	registries []*upstreamtest.Registry // more of them
	mesh       mesh.Router              // nil: the rig is on its own
	look       time.Duration
	proxy      *url.URL         // to the registries
	noEgress   bool             // it never asks them itself
	mirrors    []mirrors.Mirror // of the registry
}

// newRig builds a rig, and takes it down with the test.
func newRig(t testing.TB, s setup) *rig {
	t.Helper()
	if s.registry == nil {
		s.registry = upstreamtest.New(t, s.options...)
	}
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	events := newEvents()
	log := slog.New(events)
	var known []upstream.Registry
	for _, r := range append(s.registries, s.registry) {
		known = append(known, upstream.Registry{Host: r.Host(), Configured: true, Insecure: true, FollowRedirects: !s.passOn, Proxy: s.proxy})
	}
	client, err := upstream.New(known, upstream.Registry{}, log)
	if err != nil {
		t.Fatal(err)
	}
	source := oci.Upstream(client)
	if s.mirrors != nil {
		m := mirrors.New(mirrors.Config{Upstream: client, Of: map[string][]mirrors.Mirror{s.registry.Host(): s.mirrors}, Log: log})
		t.Cleanup(m.Close)
		source, s.policy.Mirrored = m, true
	}
	store := grants.OpenShard(s.dir, s.cache)
	way := egress.New(egress.Config{Upstream: source, Own: !s.noEgress, Relays: relays(s.mesh), PassOn: func(string) bool { return s.passOn }, Ways: egress.NewWays(), Look: s.look, Log: log})
	r := &rig{t: t, registry: s.registry, store: store, dir: s.dir, events: events, Fetcher: transfer.New(transfer.Config{
		Upstream: way, Log: log, Stall: s.stall, Mesh: s.mesh, Look: s.look,
		Site: func(registry string) grants.Site {
			p := s.policy
			p.Private = s.private != nil && s.private(registry)
			return withShard(p, store)
		},
	})}
	if !s.noEgress {
		r.out = way.Out(r.Came)
	}
	t.Cleanup(client.Close)
	t.Cleanup(way.Close)
	t.Cleanup(r.end)
	return r
}

// relays lists the other nodes of a mesh, as those that ask registries for this one.
func relays(router mesh.Router) func(string, string) []mesh.Relayer {
	return func(string, string) (out []mesh.Relayer) {
		if router == nil {
			return nil
		}
		for _, p := range router.Members() {
			if r, ok := p.(mesh.Relayer); ok {
				out = append(out, r)
			}
		}
		return out
	}
}

// withShard returns the site of a registry whose content is in that shard.
func withShard(s grants.Site, shard *grants.Shard) grants.Site {
	s.Shard = shard
	return s
}

// end takes the rig down. It may be called more than once.
func (r *rig) end() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.Close(ctx)
	_ = r.store.Close() // it may be closed already
}

// ref names a blob or a manifest by digest.
func (r *rig) ref(d digest.Digest) oci.Ref {
	return oci.Ref{Registry: r.registry.Host(), Repository: repo, Digest: d}
}

// tag names a manifest by tag.
func (r *rig) tag(tag string) oci.Ref {
	return oci.Ref{Registry: r.registry.Host(), Repository: repo, Tag: tag}
}

// pull gets the bytes [off, off+n) of a blob, n < 0 for all that follow, and
// compares them with content, the whole blob. It returns how many bytes came.
// Wrong bytes are an error.
func (r *rig) pull(ref oci.Ref, content []byte, off, n int64) (int64, oci.Provenance, error) {
	a, err := r.Blob(context.Background(), ref)
	if err != nil {
		return 0, oci.Provenance{}, err
	}
	want := content[off:]
	if n >= 0 {
		want = want[:n]
	}
	c := &checker{left: want}
	k, err := a.Send(context.Background(), c, off, n)
	if err == nil && len(c.left) > 0 {
		err = fmt.Errorf("%d bytes are missing", len(c.left))
	}
	if k != int64(len(want)-len(c.left)) {
		err = errors.Join(err, fmt.Errorf("Send says %d bytes, but %d were written", k, len(want)-len(c.left)))
	}
	return k, a.Provenance, errors.Join(err, a.Close())
}

// errWrong is a checker's error for wrong bytes.
var errWrong = errors.New("wrong bytes")

// A checker is a client that compares what comes, and keeps none of it.
type checker struct{ left []byte }

func (c *checker) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(c.left, p) {
		return 0, fmt.Errorf("%w: %d bytes, %d before the end", errWrong, len(p), len(c.left))
	}
	c.left = c.left[len(p):]
	return len(p), nil
}

// mustPull pulls the whole blob and fails the test unless it is content.
func (r *rig) mustPull(ref oci.Ref, content []byte, from oci.Origin) {
	r.t.Helper()
	n, way, err := r.pull(ref, content, 0, -1)
	if err != nil {
		r.t.Errorf("pulled %d of %d bytes: %v", n, len(content), err)
	}
	if way.Origin != from {
		r.t.Errorf("the blob came as a %v, want a %v", way.Origin, from)
	}
}

// gets returns how many GETs of a blob or manifest have reached the registry itself.
func (r *rig) gets(d digest.Digest) int { return r.registry.Count("GET", "/"+d.String()) }

// wantGets fails the test unless there were n.
func (r *rig) wantGets(d digest.Digest, n int) {
	r.t.Helper()
	if got := r.gets(d); got != n {
		r.t.Errorf("%d GETs reached the registry, want %d", got, n)
	}
}

// put stores a random blob in the registry and returns its bytes.
func (r *rig) put(seed uint64, size int64) (digest.Digest, []byte) {
	content := random(seed, size)
	return r.registry.PutBlob(repo, content), content
}

// random returns bytes that depend on seed alone.
func random(seed uint64, size int64) []byte { return upstreamtest.RandomBytes(seed, size) }

// wantKind fails the test unless err is an *Error of that kind.
func wantKind(t testing.TB, err error, kind oci.Kind) *oci.Error {
	t.Helper()
	e, ok := errors.AsType[*oci.Error](err)
	if !ok {
		t.Fatalf("error %v (%T), want a *transfer.Error", err, err)
	}
	if e.Kind != kind {
		t.Errorf("error %v of kind %v, want %v", e, e.Kind, kind)
	}
	return e
}

// events collects the messages of a log, for tests that wait for one.
type events struct {
	mu   *sync.Mutex
	all  *[]string
	more *sync.Cond
}

func newEvents() *events {
	mu := new(sync.Mutex)
	return &events{mu: mu, all: new([]string), more: sync.NewCond(mu)}
}

func (e *events) Enabled(context.Context, slog.Level) bool { return true }
func (e *events) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e *events) WithGroup(string) slog.Handler            { return e }

func (e *events) Handle(_ context.Context, rec slog.Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	line := rec.Message
	rec.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	*e.all = append(*e.all, line)
	e.more.Broadcast()
	return nil
}

// await waits until message has been logged n times in all.
func (e *events) await(message string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.count(message) < n {
		e.more.Wait()
	}
}

func (e *events) count(message string) (n int) {
	for _, m := range *e.all {
		if strings.HasPrefix(m, message) {
			n++
		}
	}
	return n
}

// text returns all that was logged.
func (e *events) text() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(*e.all, "\n")
}

// Messages that the tests wait for.
const (
	filled    = "blob filled"
	notFilled = "blob not filled"
)

// A client is a response that stops at each of its limits. A send to open lets it go on
// to the next limit, closing open lets it go on to the end.
type client struct {
	bytes.Buffer
	rig     *rig
	answer  *transfer.Answer
	limits  []int         // in bytes, rising
	reached chan struct{} // tells of each limit
	open    chan struct{}
	ended   chan error // tells how Send ended
}

// begin opens a blob for a client.
func (r *rig) begin(d digest.Digest, limits ...int) *client {
	r.t.Helper()
	a, err := r.Blob(r.t.Context(), r.ref(d))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = a.Close() }) // only read
	return &client{
		rig: r, answer: a, limits: limits,
		reached: make(chan struct{}, len(limits)), open: make(chan struct{}), ended: make(chan error, 1),
	}
}

// send sends the bytes from off on.
func (c *client) send(off int64) {
	go func() {
		_, err := c.answer.Send(c.rig.t.Context(), c, off, -1)
		c.ended <- err
	}()
}

// Write implements io.Writer.
func (c *client) Write(p []byte) (int, error) {
	n, err := c.Buffer.Write(p)
	for len(c.limits) > 0 && c.Len() >= c.limits[0] {
		c.limits = c.limits[1:]
		c.reached <- struct{}{}
		<-c.open
	}
	return n, err
}

// ReadFrom hides the method of bytes.Buffer, which would not stop at a limit.
func (c *client) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

// each runs fn n times at the same time and waits for all.
func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// ranges returns the offsets at which upstream was asked to begin, in order.
func (r *rig) ranges(d digest.Digest) []string {
	var out []string
	for _, q := range r.registry.Requests() {
		if q.Method == "GET" && strings.Contains(q.Path, d.Encoded()) {
			out = append(out, q.Header.Get("Range"))
		}
	}
	return slices.Clip(out)
}
