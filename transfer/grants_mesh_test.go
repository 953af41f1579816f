package transfer_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// held puts a private image, its layer included, on node i.
func (m *meshRig) held(i int, seed uint64) (upstreamtest.Image, []byte) {
	m.t.Helper()
	layer := random(seed, 150*kib)
	img := m.registry.PutImage(repo, "v1", layer)
	n := m.nodes[i]
	n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); err != nil {
		m.t.Fatal(err)
	}
	return img, layer
}

// No node hands out content of a private registry to clients that may not have it, also
// if another node holds it.
func TestPrivateContentStaysPrivateInTheMesh(t *testing.T) {
	t.Parallel()
	for name, route := range map[string]func(string) []int{
		"the owner holds it":                              func(string) []int { return []int{0, 1, 2} },
		"the asker is the owner, a former owner holds it": func(string) []int { return []int{1, 2} },
		"a third node is the owner":                       func(string) []int { return []int{2, 1} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, 3, setup{private: all})
			img, layer := m.held(0, 31)
			for _, n := range m.nodes {
				n.sees(route, []int{0})
			}
			for _, i := range []int{1, 2, 0} {
				n := m.nodes[i]
				blob, manifest := in(n.ref(img.Layers[0]), "strangers/app"), in(n.ref(img.Manifest), "strangers/app")
				if _, _, err := n.pull(blob, layer, 0, -1); oci.KindOf(err) != oci.NotFound {
					t.Errorf("node %d, another repository's blob: %v", i, err)
				}
				if _, err := n.StatBlob(t.Context(), blob); oci.KindOf(err) != oci.NotFound {
					t.Errorf("node %d, HEAD of it: %v", i, err)
				}
				if _, err := n.Manifest(t.Context(), manifest, nil, false); oci.KindOf(err) != oci.NotFound {
					t.Errorf("node %d, another repository's manifest: %v", i, err)
				}
			}
			// An allowed client gets it at any node.
			for _, n := range m.nodes {
				if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); err != nil {
					t.Error(err)
				}
			}
			if gets := m.registry.Count("GET", img.Layers[0].String()); gets > 2+3*len(m.nodes) { // this counts the refused ones too, and those of a first byte
				t.Errorf("%d GETs", gets)
			}
		})
	}
}

// A claim of another registry unlocks nothing at any node.
func TestAClaimUnlocksNothingInTheMesh(t *testing.T) {
	t.Parallel()
	evil := upstreamtest.New(t)
	m := newMesh(t, 3, setup{registries: []*upstreamtest.Registry{evil}, private: func(registry string) bool { return registry != evil.Host() }})
	img, layer := m.held(0, 32)
	evil.PutManifest(repo, "v1", upstreamtest.TypeManifest, img.ManifestBytes)
	evil.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "HEAD"}, Status: 200, Header: map[string][]string{
		"Docker-Content-Digest": {img.Layers[0].String()}, "Content-Type": {upstreamtest.TypeManifest}, "Content-Length": {"500"},
	}})
	for i, n := range m.nodes {
		n.holds([]int{0})
		ref := n.ref(img.Layers[0])
		ref.Registry = evil.Host()
		if _, _, err := n.pull(ref, layer, 0, -1); err == nil {
			t.Errorf("node %d handed out the content", i)
		}
	}
}

// A refusal that a node hears from another node counts as one from the registry.
func TestARefusalIsHeardThroughTheMesh(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 2, setup{private: all, policy: grants.Site{StaleIfError: time.Hour}})
	img, layer := m.held(0, 33)
	one := m.nodes[1]
	one.routes(func(string) []int { return []int{0, 1} })
	one.mustFind(one.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	if _, _, err := one.pull(one.ref(img.Layers[0]), layer, 0, -1); err != nil {
		t.Fatal(err)
	}
	m.registry.Fault(upstreamtest.Fault{Status: 403})
	if _, err := one.Manifest(t.Context(), one.tag("v1"), nil, false); oci.KindOf(err) != oci.Denied {
		t.Fatal(err)
	}
	m.registry.Down()
	for i, n := range slices.Backward(m.nodes) {
		if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); err == nil {
			t.Errorf("node %d serves it during the outage", i)
		}
		if _, err := n.Manifest(t.Context(), n.tag("v1"), nil, false); err == nil {
			t.Errorf("node %d serves the tag during the outage", i)
		}
	}
}

