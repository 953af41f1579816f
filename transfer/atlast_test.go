package transfer_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/upstreamtest"
)

// A nobody is the mesh of a node that may not ask the registry, while no member lives that may.
type nobody struct{ *meshNode }

func (*nobody) Route(string, string) []mesh.Peer { return nil }

// heldBy2 builds a mesh of three in which node 2 alone holds an image.
func heldBy2(t *testing.T, s setup) (m *meshRig, img upstreamtest.Image, layer []byte) {
	t.Helper()
	m = newMesh(t, 3, s)
	for _, n := range m.nodes {
		n.wide = true
		n.routes(func(string) []int { return []int{2} })
	}
	layer = random(5, 300*kib)
	img = m.registry.PutImage(repo, "v1", layer)
	m.nodes[2].mustFind(m.nodes[2].tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	m.pull(2, img.Layers[0], layer)
	return m, img, layer
}

// comesBack ends the node's fault when the registry is asked.
func (n *meshNode) comesBack(http.ResponseWriter, *http.Request) bool {
	n.fails.Store(nil)
	return false
}

// eachWay runs fn for a public and a private registry, and for HEAD and GET of manifests.
func eachWay(t *testing.T, fn func(t *testing.T, s setup, head bool)) {
	t.Helper()
	for name, private := range map[string]func(string) bool{"public": nil, "private": all} {
		for _, head := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, HEAD %v", name, head), func(t *testing.T) {
				t.Parallel()
				fn(t, setup{policy: grants.Site{StaleIfError: time.Hour}, private: private}, head)
			})
		}
	}
}

// What a member holds is pulled through one that may not ask the registry, when none lives that
// may.
func TestAHolderServesWhenNobodyMayAskTheRegistry(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s setup, head bool) {
		m, img, layer := heldBy2(t, s)
		m.nodes[0].fails.Store(&fault{dead: true})
		s.registry, s.mesh, s.look = m.registry, &nobody{m.nodes[1]}, 20*time.Millisecond
		n := newRig(t, s)
		if _, err := n.Manifest(t.Context(), n.ref(img.Manifest), nil, head); err != nil {
			t.Errorf("manifest: %v", err)
		}
		if _, err := n.StatBlob(t.Context(), n.ref(img.Layers[0])); err != nil {
			t.Errorf("size of the blob: %v", err)
		}
		if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); err != nil {
			t.Errorf("blob: %v", err)
		}
	})
}

// A member that holds what is wanted is late when it is peeked at, and then the registry fails:
// it is asked again.
func TestAHolderThatWasLateServesWhenTheRegistryFails(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s setup, head bool) {
		m, img, layer := heldBy2(t, s)
		n := m.nodes[1]
		n.routes(func(string) []int { return []int{1} })
		m.registry.Fault(upstreamtest.Fault{Wrap: m.nodes[2].comesBack, Status: http.StatusServiceUnavailable})
		m.nodes[2].fails.Store(&fault{hung: true})
		if _, err := n.Manifest(t.Context(), n.ref(img.Manifest), nil, head); err != nil {
			t.Errorf("manifest: %v", err)
		}
		m.nodes[2].fails.Store(&fault{hung: true})
		if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); err != nil {
			t.Errorf("blob: %v", err)
		}
	})
}
