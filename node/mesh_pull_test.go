package node

import (
	"testing"
)

func TestMeshAsksUpstreamOnceAndTellsTheWay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(1, 3*mib)
	for i, want := range []string{
		"node-1; fwd=uri-miss; stored, node-0; fwd=uri-miss; stored",
		"node-1; hit",
		"node-1; hit, node-2; fwd=uri-miss; stored",
	} {
		if p := c.pull(i, b); p.status != want {
			t.Errorf("at node %d: %q, want %q", i, p.status, want)
		}
	}
	c.wantGets(b, 1)
	for i, want := range [][3]int64{{0, 0, 1}, {1, 0, 0}, {0, 1, 0}} {
		if s := c.own(i); [3]int64{s.Hits, s.PeerHits, s.Misses} != want {
			t.Errorf("node %d counts %d, %d, %d, want %d", i, s.Hits, s.PeerHits, s.Misses, want)
		}
	}
}
