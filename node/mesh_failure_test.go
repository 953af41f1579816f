package node

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/transfer/upstreamtest"
)

// This table lists the failures that a mesh survives, and where each is tested:
//
//	killed in mid-stream            TestMeshOwnerKilledInMidStream (and real processes: cmd/oci-proxy)
//	hangs                           TestMeshOwnerHangs… (and SIGSTOP: cmd/oci-proxy)
//	disk full                       TestMeshOwnersDiskIsFull (root only)
//	cache directory gone            TestMeshOwnersDirectoryIsGone
//	corrupted file                  TestMeshCorruptedFileOfTheOwner
//	partition and healing           TestMeshPartition: pulls; gossip's part: node/membership
//	asymmetric link                 TestMeshAsymmetricLink (and in network namespaces: cmd/oci-proxy)
//	slow peer                       TestMeshCrawlingOwner
//	flapping node                   TestMeshFlappingNode
//	join, leave, die, restart       TestMeshOnce…: what a living node holds does not come again
//	hardly any processor            TestMeshFigureStarvedNodes in cmd/oci-proxy
//	clock skew                      the protocol has no clock
//	seed gone                       TestMeshSeedGone
//	all restart at once             TestMeshAllRestartWithoutTheRegistry
//	rolling restart                 TestMeshRollingRestartUnderLoad
//	ring disagreement               TestMeshRingDisagreement, TestMeshJoinUnderLoad (and random views: transfer)
//	duplicate id                    TestMeshDuplicateIdentity
//	wrong secret                    TestMeshWrongSecret
//	UDP blocked                     cmd/oci-proxy, in network namespaces
//	upstream down, wrong, slow, 429 TestMeshUpstreamFails…
//	128 and more nodes              node/membership, in virtual time
//	client disconnects              TestMeshClientDisconnects

// gated makes the registry stop in the middle of the blob at its first GET.
func (c *testCluster) gated(b testBlob) (release func()) { return halve(c.up, b.String(), b.size) }

// bytes returns the bytes of the last blob, which must be b.
func (c *testCluster) bytes(b testBlob) []byte { return random(c.seed, b.size) }

// others returns the two nodes that do not own the blob. The first one is asked next
// after the owner.
func (c *testCluster) others(b testBlob) (second, third int) {
	order := c.order(b.Digest)
	return order[1], order[2]
}

func TestMeshOwnerKilledInMidStream(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 8*mib)
	release := c.gated(b)
	second, third := c.others(b)
	one, two := c.began(second, b), c.began(third, b)
	c.up.WaitFor(upstreamtest.Match{Method: http.MethodGet, PathPart: b.String()}, 1)
	for _, i := range []int{second, third} {
		c.await("half of the blob comes", func() bool { return c.own(i)[figures.FromPeersBytes] >= b.size/2-256<<10 })
	}
	c.kill(0)
	for _, p := range []pulled{<-one, <-two} {
		p.wantWhole(t)
		t.Logf("a pull whose owner died took %v", p.took)
	}
	release()
	c.wantGets(b, 2)
	if sent := c.up.BytesSent(); sent > b.size*11/10 {
		t.Errorf("the registry sent %d bytes of %d", sent, b.size)
	}
	// The owner is down but keeps its place: the next node stands in for it at once.
	p := c.pull(third, c.blob(mib))
	t.Logf("the next one took %v", p.took)
}

// The next node has half of the blob, does not know yet that the owner is dead, and is
// asked to stand in for it.
func TestMeshOwnerKilledAndTheNextNodeHasAPart(t *testing.T) {
	t.Parallel()
	c := newExactCluster(t, 3)
	b := c.blobOf(0, 8*mib)
	defer c.gated(b)()
	second, third := c.others(b)
	one, two := c.began(second, b), c.began(third, b)
	for _, i := range []int{second, third} {
		c.await("half of the blob comes", func() bool { return c.own(i)[figures.FromPeersBytes] >= b.size/2-256<<10 })
	}
	c.links.of(second, 0).set(trouble{silent: true})
	c.kill(0)
	for _, p := range []pulled{<-two, <-one} {
		p.wantWhole(t)
		t.Logf("it took %v: %s; %d bytes sent", p.took, p.status, c.up.BytesSent())
	}
	c.wantGets(b, 2)
	if sent := c.up.BytesSent(); sent > b.size*11/10 {
		t.Errorf("the registry sent %d bytes of %d", sent, b.size)
	}
}

func TestMeshOwnerKilledWhileItServesFromItsDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 8*mib)
	c.pull(0, b)
	_, third := c.others(b)
	c.links.of(third, 0).set(trouble{rate: 4 * mib})
	done := c.began(third, b)
	c.await("some of the blob comes", func() bool { return c.own(third)[figures.FromPeersBytes] >= mib })
	c.links.of(third, 0).set(trouble{rate: 64 << 10}) // so slow that the node dies before it has sent everything
	c.kill(0)
	p := <-done
	p.wantWhole(t)
	t.Logf("%v in all", p.took)
	c.wantGets(b, 2) // what only the dead node had was downloaded again
	if sent := c.up.BytesSent(); sent > 2*b.size {
		t.Errorf("the registry sent %d bytes, the blob has %d", sent, b.size)
	}
}

func TestMeshOwnerHangsBeforeTheHeader(t *testing.T) {
	t.Parallel()
	c := newExactCluster(t, 3)
	b := c.blobOf(0, mib)
	_, third := c.others(b)
	c.hang(0)
	first := c.pull(third, b)
	c.wantGets(b, 1)
	c.wantNoPause(third, 0, first)
}

func TestMeshOwnerHangsInMidBody(t *testing.T) {
	t.Parallel()
	c := newExactCluster(t, 3)
	b := c.blobOf(0, 8*mib)
	c.pull(0, b)
	_, third := c.others(b)
	c.links.of(third, 0).set(trouble{rate: 8 * mib})
	done := c.began(third, b)
	c.await("some of the blob comes", func() bool { return c.own(third)[figures.FromPeersBytes] >= mib })
	c.hang(0)
	c.wantNoPause(third, 0, <-done)
}

// wantNoPause checks that the first pull after a node hangs is whole, and that later
// pulls do not wait for that node again though gossip sees it alive.
func (c *testCluster) wantNoPause(at, hung int, first pulled) {
	c.t.Helper()
	first.wantWhole(c.t)
	start := time.Now()
	for range 5 {
		c.pull(at, c.blobOf(hung, 100_000))
	}
	took := time.Since(start)
	c.t.Logf("the first pull took %v, five more %v", first.took, took)
	c.wantLeftOnce(at, hung)
}

// wantLeftOnce checks that a node passed over another exactly once.
func (c *testCluster) wantLeftOnce(at, sick int) {
	c.t.Helper()
	line := fmt.Sprintf(`"msg":"peer quarantined until it answers a ping","peer":%q`, c.nodes[sick].name)
	if n := strings.Count(c.nodes[at].log.String(), line); n != 1 {
		c.t.Errorf("node %d was passed over %d times, want once", sick, n)
	}
}

// A pull is found on all nodes by the id that its answer has, as are the failures of its
// way.
func TestMeshNamesARequestOnAllNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(1, 300<<10)
	id := c.get(0, blobPath(b.Digest)).id(t)
	for i, message := range []string{`"msg":"request"`, `"msg":"member answered"`} {
		c.await("the log has the request", func() bool {
			for line := range strings.Lines(c.nodes[i].log.String()) {
				if strings.Contains(line, message) && strings.Contains(line, b.String()) && strings.Contains(line, `"request_id":"`+id+`"`) {
					return true
				}
			}
			return false
		})
	}
}
