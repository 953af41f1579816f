package egress

import (
	"testing"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/upstream"
)

func TestTimesAreInOrder(t *testing.T) {
	t.Parallel()
	const client, staleTag = 39 * time.Second, 5 * time.Second
	for what, right := range map[string]bool{
		"a client is told why":                              within < client,
		"as long as upstream may take":                      within >= upstream.Within,
		"a cached tag is served in time":                    upstream.MeshPatience+searchWithin < staleTag,
		"a search ends before the last way is begun":        searchWithin < otherWays,
		"all members of a search are asked":                 maxAsked*stagger+upstream.MeshPatience/2 < searchWithin,
		"a member found down is asked in the next search":   downFor < searchWithin,
		"what a search finds counts when it ends":           searchWithin < toldFor,
		"members are never left for little":                 patient > mesh.DripFor,
		"a way that is probed is measured before it counts": probeEvery < measuredFor,
	} {
		if !right {
			t.Error(what)
		}
	}
}
