package node

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

func TestMeshPartition(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 4)
	for _, i := range []int{0, 1} {
		for _, j := range []int{2, 3} {
			c.links.of(i, j).set(trouble{cut: true})
			c.links.of(j, i).set(trouble{cut: true})
		}
	}
	for range 4 {
		b := c.blob(mib)
		for i := range c.nodes {
			c.pull(i, b)
		}
		if n := c.gets(b); n > 2 {
			t.Errorf("the two halves asked the registry %d times", n)
		}
	}
	c.links.heal()
	c.awaitHealthy()
	for range 4 {
		b := c.blob(mib)
		for i := range c.nodes {
			c.pull(i, b)
		}
		c.wantGets(b, 1)
	}
}

func TestMeshAsymmetricLink(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]trouble{"refused": {cut: true}, "dropped": {silent: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newExactCluster(t, 3)
			c.links.of(1, 0).set(f) // 0 can ask 1, but 1 cannot ask 0
			for range 3 {
				theirs := c.blobOf(0, mib)
				c.pull(1, theirs)
				c.pull(2, theirs)
				if n := c.gets(theirs); n > 2 {
					t.Errorf("the registry was asked %d times", n)
				}
			}
			ours := c.blobOf(1, mib)
			if p := c.pull(0, ours); !strings.HasPrefix(p.status, "node-1; ") {
				t.Errorf("the direction that works is not used: %q", p.status)
			}
			c.wantGets(ours, 1)
		})
	}
}

func TestMeshCrawlingOwner(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	const speed, size = 8 * mib, 16 * mib // of the registry and of a blob
	b := c.blobOf(0, size)
	second, _ := c.others(b)
	next := c.blobOf(0, size)
	for c.order(next.Digest)[1] != second { // another second node would have to notice by itself
		next = c.blobOf(0, size)
	}
	c.pull(0, b)
	c.pull(0, next)
	c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet}, SlowBytesPerSecond: speed})
	c.links.of(second, 0).set(trouble{rate: 200_000})
	p, q := c.pull(second, b), c.pull(second, next)
	alone := time.Duration(size) * time.Second / speed
	t.Logf("without the owner %v; with one that crawls %v, the next %v", alone, p.took, q.took)
	c.wantLeftOnce(second, 0)
}

func TestMeshFlappingNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	ring := func() uint64 { return c.nodes[0].node.cluster.Members().View().Ring.Hash() }
	before := ring()
	for k := range 3 {
		if k%2 == 0 {
			c.kill(2)
		} else {
			c.stop(2)
		}
		for i := range 2 {
			c.pull(i, c.blob(100_000))
		}
		c.start(2)
		b := c.blob(100_000)
		for i := range c.nodes {
			c.pull(i, b)
		}
	}
	c.awaitMembers(3)
	if ring() != before {
		t.Error("the ring has changed")
	}
}
