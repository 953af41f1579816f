package transfer_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A meshRig is a cluster of rigs in front of one registry. They ask each other by
// function calls, so that a test can put a fault anywhere. Each has its own view of
// which node leads.
type meshRig struct {
	t        testing.TB
	registry *upstreamtest.Registry
	nodes    []*meshNode
}

// A meshNode is one node of a meshRig.
type meshNode struct {
	*rig
	mesh    *meshRig
	id      int
	view    atomic.Pointer[view]
	policy  grants.Site           // of a fakeMesh's node
	disk    atomic.Int64          // nanoseconds that its disk takes to reserve bytes
	stall   atomic.Pointer[stall] // of its disk
	fails   atomic.Pointer[fault] // of requests to this node
	faulted atomic.Int64          // how often others called it faulty
	asked   atomic.Int64          // how often others asked it for a tag
	wide    bool                  // it peeks at all others, as in small clusters
	lag     func() time.Duration  // how long a peek takes on its way there, and the answer back; nil: no time
	sent    atomic.Int64          // bytes of blobs that it sent to others
	old     bool                  // it knows nothing of feeding
}

// A view is what a node knows of the ring. Nodes by number.
type view struct {
	route   func(key string) []int // this node included
	holders []int
}

// routes gives the node another route; holds other holders; sees both. Downloads may be under way.
func (n *meshNode) routes(route func(key string) []int) { n.sees(route, n.known().holders) }
func (n *meshNode) holds(holders []int)                 { n.sees(n.known().route, holders) }
func (n *meshNode) sees(route func(key string) []int, holders []int) {
	n.view.Store(&view{route, holders})
}

// known is what the node knows now.
func (n *meshNode) known() view {
	if v := n.view.Load(); v != nil {
		return *v
	}
	return view{}
}

// A fault says how a node treats requests of others.
type fault struct {
	dead  bool
	hung  bool          // the node gives no sign of life
	after int64         // bytes of a blob that it sends first; then the stream is cut, or stalls if hung
	cut   bool          // the node is dead after the cut
	every time.Duration // the pause between pieces of 4 KiB: the node crawls
	once  *atomic.Bool  // not nil: only the first stream is like that; whether it has begun
	wrong bool          // it sends wrong bytes
	busy  time.Duration // how long it makes others wait for their turn
}

// newMesh builds a mesh in which each key's route is the nodes in order from 0.
func newMesh(t testing.TB, n int, s setup) *meshRig {
	t.Helper()
	m := &meshRig{t: t, registry: upstreamtest.New(t, s.options...)}
	for i := range n {
		node := &meshNode{mesh: m, id: i}
		node.sees(func(string) []int { return []int{0, 1, 2}[:min(n, 3)] }, nil)
		one := s
		one.registry, one.mesh, one.look = m.registry, node, cmp.Or(s.look, 100*time.Millisecond)
		node.rig = newRig(t, one)
		m.nodes = append(m.nodes, node)
	}
	return m
}

func (n *meshNode) name() string { return fmt.Sprintf("node-%03d", n.id) }

// Self implements transfer.Mesh.
func (n *meshNode) Self() string { return n.name() }

// Route implements transfer.Mesh: nodes that were called faulty are passed
// over, and this node comes last if it is not in the route.
func (n *meshNode) Route(_, key string) []mesh.Peer {
	var out []mesh.Peer
	route := n.known().route(key)
	for _, i := range route {
		if i == n.id {
			out = append(out, nil)
		} else if n.mesh.nodes[i].faulted.Load() == 0 {
			out = append(out, &fakePeer{n.mesh.nodes[i], n})
		}
	}
	if !slices.Contains(route, n.id) {
		out = append(out, nil)
	}
	return out
}

// Owner implements transfer.Mesh.
func (n *meshNode) Owner(_, key string) mesh.Peer {
	if first := n.known().route(key)[0]; first != n.id {
		return &fakePeer{n.mesh.nodes[first], n}
	}
	return nil
}

// Settle implements transfer.Mesh.
func (n *meshNode) Settle(context.Context) {}

