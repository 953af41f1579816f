package transfer_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// alone makes each node ask the registry itself.
func (m *meshRig) alone() {
	for i, n := range m.nodes {
		n.routes(func(string) []int { return []int{i} })
	}
}

// These are the messages that a node logs when a member tells it of a revocation.
const (
	toldOf      = "a member told of a refusal"
	toldOfALoss = "a member told of a loss"
)

// A refusal that one node gets ends the grants of all nodes. In an outage no node shows
// the content any more.
func TestARefusalIsToldToAllMembers(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, setup{private: all, policy: grants.Site{StaleIfError: time.Hour}})
	m.alone()
	img, layer := m.held(0, 41)
	for i, n := range m.nodes[1:] {
		n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
		m.pull(i+1, img.Layers[0], layer)
	}
	m.registry.Fault(upstreamtest.Fault{Status: 403})
	if _, err := m.nodes[1].Manifest(t.Context(), m.nodes[1].tag("v1"), nil, false); oci.KindOf(err) != oci.Denied {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		m.nodes[i].events.await(toldOf, 1)
	}
	m.registry.Down()
	for i, n := range m.nodes {
		if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); err == nil {
			t.Errorf("node %d serves the layer during the outage", i)
		}
		if _, err := n.Manifest(t.Context(), n.tag("v1"), nil, false); err == nil {
			t.Errorf("node %d serves the tag during the outage", i)
		}
	}
	m.registry.ClearFaults()
	m.registry.Up()
	n := m.nodes[2]
	n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	m.registry.Down()
	if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); err != nil {
		t.Errorf("let in again: %v", err)
	}
}

// A node that never had content of a repository notes no refusal of it, but tells the
// other members, which may have some.
func TestARefusalOfWhatANodeNeverHadIsToldToo(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 2, setup{private: all, policy: grants.Site{StaleIfError: time.Hour}})
	m.alone()
	img, layer := m.held(0, 42)
	m.registry.Fault(upstreamtest.Fault{Status: 401})
	one := m.nodes[1]
	if _, err := one.Manifest(t.Context(), one.tag("v1"), nil, false); oci.KindOf(err) != oci.Denied {
		t.Fatal(err)
	}
	m.nodes[0].events.await(toldOf, 1)
	m.registry.Down()
	if _, _, err := m.nodes[0].pull(one.ref(img.Layers[0]), layer, 0, -1); err == nil {
		t.Error("the content is served during the outage")
	}
}

// An audience is a mesh of a node that acts for itself, and of peers that
// count what they are told.
type audience struct {
	mesh.Router
	told atomic.Int64
	hung bool
}

func (a *audience) Self() string { return "a" }

func (a *audience) Route(string, string) []mesh.Peer   { return []mesh.Peer{nil} }
func (a *audience) Holders(string, string) []mesh.Peer { return nil }
func (a *audience) Settle(context.Context)             {}
func (a *audience) Members() []mesh.Peer               { return []mesh.Peer{&listener{audience: a}} }

type listener struct {
	mesh.Peer
	audience *audience
}

func (*listener) Name() string { return "listener" }

func (l *listener) Lost(ctx context.Context, ref oci.Ref, _ oci.Resource) error {
	return l.Refused(ctx, ref)
}

func (l *listener) Refused(ctx context.Context, _ oci.Ref) error {
	l.audience.told.Add(1)
	if l.audience.hung {
		<-ctx.Done()
	}
	return ctx.Err()
}

// refusing returns a node whose private registry refuses everything. The node tells a
// what it hears.
func refusing(t *testing.T, dir string, a *audience, relayed bool) (*transfer.Fetcher, func()) {
	return telling(t, dir, a, &fake{stat: func(context.Context) (oci.Descriptor, error) {
		e := failure(oci.Denied)
		e.Status, e.By, e.Relayed = 401, oci.Registry, relayed
		return oci.Descriptor{}, e
	}})
}

