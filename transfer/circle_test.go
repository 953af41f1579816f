package transfer_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// unable makes node i a node that never asks the registry itself.
func (m *meshRig) unable(i int, s setup) *rig {
	n := m.nodes[i]
	s.registry, s.mesh, s.look = m.registry, &mayNot{n}, 50*time.Millisecond
	n.rig = newRig(m.t, s)
	return n.rig
}

// A node that may not ask the registry holds a private manifest, and asks the
// owner whether the registry still vouches for it. The owner, which lacks it,
// must not wait for that node's answer to the same question.
func TestVouchingForAManifestClosesNoCircle(t *testing.T) {
	t.Parallel()
	s := setup{private: all}
	m := newMesh(t, 2, s)
	m.nodes[0].routes(func(string) []int { return []int{0} })
	m.nodes[0].holds([]int{1})
	inner := m.unable(1, s)
	content := []byte(`{"schemaVersion":2,"layers":[]}`)
	ref := inner.ref(m.registry.PutManifest(repo, "v1", manifestType, content))
	if _, err := inner.store.Put(t.Context(), ref.Digest, ref.Registry, manifestType, content); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if found, err := inner.Manifest(ctx, ref, nil, false); err != nil || string(found.Bytes) != string(content) {
		t.Errorf("%+v, %v", found, err)
	}
	if n := m.gets(ref.Digest); n != 0 {
		t.Errorf("the registry got %d GETs although a node holds the manifest", n)
	}
	strange := in(ref, "strangers/app")
	if _, err := inner.Manifest(ctx, strange, nil, false); oci.KindOf(err) != oci.NotFound {
		t.Errorf("another repository's manifest: %v", err)
	}
}

// A slowMesh has two nodes that may ask the registry. The registry answers neither.
type slowMesh struct{ mesh.Router }

func (slowMesh) Self() string { return "slow" }

func (slowMesh) Route(string, string) []mesh.Peer { return []mesh.Peer{slowPeer{}, slowPeer{}} }

type slowPeer struct{ mesh.Peer }

func (slowPeer) Name() string { return "slow" }

func (slowPeer) Progress(context.Context, oci.Ref) (mesh.Progress, error) {
	return mesh.Progress{}, nil
}

func (slowPeer) List(ctx context.Context, q oci.Question, _ bool, _ oci.Sink) (*oci.Page, oci.Provenance, error) {
	select {
	case <-ctx.Done():
		return nil, oci.Provenance{}, &mesh.PeerError{Peer: "slow", Err: context.Cause(ctx)}
	case <-time.After(38 * time.Second):
		return nil, oci.Provenance{}, &oci.Error{Kind: oci.Timeout, Registry: q.Registry, Reason: "no answer in time"}
	}
}

func (slowPeer) LastWord(ctx context.Context, _ oci.Question) (mesh.Word, error) {
	<-ctx.Done()
	return mesh.Word{}, &mesh.PeerError{Peer: "slow", Err: context.Cause(ctx)}
}

func (slowPeer) ID() string { return "slow" }

func (slowMesh) Members() []mesh.Peer { return []mesh.Peer{slowPeer{}, slowPeer{}} }

func TestListsOfOthersComeInTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		store := grants.OpenShard(dir, cache.Options{})
		f := transfer.New(transfer.Config{
			Upstream: &fake{}, Log: slog.New(slog.DiscardHandler), Mesh: slowMesh{},
			Site: func(string) grants.Site { return grants.Site{Shard: store} },
		})
		ref := fakeRef(digest.FromString("some"))
		for _, ask := range []func(context.Context, oci.Ref, oci.Query) (*transfer.List, error){f.Tags, f.Referrers} {
			var err error
			d := took(func() { _, err = ask(t.Context(), ref, "") })
			wantKind(t, err, oci.Timeout)
			if d > 40*time.Second {
				t.Errorf("%v after %v", err, d)
			}
		}
		f.Close(t.Context())
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}
