package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"oci-proxy/node/figures"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// An edge is a stream from one node to another.
type edge struct{ from, to string }

// edges lists the streams of a blob between nodes that carried a byte, by the logs of those
// that sent them.
func (c *testCluster) edges(b testBlob) (all []edge) {
	for _, one := range c.nodes {
		for line := range strings.Lines(one.log.String()) {
			var said struct {
				Msg, Peer, Path, Digest string
				Bytes                   int64
			}
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "member answered" && strings.HasPrefix(said.Path, "blobs/") && said.Digest == b.String() && said.Bytes > 0 {
				all = append(all, edge{one.name, said.Peer})
			}
		}
	}
	return all
}

// pullAtAll pulls a blob from all running nodes at once. Each must be right.
func (c *testCluster) pullAtAll(b testBlob) {
	c.t.Helper()
	var all []<-chan pulled
	for _, one := range c.running() {
		all = append(all, c.began(one.i, b))
	}
	for _, p := range all {
		(<-p).wantWhole(c.t)
	}
}

// wantFewSends fails the test if a node sent the blob more often than that.
func (c *testCluster) wantFewSends(b testBlob, most float64) {
	c.t.Helper()
	for _, one := range c.running() {
		if times := float64(c.own(one.i)[figures.ToPeersBytes]) / float64(b.size); times > most {
			c.t.Errorf("%s sent the blob %.2f times: %v", one.name, times, c.edges(b))
		}
	}
}

func TestMeshALargeBlobGoesFromNodeToNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 8)
	b := c.blobOf(3, 16*mib)
	c.pullAtAll(b)
	c.wantGets(b, 1)
	c.wantFewSends(b, 2.1)
	sentOn := int64(0)
	for _, one := range c.nodes {
		sentOn += one.node.fetcher.SentOn()
	}
	if sentOn < 5 { // of seven that ask the owner
		t.Errorf("%d members were sent on", sentOn)
	}
	small := c.blobOf(3, mib)
	c.pullAtAll(small)
	for _, e := range c.edges(small) {
		if e.from != c.nodes[3].name {
			t.Errorf("a small blob was sent by %s", e.from)
		}
	}
}

// One after the other they take it from each other, too.
func TestMeshALargeBlobIsHadOfThoseThatHaveIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	b := c.blobOf(2, 8*mib)
	for i := range c.nodes {
		c.pull(i, b)
	}
	c.wantGets(b, 1)
	c.wantFewSends(b, 2.1)
}

func TestMeshOneStreamEntersEachZone(t *testing.T) {
	t.Parallel()
	zone := func(i int) string { return string(rune('a' + i%3)) }
	c := formCluster(t, 6, upstreamtest.New(t), func(i int) form {
		return form{cluster: fmt.Sprintf("secret: %q, zone: %s", meshSecret, zone(i))}
	})
	b := c.blobOf(0, 12*mib)
	c.pullAtAll(b)
	c.wantGets(b, 1)
	c.wantFewSends(b, 2.1)
	enter := map[string]int{}
	of := map[string]string{}
	for _, one := range c.nodes {
		of[one.name] = zone(one.i)
	}
	for _, e := range c.edges(b) {
		if of[e.from] != of[e.to] {
			enter[of[e.to]]++
		}
	}
	if enter["a"] > 0 || enter["b"] != 1 || enter["c"] != 1 {
		t.Errorf("streams that enter a zone: %v; all: %v", enter, c.edges(b))
	}
}

// A feeder that dies in mid-body is left, and those that it fed go on at the byte reached. The
// registry stands still meanwhile, so that all have the same and nobody is slow.
func TestMeshAFeederDies(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 4)
	b := c.blobOf(0, 24*mib)
	goesOn := make(chan struct{})
	c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: b.Encoded()}, Stall: true, StallAfter: mib, StallUntil: goesOn})
	var pulls []<-chan pulled
	for i := 1; i <= 3; i++ {
		pulls = append(pulls, c.began(i, b))
		c.await("the node gets it", func() bool { return c.came(i) > mib/2 })
	}
	feeder, other := 1, 2
	c.await("node 3 gets it from node 1 or 2", func() bool {
		if c.feeds(2, b) {
			feeder, other = 2, 1
		}
		return c.feeds(feeder, b)
	})
	c.kill(feeder)
	c.awaitLog(3, "feeder left")
	close(goesOn)
	<-pulls[feeder-1] // its client has lost its node
	(<-pulls[other-1]).wantWhole(t)
	(<-pulls[2]).wantWhole(t)
	if n := c.own(0)[figures.FromUpstreamBytes] + c.own(other)[figures.FromUpstreamBytes] + c.own(3)[figures.FromUpstreamBytes]; n != b.size {
		t.Errorf("%d bytes of %d came from upstream", n, b.size)
	}
	if left := c.nodes[3].node.fetcher.FeedersLeft(); left["failed"] != 1 {
		t.Errorf("feeders left: %v", left)
	}
	if n := c.own(3)[figures.FromPeersBytes]; n > b.size+mib/4 {
		t.Errorf("node 3 got %d bytes for a blob of %d", n, b.size)
	}
}

// feeds reports whether a node is sending the blob to another.
func (c *testCluster) feeds(i int, b testBlob) bool {
	return c.nodes[i].node.fetcher.Holder().Progress(oci.Ref{Registry: c.up.Host(), Repository: repo, Digest: b.Digest}).Streams > 0
}

// came returns how many bytes of blobs a node has got from others.
func (c *testCluster) came(i int) int64 { return c.own(i)[figures.FromPeersBytes] }