// Holders implements transfer.Mesh.
func (n *meshNode) Holders(_, key string) []mesh.Peer {
	var out []mesh.Peer
	seen := map[int]bool{n.id: true}
	now := n.known()
	all := append(slices.Clone(now.route(key)), now.holders...)
	if n.wide {
		for i := range n.mesh.nodes {
			all = append(all, i)
		}
	}
	for _, i := range all {
		if !seen[i] && (n.wide || n.mesh.nodes[i].faulted.Load() == 0) {
			seen[i] = true
			out = append(out, &fakePeer{n.mesh.nodes[i], n})
		}
	}
	return out
}

// Peer implements transfer.Mesh.
func (n *meshNode) Peer(id string) mesh.Peer {
	for _, other := range n.mesh.nodes {
		if other.name() == id && other != n {
			return &fakePeer{other, n}
		}
	}
	return nil
}

// Members implements transfer.Mesh.
func (n *meshNode) Members() []mesh.Peer {
	var out []mesh.Peer
	for _, other := range n.mesh.nodes {
		if other != n {
			out = append(out, &fakePeer{other, n})
		}
	}
	return out
}

// A fakePeer is a node as another node sees it.
type fakePeer struct {
	node *meshNode
	from *meshNode
}

func (p *fakePeer) ID() string   { return p.node.name() }
func (p *fakePeer) Name() string { return p.node.name() }

// Fault implements transfer.Peer.
func (p *fakePeer) Fault(error) { p.node.faulted.Add(1) }

// errDead is a refused connection.
var errDead = errors.New("connection refused")

// reach fails if the node can't be asked; a hung one answers when ctx ends.
func (p *fakePeer) reach(ctx context.Context) error {
	f := p.node.fails.Load()
	switch {
	case f == nil:
		return nil
	case f.dead:
		return &mesh.PeerError{Peer: p.Name(), Err: errDead}
	case f.hung && f.after == 0:
		<-ctx.Done()
		return &mesh.PeerError{Peer: p.Name(), Err: ctx.Err()}
	}
	return nil
}

