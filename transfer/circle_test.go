package transfer_test

import (
	"context"
	"testing"
	"time"

	"oci-proxy/transfer"
)

// unable makes node i one that never asks the registry itself.
func (m *mesh) unable(i int, s setup) *rig {
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
	m.nodes[0].route = func(string) []int { return []int{0} }
	m.nodes[0].holders = []int{1}
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
		t.Errorf("%d GETs, though a node holds it", n)
	}
	strange := in(ref, "strangers/app")
	if _, err := inner.Manifest(ctx, strange, nil, false); transfer.KindOf(err) != transfer.NotFound {
		t.Errorf("another repository's manifest: %v", err)
	}
}