// telling returns a node in front of the private registry up. The node tells a what it
// hears.
func telling(t *testing.T, dir string, a *audience, up *fake) (*transfer.Fetcher, func()) {
	store := grants.OpenShard(dir, cache.Options{})
	f := transfer.New(transfer.Config{
		Upstream: up, Mesh: a, Log: slog.New(slog.DiscardHandler),
		Site: func(string) grants.Site { return grants.Site{Private: true, Shard: store} },
	})
	return f, func() {
		f.Close(t.Context())
		_ = store.Close() // only read
	}
}

// The first refusal of a repository is told at once, later ones at most every few seconds.
// A refusal that comes meanwhile is not lost.
func TestRefusalsAreToldNowAndThen(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		a := &audience{}
		f, end := refusing(t, dir, a, false)
		defer end()
		tag := oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "v1"}
		refuse := func(n int) {
			t.Helper()
			each(n, func(int) {
				_, err := f.Manifest(t.Context(), tag, nil, false)
				wantKind(t, err, oci.Denied)
			})
		}
		want := func(after time.Duration, n int64) {
			t.Helper()
			<-time.After(after)
			synctest.Wait()
			if got := a.told.Load(); got != n {
				t.Errorf("told %d times, want %d", got, n)
			}
		}
		refuse(1)
		want(0, 1)
		want(time.Minute, 1)
		refuse(5)
		want(0, 2)
		refuse(5)
		want(time.Second, 2)
		want(5*time.Second, 3)
		want(time.Minute, 3)
	})
}

// If the registry does not have a digest, the other members are told, even if this node
// never had it. They are not told of a tag that never existed, because clients ask for
// such tags all the time.
func TestLossesAreTold(t *testing.T) {
	t.Parallel()
	absent := func(how oci.Party, relayed bool) *fake {
		e := failure(oci.NotFound)
		e.Status, e.By, e.Relayed = 404, how, relayed
		return &fake{
			stat:     func(context.Context) (oci.Descriptor, error) { return oci.Descriptor{}, e },
			manifest: func(context.Context) (oci.Manifest, error) { return oci.Manifest{}, e },
		}
	}
	tag, digested := oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "v1"}, fakeRef(digest.FromString("x"))
	for name, tt := range map[string]struct {
		up   *fake
		ref  oci.Ref
		told int64
	}{
		"a digest":                       {absent(oci.Registry, false), digested, 1},
		"a tag that never was":           {absent(oci.Registry, false), tag, 0},
		"a digest that a member told of": {absent(oci.Registry, true), digested, 0},
		"a digest, says a middlebox":     {absent(oci.Middlebox, false), digested, 0},
		"a digest, says storage":         {absent(oci.Storage, false), digested, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T, dir string) {
				a := &audience{}
				f, end := telling(t, dir, a, tt.up)
				defer end()
				for range 5 {
					_, err := f.Manifest(t.Context(), tt.ref, nil, false)
					wantKind(t, err, oci.NotFound)
				}
				synctest.Wait()
				if n := a.told.Load(); n != tt.told {
					t.Errorf("told %d times, want %d", n, tt.told)
				}
			})
		})
	}
}

// A node that hears of a refusal from a member does not tell the other members.
func TestARefusalIsToldByOneOnly(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		a := &audience{}
		f, end := refusing(t, dir, a, true)
		defer end()
		tag := oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "v1"}
		f.Holder().Refused(tag)
		_, err := f.Manifest(t.Context(), tag, nil, false)
		wantKind(t, err, oci.Denied)
		<-time.After(time.Minute)
		if n := a.told.Load(); n != 0 {
			t.Errorf("told %d times", n)
		}
	})
}

// Members that hang delay neither the client nor the node's shutdown.
func TestTellingARefusalIsWaitedForByNobody(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		f, end := refusing(t, dir, &audience{hung: true}, false)
		d := took(func() {
			for i := range 40 {
				ref := oci.Ref{Registry: "reg.example.com", Repository: repo + string(rune('a'+i)), Tag: "v1"}
				_, err := f.Manifest(t.Context(), ref, nil, false)
				wantKind(t, err, oci.Denied)
			}
			synctest.Wait()
			end()
		})
		if d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}