// Open implements transfer.Peer.
func (p *fakePeer) Open(ctx context.Context, ref oci.Ref, offset int64, terms mesh.Terms) (*oci.Stream, error) {
	if err := p.reach(ctx); err != nil {
		return nil, err
	}
	if f := p.node.fails.Load(); f != nil && f.busy > 0 {
		select {
		case <-time.After(f.busy):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if p.node.old || p.from.old {
		terms.Feed = mesh.Feed{}
	}
	a, err := p.node.Holder().Blob(ctx, ref, terms, p.from.name())
	if err != nil {
		return nil, err
	}
	if a.Feeding.Feeder != "" {
		return &oci.Stream{At: a.At, Feeding: a.Feeding}, a.Close()
	}
	f := p.node.fails.Load()
	if f != nil && f.once != nil && !f.once.CompareAndSwap(false, true) {
		f = nil
	}
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
	go func() {
		n := int64(-1)
		if terms.Part.Length > 0 {
			n = terms.Part.Length
		}
		_, err := a.Send(ctx, &faulty{w: w, f: f, node: p.node, ctx: ctx}, offset, n)
		if err != nil {
			err = io.ErrUnexpectedEOF // a stream that is cut does not say why
		}
		_ = w.CloseWithError(err)
		_ = a.Close()
	}()
	return &oci.Stream{
		Body: r, Offset: offset, Size: a.Size(), Host: p.Name(), Via: a.CacheStatus(p.Name(), false), At: a.At,
		Hit: a.Origin != oci.Miss, Redirect: a.Redirect, Feeding: a.Feeding,
	}, nil
}

// A faulty is a stream with a fault.
type faulty struct {
	w    io.Writer
	f    *fault
	node *meshNode
	ctx  context.Context
	sent int64
}

func (w *faulty) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		piece := b[n:]
		switch {
		case w.f == nil:
		case w.f.after > 0 && w.sent >= w.f.after && w.f.hung:
			<-w.ctx.Done()
			return n, w.ctx.Err()
		case w.f.after > 0 && w.sent >= w.f.after && w.f.cut:
			w.node.fails.Store(&fault{dead: true})
			return n, io.ErrUnexpectedEOF
		case w.f.after > 0:
			piece = piece[:min(int64(len(piece)), max(1, w.f.after-w.sent))]
		case w.f.every > 0:
			select {
			case <-time.After(w.f.every):
			case <-w.ctx.Done():
				return n, w.ctx.Err()
			}
			piece = piece[:min(len(piece), 4<<10)]
		}
		if w.f != nil && w.f.wrong {
			piece = slices.Clone(piece)
			piece[0]++
		}
		k, err := w.w.Write(piece)
		w.node.sent.Add(int64(k))
		n += k
		w.sent += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Peek implements transfer.Peer.
func (p *fakePeer) Peek(ctx context.Context, ref oci.Ref) (mesh.Presence, error) {
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	if err := p.reach(ctx); err != nil {
		return 0, err
	}
	p.travel()
	defer p.travel()
	return p.node.Holder().Presence(ref, p.from.name()), nil
}

// travel takes as long as something takes on its way.
func (p *fakePeer) travel() {
	if p.from.lag != nil {
		<-time.After(p.from.lag())
	}
}

// Progress implements transfer.Peer.
func (p *fakePeer) Progress(ctx context.Context, ref oci.Ref) (mesh.Progress, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if f := p.node.fails.Load(); f != nil && f.hung {
		<-ctx.Done()
		return mesh.Progress{}, ctx.Err()
	}
	return p.node.Holder().Progress(ref), p.reach(ctx)
}

// Report implements transfer.Peer.
func (p *fakePeer) Report(ctx context.Context, ref oci.Ref, how mesh.Report) (mesh.Progress, error) {
	return p.node.Holder().Report(ref, how, p.from.name()), p.reach(ctx)
}

// Stat implements transfer.Peer.
func (p *fakePeer) Stat(ctx context.Context, ref oci.Ref) (int64, oci.Provenance, error) {
	if err := p.reach(ctx); err != nil {
		return 0, oci.Provenance{}, err
	}
	size, way, err := p.node.Holder().Stat(ctx, ref)
	return size, p.told(way), err
}

// told returns a way as the asker sees it.
func (p *fakePeer) told(way oci.Provenance) oci.Provenance {
	out := oci.Provenance{Via: way.CacheStatus(p.Name(), false), Host: p.Name(), Stale: way.Stale, At: way.At}
	if out.At.IsZero() {
		out.At = time.Now()
	}
	if way.Origin != oci.Miss {
		out.Origin = oci.PeerHit
	}
	return out
}

// Tag implements transfer.Peer.
func (p *fakePeer) Tag(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error) {
	if err := p.reach(ctx); err != nil {
		return nil, err
	}
	p.node.asked.Add(1)
	ctx, cancel := context.WithTimeout(ctx, 38*time.Second) // as the peers' port of a node does
	defer cancel()
	found, err := p.node.Holder().Tag(ctx, ref, accept)
	if err != nil {
		return nil, err
	}
	own := *found
	own.Bytes, own.Provenance = nil, p.told(found.Provenance)
	return &own, nil
}

// Manifest implements transfer.Peer.
func (p *fakePeer) Manifest(ctx context.Context, ref oci.Ref, terms mesh.Terms) (*oci.Found, error) {
	if err := p.reach(ctx); err != nil {
		return nil, err
	}
	found, err := p.node.Holder().Manifest(ctx, ref, terms)
	if err != nil {
		return nil, err
	}
	own := *found
	if own.Body != nil { // it goes over the wire
		var b bytes.Buffer
		_, err := own.Send(ctx, &b, 0, own.Size)
		if err = errors.Join(err, own.Close()); err != nil {
			return nil, err
		}
		own.Bytes, own.Body, own.Open = b.Bytes(), nil, nil
	}
	own.Provenance = p.told(found.Provenance)
	if f := p.node.fails.Load(); f != nil && f.wrong {
		own.Bytes = append(slices.Clone(own.Bytes), ' ')
	}
	return &own, nil
}

// List implements transfer.Peer.
func (p *fakePeer) List(ctx context.Context, q oci.Question, kept bool, to oci.Sink) (*oci.Page, oci.Provenance, error) {
	if err := p.reach(ctx); err != nil {
		return nil, oci.Provenance{}, err
	}
	var list *mesh.List
	var err error
	if kept {
		list, err = p.node.Holder().Kept(q)
	} else {
		list, err = p.node.Holder().List(ctx, q)
	}
	if err != nil {
		return nil, oci.Provenance{}, err
	}
	to.Reset()
	return &list.Page, p.told(list.Provenance), errors.Join(list.Send(to), list.Close())
}

// LastWord implements transfer.Peer.
func (p *fakePeer) LastWord(ctx context.Context, q oci.Question) (mesh.Word, error) {
	if err := p.reach(ctx); err != nil {
		return mesh.Word{}, err
	}
	word, known := p.node.Holder().LastWord(q)
	if !known {
		return mesh.Word{}, oci.NotHeldError(q.Ref)
	}
	return word, nil
}

// Offer implements transfer.Peer.
func (p *fakePeer) Offer(ctx context.Context, ref oci.Ref, mediaType string) error {
	if err := p.reach(ctx); err != nil {
		return err
	}
	return p.node.Holder().Take(ctx, &fakePeer{p.from, p.node}, ref, mediaType)
}

// Refused implements transfer.Peer.
func (p *fakePeer) Refused(ctx context.Context, ref oci.Ref) error {
	if err := p.reach(ctx); err != nil {
		return err
	}
	p.node.Holder().Refused(ref)
	return nil
}

// Lost implements transfer.Peer.
func (p *fakePeer) Lost(ctx context.Context, ref oci.Ref, as oci.Resource) error {
	if err := p.reach(ctx); err != nil {
		return err
	}
	p.node.Holder().Lost(ref, as)
	return nil
}

// Told implements transfer.Peer.
func (p *fakePeer) Told(ctx context.Context, q oci.Question) error {
	if err := p.reach(ctx); err != nil {
		return err
	}
	p.node.Holder().Told(&fakePeer{p.from, p.node}, q)
	return nil
}

// put stores a random blob in the registry.
func (m *meshRig) put(seed uint64, size int64) (digest.Digest, []byte) {
	content := random(seed, size)
	return m.registry.PutBlob(repo, content), content
}

// pull pulls a blob through a node and fails the test unless the bytes are right.
func (m *meshRig) pull(i int, d digest.Digest, content []byte) oci.Provenance {
	m.t.Helper()
	n := m.nodes[i]
	_, way, err := n.pull(n.ref(d), content, 0, -1)
	if err != nil {
		m.t.Errorf("through node %d: %v", i, err)
	}
	return way
}

// gets returns how often the registry was asked for the bytes of a blob or manifest.
func (m *meshRig) gets(d digest.Digest) int { return m.registry.Count("GET", "/"+d.String()) }

func TestMeshAsksTheRegistryOnce(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{0, 1000, 3 * mib} {
		m := newMesh(t, 5, setup{})
		d, content := m.put(1, size)
		each(50, func(i int) { m.pull(i%5, d, content) })
		if n := m.gets(d); n != 1 {
			t.Errorf("%d bytes: %d GETs", size, n)
		}
		each(5, func(i int) {
			if way := m.pull(i, d, content); way.Origin != oci.Hit {
				t.Errorf("node %d: %+v", i, way)
			}
		})
	}
}

func TestPeerHitSaysWhoHadIt(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4, setup{})
	d, content := m.put(1, 300_000)
	if way := m.pull(0, d, content); way.Origin != oci.Miss || way.CacheStatus("a", false) != "a; fwd=uri-miss; stored" {
		t.Errorf("%+v %s", way, way.CacheStatus("a", false))
	}
	way := m.pull(3, d, content)
	if got := way.CacheStatus("d", false); way.Origin != oci.PeerHit || got != "node-000; hit, d; fwd=uri-miss; stored" {
		t.Errorf("%+v %s", way, got)
	}
	c := m.nodes[3].Counters()[m.registry.Host()]
	if c.PeerHits.Load() != 1 || c.Misses.Load() != 0 || c.FromPeersBytes.Load() != int64(len(content)) || c.FromUpstreamBytes.Load() != 0 {
		t.Errorf("%+v", c)
	}
	o := m.nodes[0].Counters()[m.registry.Host()]
	if o.ToPeers.Load() != 1 || o.ToPeersBytes.Load() != int64(len(content)) || o.Misses.Load() != 1 {
		t.Errorf("%+v", o)
	}
}

// A pull is complete, however the owner fails.
func TestPullSurvivesItsOwner(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]fault{
		"dead":               {dead: true},
		"hung":               {hung: true},
		"hung in mid-body":   {hung: true, after: 700_000},
		"cut in mid-body":    {cut: true, after: 700_000},
		"crawling":           {every: time.Millisecond * 5},
		"hung at the 1 byte": {hung: true, after: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, content := fakeBlob(12 * mib)
			testkit.Bubble(t, func(t *testing.T, dir string) {
				up := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
					return &oci.Stream{Size: int64(len(content)), Offset: o, Body: endsWith(content[o:], io.EOF)}, nil
				}}
				m := fakeMesh(t, dir, 4, up, grants.Site{})
				defer m.end()
				pull := func(i int) {
					if _, _, err := m.nodes[i].pull(fakeRef(d), content, 0, -1); err != nil {
						t.Errorf("through node %d: %v", i, err)
					}
				}
				for _, n := range m.nodes {
					n.routes(func(string) []int { return []int{0, 1, 2} })
				}
				pull(0) // the owner has it
				m.nodes[0].fails.Store(&f)
				each(6, func(i int) { pull(1 + i%3) })
				if up.opens > 2 {
					t.Errorf("the registry was asked %d times", up.opens)
				}
			})
		})
	}
}

