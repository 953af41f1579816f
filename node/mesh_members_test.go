package node

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"oci-proxy/node/cluster"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

func TestMeshSeedGone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.stop(0) // node 1's only seed
	c.pull(1, c.blob(1000))
	late := c.join() // its seeds are 0, which is gone, and 1
	c.awaitMembers(2)
	c.pull(late, c.blob(1000))
	c.start(0)
	c.awaitMembers(3)
}

func TestMeshAllRestartWithoutTheRegistry(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	var blobs []testBlob
	for i := range 6 {
		b := c.blob(200_000)
		c.pull(i%3, b)
		blobs = append(blobs, b)
	}
	for i := range c.nodes {
		if i == 1 {
			c.kill(i)
		} else {
			c.stop(i)
		}
	}
	c.up.Down()
	for i := range c.nodes {
		c.start(i)
	}
	c.awaitMembers(3)
	for _, b := range blobs {
		for i := range c.nodes {
			c.pull(i, b)
		}
	}
}

// Two nodes at least hold each blob. A blob that only one node holds is missing while
// that node is down.
func TestMeshRollingRestartUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	var blobs []testBlob
	var sum int64
	for k := range 30 {
		b := c.blob(int64(50_000 + 20_000*k))
		blobs, sum = append(blobs, b), sum+b.size
		second, _ := c.others(b)
		c.pull(second, b)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	pulls, wrong := 0, []string(nil)
	for k := range 4 {
		wg.Go(func() {
			for n := k; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				b := blobs[n*7%len(blobs)]
				var p pulled
				i := n % 3
				for ; ; i = (i + 1) % 3 { // as a load balancer does that asks which node is ready
					if resp, err := c.ask(http.MethodGet, i, "/_/ready"); err == nil && read(resp).StatusCode == http.StatusOK {
						if p = c.tryPull(i, b.Digest); p.code != 0 {
							break // otherwise the node has just gone, and a load balancer tries another
						}
					}
				}
				mu.Lock()
				pulls++
				if !p.whole {
					wrong = append(wrong, fmt.Sprintf("at %d: status %d, %d bytes, %v", i, p.code, p.n, p.err))
				}
				mu.Unlock()
			}
		})
	}
	for i := range c.nodes {
		c.stop(i)
		c.start(i)
		c.awaitMembers(3)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d pulls", pulls)
	if len(wrong) > 0 {
		t.Errorf("%d of %d pulls failed: %s", len(wrong), pulls, wrong[0])
	}
	t.Logf("the registry sent %.2f × the bytes", float64(c.up.BytesSent())/float64(sum))
	if c.starved() {
		return
	}
	for _, b := range blobs {
		c.wantGets(b, 1)
	}
}

// starved reports whether a node did not answer in time whether it holds a blob. Then
// another node may ask the registry too: that is the price of not waiting.
func (c *testCluster) starved() bool {
	c.t.Helper()
	for _, one := range c.nodes {
		if strings.Contains(one.log.String(), "did not answer a peek") {
			c.t.Logf("%s got no answer to a peek: this machine is too busy to be strict", one.name)
			return true
		}
	}
	return false
}

// The nodes know each other but have two different rings. All of them are asked at the
// same time.
func TestMeshRingDisagreement(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	old := c.nodes[0].node.cluster.Members().View()
	c.join()
	c.awaitMembers(3)
	now := c.nodes[0].node.cluster.Members().View()
	c.nodes[0].stuck.Store(&membership.View{Self: now.Self, Members: now.Members, Ring: old.Ring})
	for range 12 {
		b := c.blob(300_000)
		c.atOnce(b)
		if !c.starved() {
			c.wantGets(b, 1)
		}
	}
}

// atOnce pulls the blob at all nodes at the same time.
func (c *testCluster) atOnce(b testBlob) {
	c.t.Helper()
	var came []<-chan pulled
	for _, one := range c.running() {
		came = append(came, c.began(one.i, b))
	}
	for _, p := range came {
		(<-p).wantWhole(c.t)
	}
}

func TestMeshJoinUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	var blobs []testBlob
	for range 30 {
		b := c.blob(100_000)
		c.pull(0, b)
		blobs = append(blobs, b)
	}
	late := c.join()
	c.awaitMembersOf(late, 3) // a node that knows no other would ask the registry itself
	for range 20 {            // some of the pulls come before all nodes know the new one
		b := c.blob(100_000)
		c.atOnce(b)
		blobs = append(blobs, b)
	}
	c.awaitMembers(3)
	for k, b := range blobs {
		had := c.gets(b)
		p := c.pull(2, b)
		if n := c.gets(b); n != 1 && !c.starved() {
			t.Errorf("blob %d: the registry was asked %d times, and %d by now: %q", k, had, n, p.status)
		}
	}
}

func TestMeshWrongSecret(t *testing.T) {
	t.Parallel()
	c := formCluster(t, 2, upstreamtest.New(t), func(i int) form {
		if i == 2 {
			return form{cluster: `secrets: ["quite another secret"]`}
		}
		return form{}
	})
	c.join()
	c.awaitLog(2, "could decrypt")
	c.awaitMembersOf(2, 1)
	c.awaitMembersOf(0, 2)
	b := c.blob(1000)
	for i := range c.nodes {
		c.pull(i, b)
	}
	c.wantGets(b, 2)
	for _, one := range c.nodes {
		for _, secret := range []string{meshSecret, "quite another secret"} {
			if strings.Contains(one.log.String(), secret) {
				t.Errorf("a secret is in the log of %s", one.name)
			}
		}
	}
}

// A node starts with the identity of another. One of them takes a new one; then all are
// members, and pull from each other.
func TestMeshDuplicateIdentity(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	c := newCluster(t, 2)
	id, err := os.ReadFile(filepath.Join(c.nodes[0].dir, "node-id"))
	if err != nil {
		t.Fatal(err)
	}
	twin := c.node(2, "node-2", "twin")
	if err := os.Mkdir(twin.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(twin.dir, "node-id"), id, 0o600); err != nil {
		t.Fatal(err)
	}
	c.nodes = append(c.nodes, twin)
	c.start(2)
	c.awaitMembers(3)
	ids := map[string]bool{}
	for _, one := range c.nodes {
		saved, err := os.ReadFile(filepath.Join(one.dir, "node-id"))
		if err != nil {
			t.Fatal(err)
		}
		ids[string(saved)] = true
	}
	if len(ids) != 3 || !ids[string(id)] {
		t.Errorf("the ids are %v; one was %s", ids, id)
	}
	c.await("the rings agree", func() bool {
		rings := map[string]bool{}
		for i := range c.nodes {
			var d cluster.Description
			c.json(i, "/_/cluster", &d)
			up := slices.DeleteFunc(d.Members, func(m cluster.Member) bool { return m.State != "active" })
			rings[fmt.Sprint(d.Ring, len(up), len(d.Members))] = true
		}
		return len(rings) == 1
	})
	b := c.blob(1000)
	for i := range c.nodes {
		c.pull(i, b)
		c.await("it is healthy", func() bool { return !bytes.Contains(c.get(i, "/_/health").body, []byte("degraded")) })
	}
	c.wantGets(b, 1)
}

// A node that comes back is ready only once it knows the others. A node that knows no
// other would ask the registry for everything that they hold.
func TestMeshNodeIsReadyWhenItKnowsTheOthers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for range 3 {
		c.stop(1)
		c.start(1)
		c.await("it is ready", func() bool { return c.get(1, "/_/ready").StatusCode == http.StatusOK })
		if n := c.nodes[1].node.cluster.Size(); n != 3 {
			t.Errorf("it is ready and knows %d members", n)
		}
	}
	c.stop(0)
	c.stop(2)
	c.stop(1)
	c.start(1) // there is no other node to find
	c.await("it is ready alone", func() bool { return c.get(1, "/_/ready").StatusCode == http.StatusOK })
}
