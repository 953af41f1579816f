package node

import (
	"net/http"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// A blob over several connections comes by the ways out of all nodes, once, and the node
// that owns it has it. When the others die in its midst, it goes on by the owner's own way.
func TestMeshBringsABlobByTheWaysOfAllNodes(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]bool{"all well": false, "the others die": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := formCluster(t, 3, upstreamtest.New(t), func(int) form {
				return form{settings: settings{registry: "upstream_connections: 4"}}
			})
			c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/"}, SlowBytesPerSecond: 4 * mib})
			b := c.blobOf(1, 16*mib)
			arriving := c.began(1, b)
			if kill {
				c.await("requests by three ways", func() bool { return ways(c, b) == 3 })
				c.kill(0)
				c.kill(2)
			}
			(<-arriving).wantWhole(t)
			if n := ways(c, b); n != 3 {
				t.Errorf("the registry was asked by %d nodes", n)
			}
			// On a busy machine a leg may be late and taken over, and each of two ways once.
			if sent := c.up.BytesSent(); !kill && (sent < b.size || sent > b.size+3*mib) {
				t.Errorf("%d bytes were sent for %d", sent, b.size)
			}
			requests := c.gets(b)
			c.get(1, blobPath(b.Digest)).want(t, http.StatusOK)
			c.wantGets(b, requests)
		})
	}
}

// ways returns how many nodes have asked the registry for a blob.
func ways(c *testCluster, b testBlob) int {
	nodes := map[string]bool{}
	for _, r := range c.up.Requests() {
		if r.Method == http.MethodGet && strings.Contains(r.Path, b.String()) {
			nodes[r.Header.Get("Via")] = true
		}
	}
	return len(nodes)
}
