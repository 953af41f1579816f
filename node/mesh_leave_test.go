package node

import (
	"net/http"
	"testing"

	"oci-proxy/node/cluster"
	"oci-proxy/transfer/upstreamtest"
)

// A node may be getting a blob for a client while it leaves. The others have that blob too before
// it ends, though handing it over takes longer than the client may pause.
func TestMeshLeaveHandsOverWhatComesMeanwhile(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 2*mib)
	release := make(chan struct{})
	c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: b.String()}, Stall: true, StallAfter: mib, StallUntil: release})
	pulled := c.began(0, b)
	c.await("the download is under way", func() bool { return c.up.BytesSent() >= mib })
	left := make(chan cluster.HandedOver)
	go func() { left <- c.leave(0) }()
	c.awaitLog(0, "blobs handed over")
	for i := 1; i < 3; i++ {
		c.links.of(i, 0).set(trouble{rate: mib / 2})
	}
	close(release)
	(<-pulled).wantWhole(t)
	<-left
	c.awaitMembers(2)
	for i := 1; i < 3; i++ {
		c.pull(i, b)
	}
	c.wantGets(b, 1)
}