// Each node goes on from the last byte that came. If the stand-in has nothing, the
// registry sends only the rest.
func TestRestComesFromTheRegistryAlone(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 2, setup{})
	m.nodes[1].routes(func(string) []int { return []int{0} })
	d, content := m.put(1, 2*mib)
	m.pull(0, d, content)
	m.nodes[0].fails.Store(&fault{cut: true, after: 1_500_000})
	m.pull(1, d, content)
	got := m.nodes[1].Counters()[m.registry.Host()].FromUpstreamBytes.Load()
	if want := int64(len(content)) - 1_500_000; got > want+cutOff || got == 0 {
		t.Errorf("%d bytes came from the registry, want %d", got, want)
	}
}

// An owner dies while another node follows it, and its stand-in has nothing. The stand-in takes the
// first bytes from the follower, which waits for it meanwhile, and asks the registry for the rest.
func TestAnHeirTakesWhatFollowersHave(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4, setup{})
	for _, n := range m.nodes {
		n.sees(func(string) []int { return []int{0, 1} }, []int{0, 1, 2, 3})
	}
	d, content := m.put(1, 4*mib)
	m.pull(0, d, content)
	m.nodes[0].fails.Store(&fault{cut: true, after: 2_500_000})
	m.pull(2, d, content)
	heir, follower := m.nodes[1].Counters()[m.registry.Host()], m.nodes[2].Counters()[m.registry.Host()]
	if got, want := heir.FromUpstreamBytes.Load(), int64(len(content))-2_500_000; got > want+cutOff || got == 0 {
		t.Errorf("%d bytes came from the registry, want %d", got, want)
	}
	if got := heir.FromPeersBytes.Load() + heir.FromUpstreamBytes.Load(); got != int64(len(content)) {
		t.Errorf("the heir got %d bytes", got)
	}
	if got := follower.FromUpstreamBytes.Load(); got != 0 {
		t.Errorf("the follower asked the registry for %d bytes", got)
	}
	m.pull(3, d, content)
}

