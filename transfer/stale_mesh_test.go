package transfer_test

import (
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// The tag's owner was only asked by HEAD, so it knows what the tag means but lacks the
// manifest. In an outage it gets the manifest from the node that has it.
func TestATagsOwnerServesItInAnOutage(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]func(string) bool{"public": nil, "private": all} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, 3, setup{private: private, policy: grants.Site{StaleIfError: time.Hour}})
			for _, n := range m.nodes { // node 1 owns the tags, node 0 all else
				n.routes(func(key string) []int {
					if strings.Contains(key, " v1 ") {
						return []int{1, 0}
					}
					return []int{0, 2}
				})
			}
			img := m.registry.PutImage(repo, "v1", random(1, 10*kib))
			asker, owner := m.nodes[2], m.nodes[1]
			asker.mustFind(asker.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
			if _, held := owner.store.Stat(img.Manifest); held {
				t.Fatal("the tag's owner has the manifest, so nothing is tested")
			}
			m.registry.Down()
			for i, n := range m.nodes {
				found := n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
				if found.Stale == nil {
					t.Errorf("node %d: %+v is not marked", i, found.Provenance)
				}
			}
			if _, err := owner.Manifest(t.Context(), owner.tag("v2"), nil, false); oci.KindOf(err) != oci.Unavailable {
				t.Errorf("a tag that no node knows: %v", err)
			}
		})
	}
}
