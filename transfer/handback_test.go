package transfer_test

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
)

// What a stand-in got from the registry while the owner was late is offered to the owner,
// again if it is still late then.
func TestWhatAStandInGotIsHandedBack(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, setup{})
	m.nodes[1].Insist(10_000)
	held := func(i int, d digest.Digest) bool { _, ok := m.nodes[i].store.Stat(d); return ok }
	m.nodes[0].fails.Store(&fault{dead: true})
	d, content := m.put(1, 200_000)
	m.pull(2, d, content) // by way of node 1
	manifest := []byte(`{"schemaVersion":2}`)
	md := m.registry.PutManifest(repo, "v1", manifestType, manifest)
	m.nodes[2].mustFind(m.nodes[2].ref(md), manifest, manifestType)
	if held(0, d) || held(0, md) {
		t.Fatal("the owner has it by itself")
	}
	m.nodes[0].fails.Store(nil)
	testkit.Await(t, "the owner has the blob and the manifest", func() bool { return held(0, d) && held(0, md) })
	if m.gets(d) != 1 || m.gets(md) != 1 {
		t.Errorf("%d GETs of the blob, %d of the manifest", m.gets(d), m.gets(md))
	}
}