// Of a member that is not to be followed others get a part that it has, and no other.
func TestAPartOfWhatArrivesIsGivenAtOnce(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, setup{})
	for _, n := range m.nodes {
		n.sees(func(string) []int { return []int{0} }, nil)
	}
	d, content := m.put(1, 4*mib)
	m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET"}, Stall: true, StallAfter: 2_500_000, Times: 1})
	ctx, end := context.WithCancel(t.Context())
	defer end()
	a, err := m.nodes[1].Blob(ctx, m.nodes[1].ref(d))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Send(ctx, io.Discard, 0, 2_000_000); err != nil { // so much has come
		t.Fatal(err)
	}
	from := &fakePeer{m.nodes[1], m.nodes[2]}
	if at, err := from.Peek(ctx, m.nodes[1].ref(d)); at != mesh.Begun || err != nil {
		t.Errorf("presence %v, %v", at, err)
	}
	if at, err := from.Progress(ctx, m.nodes[1].ref(d)); at.Begun < 2_000_000 || at.Offset != 0 || err != nil {
		t.Errorf("%+v, %v", at, err)
	}
	for _, part := range []oci.Span{{Offset: 0, Length: mib}, {Offset: mib, Length: 900_000}} {
		s, err := from.Open(ctx, m.nodes[1].ref(d), part.Offset, mesh.Terms{Held: true, Part: part})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s.Body); !bytes.Equal(got, content[part.Offset:part.End()]) || err != nil {
			t.Errorf("%+v: %d bytes, %v", part, len(got), err)
		}
	}
	for _, terms := range []mesh.Terms{{Held: true}, {Held: true, Part: oci.Span{Offset: 3 * mib, Length: mib / 2}}} {
		if _, err := from.Open(ctx, m.nodes[1].ref(d), terms.Part.Offset, terms); oci.KindOf(err) != oci.NotFound {
			t.Errorf("%+v: %v", terms, err)
		}
	}
}