// unaware makes node i a node that takes every registry for public.
func (m *meshRig) unaware(i int) *meshNode {
	n := m.nodes[i]
	n.rig = newRig(m.t, setup{registry: m.registry, mesh: n, look: 100 * time.Millisecond})
	return n
}

// A node that takes a registry for public asks another node for content and does not say
// that the registry vouched for it. It gets only what the other would show to anybody.
func TestWhoDoesNotKnowARegistryAsPrivateUnlocksNothing(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 2, setup{private: all})
	img, layer := m.held(0, 34)
	m.nodes[0].events.await(filled, 1)
	n := m.unaware(1)
	m.alone()
	n.holds([]int{0})
	if _, _, err := n.pull(in(n.ref(img.Layers[0]), "strangers/app"), layer, 0, -1); oci.KindOf(err) != oci.NotFound {
		t.Errorf("another repository's blob: %v", err)
	}
	if _, err := n.Manifest(t.Context(), in(n.ref(img.Manifest), "strangers/app"), nil, false); oci.KindOf(err) != oci.NotFound {
		t.Errorf("another repository's manifest: %v", err)
	}
	if way := m.pull(1, img.Layers[0], layer); way.Origin != oci.PeerHit {
		t.Errorf("a blob with a new grant came as a %v", way.Origin)
	}
	if found, err := n.Manifest(t.Context(), n.ref(img.Manifest), nil, false); err != nil || found.Origin != oci.PeerHit {
		t.Errorf("the manifest that it has just vouched for: %v", err)
	}
}

// Nor by an old grant: then the registry must be asked.
func TestAnOldWordUnlocksNothingForOthers(t *testing.T) {
	t.Parallel()
	var private atomic.Bool
	m := newMesh(t, 2, setup{private: func(string) bool { return private.Load() }, policy: grants.Site{StaleIfError: 24 * time.Hour}})
	img, layer := m.held(0, 35)
	holder := m.nodes[0]
	holder.events.await(filled, 1)
	private.Store(true)
	holder.Grant(holder.ref(img.Layers[0]), oci.BlobResource, time.Now().Add(-time.Hour))
	holder.Grant(holder.ref(img.Manifest), oci.ManifestResource, time.Now().Add(-time.Hour))
	n := m.unaware(1)
	m.alone()
	n.holds([]int{0})
	m.registry.Fault(upstreamtest.Fault{Status: 403})
	if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); oci.KindOf(err) != oci.Denied {
		t.Errorf("the blob: %v", err)
	}
	if _, err := n.Manifest(t.Context(), n.ref(img.Manifest), nil, false); oci.KindOf(err) != oci.Denied {
		t.Errorf("the manifest: %v", err)
	}
}

// Content that is handed over stays as private as it was. A node that would show it to
// everybody does not get it.
func TestPrivateContentIsHandedOverOnlyToWhoKnowsIt(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, setup{private: all})
	img, _ := m.held(0, 36)
	m.nodes[0].events.await(filled, 1)
	m.unaware(1)
	ref := m.nodes[0].ref(img.Layers[0])
	ref.Repository = ""
	for i, taken := range map[int]bool{1: false, 2: true} {
		err := (&fakePeer{m.nodes[i], m.nodes[0]}).Offer(t.Context(), ref, "")
		if _, held := m.nodes[i].store.Stat(ref.Digest); held != taken || taken != (err == nil) {
			t.Errorf("node %d has it: %v, %v", i, held, err)
		}
	}
}

// An index vouches for no manifest. But a client that may pull the index gets its
// manifests in an outage, also at a node that never had them.
func TestAPrivateIndexIsPulledInAnOutage(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, setup{private: all, policy: grants.Site{StaleIfError: time.Hour}})
	layer := random(37, 100*kib)
	img := m.registry.PutImage(repo, "", layer)
	index := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, upstreamtest.TypeManifest, img.Manifest, len(img.ManifestBytes))
	m.registry.PutManifest(repo, "multi", "application/vnd.oci.image.index.v1+json", index)
	pull := func(i int) {
		t.Helper()
		n := m.nodes[i]
		n.mustFind(n.tag("multi"), index, "application/vnd.oci.image.index.v1+json")
		n.mustFind(n.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest)
		m.pull(i, img.Layers[0], layer)
	}
	pull(2)
	m.registry.Down()
	for i := range m.nodes {
		pull(i)
	}
}