// cutOff is how many of the bytes that a node sent may be lost when it dies.
const cutOff = 300_000

func TestLyingPeerIsPassedOver(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, setup{})
	d, content := m.put(1, 50_000) // all of it is held back, so the client does not notice
	m.pull(0, d, content)
	m.nodes[0].fails.Store(&fault{wrong: true})
	m.pull(2, d, content)
	if m.nodes[0].faulted.Load() == 0 {
		t.Error("the peer was not reported")
	}
}

func TestRegistrysWordIsFinal(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4, setup{})
	missing := digest.FromString("missing")
	n := m.nodes[3]
	_, _, err := n.pull(n.ref(missing), nil, 0, -1)
	wantKind(t, err, oci.NotFound)
	if n := m.registry.Count("GET", "/"+missing.String()); n != 1 {
		t.Errorf("%d GETs", n)
	}
	_, err = n.StatBlob(t.Context(), n.ref(missing))
	wantKind(t, err, oci.NotFound)
}

func TestOwnersOutageIsTriedAtOneMore(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	m := newMesh(t, 5, setup{})
	d, _ := m.put(1, 1000)
	m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: d.String()}, Status: 500})
	n := m.nodes[4]
	_, _, err := n.pull(n.ref(d), nil, 0, -1)
	if e := wantKind(t, err, oci.Unavailable); e.Status != 500 {
		t.Errorf("%v", e)
	}
	if one := m.gets(d); one > 8 { // two nodes, four tries each
		t.Errorf("%d GETs", one)
	}
}

func TestTagIsCheckedOncePerMesh(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 5, setup{})
	content := []byte(`{"schemaVersion":2}`)
	d := m.registry.PutManifest(repo, "v1", manifestType, content)
	n := m.nodes[4]
	if found := n.mustFind(n.tag("v1"), content, manifestType); found.Digest != d || found.CacheStatus("x", true) != "node-000; fwd=uri-miss; stored, x; fwd=uri-miss" {
		t.Errorf("%+v %s", found, found.CacheStatus("x", true))
	}
	head := upstreamtest.Match{Method: "HEAD", PathPart: "/manifests/v1"}
	before := m.registry.Count(head.Method, head.PathPart)
	release := m.registry.Hold(head)
	var wg sync.WaitGroup
	asked := m.nodes[0].asked.Load()
	for _, n := range m.nodes[1:] {
		wg.Go(func() { n.mustFind(n.tag("v1"), content, manifestType) })
	}
	m.registry.WaitFor(head, before+1)
	testkit.Await(t, "all nodes ask the owner", func() bool { return m.nodes[0].asked.Load() >= asked+4 })
	release()
	wg.Wait()
	// One request may have been about to join when the answer came.
	if n := m.registry.Count(head.Method, head.PathPart) - before; n > 2 {
		t.Errorf("%d checks", n)
	}
	if n := m.gets(d); n != 1 {
		t.Errorf("%d GETs of the manifest", n)
	}
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// While the registry is down, every node serves the owner's last answer. Without the
// owner it serves its own.
func TestStaleTagsInTheMesh(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4, setup{policy: grants.Site{StaleIfError: time.Hour}})
	content := []byte(`{"schemaVersion":2}`)
	m.registry.PutManifest(repo, "v1", manifestType, content)
	m.nodes[1].mustFind(m.nodes[1].tag("v1"), content, manifestType)
	m.registry.Down()
	for _, i := range []int{1, 2, 3} {
		n := m.nodes[i]
		found := n.mustFind(n.tag("v1"), content, manifestType)
		if found.Stale == nil {
			t.Errorf("node %d: %+v is not marked", i, found.Provenance)
		}
	}
	m.nodes[0].fails.Store(&fault{dead: true})
	n := m.nodes[1]
	if found := n.mustFind(n.tag("v1"), content, manifestType); found.Stale == nil {
		t.Errorf("%+v is not marked", found.Provenance)
	}
}

// A node that may not ask the registry leaves everything to a node that may.
func TestNodeWithoutEgress(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 2, setup{})
	n := &mayNot{m.nodes[1]}
	s := setup{registry: m.registry, mesh: n, look: 20 * time.Millisecond}
	inner := newRig(t, s)
	d, content := m.put(1, 100_000)
	inner.mustPull(inner.ref(d), content, oci.Miss)
	manifest := []byte(`{"schemaVersion":2}`)
	m.registry.PutManifest(repo, "v1", manifestType, manifest)
	inner.mustFind(inner.tag("v1"), manifest, manifestType)
	if body, _, err := inner.list(""); err != nil || !strings.Contains(body, "v1") {
		t.Error(body, err)
	}
	if c := inner.Counters()[m.registry.Host()]; c.FromUpstreamBytes.Load() != 0 {
		t.Error("it asked the registry itself")
	}
	m.nodes[0].fails.Store(&fault{dead: true})
	d, _ = m.put(2, 1000)
	_, _, err := inner.pull(inner.ref(d), nil, 0, -1)
	if e := wantKind(t, err, oci.Unavailable); !strings.Contains(e.Error(), "node-000") {
		t.Errorf("%v does not name the peer that failed", e)
	}
}

// mayNot is the mesh of a node that is never on a route.
type mayNot struct{ *meshNode }

func (n *mayNot) Route(registry, key string) []mesh.Peer {
	return slices.DeleteFunc(n.meshNode.Route(registry, key), func(p mesh.Peer) bool { return p == nil })
}

func TestTakingOverABlob(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 2, setup{})
	d, content := m.put(1, 200_000)
	m.pull(0, d, content)
	offer := func(d digest.Digest, mediaType string) error {
		p := &fakePeer{m.nodes[1], m.nodes[0]}
		return p.Offer(t.Context(), oci.Ref{Registry: m.registry.Host(), Digest: d}, mediaType)
	}
	if err := offer(d, ""); err != nil {
		t.Fatal(err)
	}
	if size, ok := m.nodes[1].store.Stat(d); !ok || size != int64(len(content)) {
		t.Error("the node did not take the blob that was offered")
	}
	if err := offer(digest.FromString("not held"), ""); err == nil {
		t.Error("the node took a blob that no member holds")
	}
	if n := m.gets(d); n != 1 {
		t.Errorf("%d GETs", n)
	}
}

// A former owner is asked before the registry.
func TestHolderBeforeTheRegistry(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4, setup{})
	d, content := m.put(1, 200_000)
	manifest := []byte(`{"schemaVersion":2}`)
	md := m.registry.PutManifest(repo, "v1", manifestType, manifest)
	for _, n := range m.nodes { // the former ring
		n.routes(func(string) []int { return []int{3} })
	}
	m.pull(3, d, content)
	m.nodes[3].mustFind(m.nodes[3].ref(md), manifest, manifestType)
	for _, n := range m.nodes {
		n.routes(func(string) []int { return []int{0, 1, 2} })
		n.holds([]int{3})
	}
	if way := m.pull(1, d, content); way.Origin != oci.PeerHit || way.CacheStatus("b", false) != "node-003; hit, node-000; fwd=uri-miss; stored, b; fwd=uri-miss; stored" {
		t.Errorf("%+v %s", way, way.CacheStatus("b", false))
	}
	m.nodes[2].mustFind(m.nodes[2].ref(md), manifest, manifestType)
	if m.gets(d) != 1 || m.gets(md) != 1 {
		t.Errorf("%d GETs of the blob, %d of the manifest", m.gets(d), m.gets(md))
	}
}

// Members that disagree on which of them leads ask the registry once all the same. They
// never wait for each other in a circle.
func TestDisagreeingRings(t *testing.T) {
	t.Parallel()
	runs := 60
	if testing.Short() {
		runs = 10
	}
	for seed := range uint64(runs) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := newMesh(t, 5, setup{})
		for _, n := range m.nodes {
			view := r.Perm(5)[:3]
			n.routes(func(string) []int { return view })
			n.holds([]int{0, 1, 2, 3, 4}) // all former owners, as after a change of the ring
		}
		d, content := m.put(seed, 150_000)
		var wg sync.WaitGroup
		for range 30 {
			i := r.IntN(5)
			wg.Go(func() { m.pull(i, d, content) })
		}
		wg.Wait()
		if n := m.gets(d); n != 1 {
			t.Errorf("seed %d: %d GETs", seed, n)
		}
		for _, n := range m.nodes {
			n.end()
		}
	}
}

// The same where each leader asks all members, has a view of its own for each blob, and
// peeks and their answers take their time. Some members have asked before. LONG_TESTS=1
// has 10,000 views.
func TestRandomViews(t *testing.T) {
	t.Parallel()
	const nodes = 6
	r := rand.New(rand.NewPCG(7, 1))
	var mu sync.Mutex
	lag := func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(r.IntN(4)) * 500 * time.Microsecond
	}
	m := newMesh(t, nodes, setup{})
	for _, n := range m.nodes {
		n.wide, n.lag = true, lag
	}
	pick := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(n)
	}
	for run := range uint64(testkit.Times(150, 10_000)) {
		for _, n := range m.nodes {
			view := []int{pick(nodes), (pick(nodes-1) + 1 + pick(nodes)) % nodes}
			n.routes(func(string) []int { return view[:1] })
			n.holds(view[1:])
		}
		d, content := m.put(run, 2_000)
		for range pick(4) { // members that were about to get it, and did not
			m.nodes[pick(nodes)].Holder().Presence(m.nodes[0].ref(d), m.nodes[pick(nodes)].name())
		}
		var wg sync.WaitGroup
		for range 2 + pick(8) {
			i := pick(nodes)
			wg.Go(func() { m.pull(i, d, content) })
		}
		wg.Wait()
		if n := m.gets(d); n != 1 {
			t.Errorf("run %d: %d GETs", run, n)
		}
	}
}

// Whoever holds a blob is found by whoever leads, though the ring says nothing of it and it
// failed lately.
func TestAnyHolderBeforeTheRegistry(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 6, setup{})
	d, content := m.put(1, 200_000)
	manifest := []byte(`{"schemaVersion":2}`)
	md := m.registry.PutManifest(repo, "v1", manifestType, manifest)
	for _, n := range m.nodes {
		n.wide = true
		n.routes(func(string) []int { return []int{5} })
	}
	m.pull(5, d, content)
	m.nodes[5].mustFind(m.nodes[5].ref(md), manifest, manifestType)
	m.nodes[5].faulted.Add(1)
	m.nodes[4].fails.Store(&fault{hung: true})
	for _, n := range m.nodes {
		n.routes(func(string) []int { return []int{0} })
	}
	if way := m.pull(1, d, content); way.Origin != oci.PeerHit {
		t.Errorf("%+v", way)
	}
	m.nodes[2].mustFind(m.nodes[2].ref(md), manifest, manifestType)
	if m.gets(d) != 1 || m.gets(md) != 1 {
		t.Errorf("%d GETs of the blob, %d of the manifest", m.gets(d), m.gets(md))
	}
}

// A member that offers a blob and then hangs is given up.
func TestAnOfferOfOneThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]int64{"at once": 0, "in the middle": 100 * kib} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, 2, setup{})
			d, content := m.put(51, 300*kib)
			m.pull(0, d, content)
			m.nodes[0].events.await(filled, 1)
			m.nodes[0].fails.Store(&fault{hung: true, after: after})
			ref := m.nodes[0].ref(d)
			ref.Repository = ""
			err := (&fakePeer{m.nodes[1], m.nodes[0]}).Offer(t.Context(), ref, "")
			if p, is := errors.AsType[*mesh.PeerError](err); !is || !errors.Is(p, mesh.ErrHangs) {
				t.Errorf("%v, want an error that says that the member hangs", err)
			}
			if m.nodes[0].faulted.Load() == 0 {
				t.Error("the member is still asked")
			}
		})
	}
}
