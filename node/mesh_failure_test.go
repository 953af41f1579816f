package node

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/upstreamtest"
)

// The rows of the failure table, and where each is put to the test:
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
//	clock skew                      the protocol has no clock
//	seed gone                       TestMeshSeedGone
//	all restart at once             TestMeshAllRestartWithoutTheRegistry
//	rolling restart                 TestMeshRollingRestartUnderLoad
//	ring disagreement               TestMeshRingDisagreement, TestMeshJoinUnderLoad (and 1,000 random views: transfer)
//	duplicate id                    TestMeshDuplicateIdentity
//	wrong secret                    TestMeshWrongSecret
//	UDP blocked                     cmd/oci-proxy, in network namespaces
//	upstream down, wrong, slow, 429 TestMeshUpstreamFails…
//	128 and more nodes              node/membership, in virtual time
//	client disconnects              TestMeshClientDisconnects

// gated makes the registry stop in the middle of the blob, at its first GET.
func (c *testCluster) gated(b testBlob) (release func()) { return halve(c.up, b.String(), b.size) }

// bytes are the last blob's.
func (c *testCluster) bytes(b testBlob) []byte { return random(c.seed, b.size) }

// others are two nodes that don't own the blob, the one that is asked after the
// owner first.
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
	// It is down, not out: who is next acts for it, at once.
	p := c.pull(third, c.blob(mib))
	t.Logf("the next one took %v", p.took)
}

// Who is next has half of the blob, does not know yet that the owner is dead, and
// is asked to act for it.
func TestMeshOwnerKilledAndWhoIsNextHasAPart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
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
	c.kill(0)
	p := <-done
	p.wantWhole(t)
	t.Logf("%v in all", p.took)
	c.wantGets(b, 2) // what only the dead had comes once more
	if sent := c.up.BytesSent(); sent > 2*b.size {
		t.Errorf("the registry sent %d bytes, the blob has %d", sent, b.size)
	}
}

func TestMeshOwnerHangsBeforeTheHeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, mib)
	_, third := c.others(b)
	c.hang(0)
	first := c.pull(third, b)
	c.wantGets(b, 1)
	c.wantNoPause(third, 0, first)
}

func TestMeshOwnerHangsInMidBody(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 8*mib)
	c.pull(0, b)
	_, third := c.others(b)
	c.links.of(third, 0).set(trouble{rate: 8 * mib})
	done := c.began(third, b)
	c.await("some of the blob comes", func() bool { return c.own(third)[figures.FromPeersBytes] >= mib })
	c.hang(0)
	c.wantNoPause(third, 0, <-done)
}

// wantNoPause wants the first pull after a node hangs to be whole, and those
// after it not to wait for that node again, though gossip sees it alive.
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

// wantLeftOnce wants a node to have found once, and no more, that another is
// not well.
func (c *testCluster) wantLeftOnce(at, sick int) {
	c.t.Helper()
	line := fmt.Sprintf(`"msg":"peer quarantined until it answers a ping","peer":%q`, c.nodes[sick].name)
	if n := strings.Count(c.nodes[at].log.String(), line); n != 1 {
		c.t.Errorf("node %d was found out %d times", sick, n)
	}
}

func TestMeshOwnersDirectoryIsGone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	known := c.blobOf(0, mib)
	c.pull(0, known)
	if err := os.RemoveAll(c.nodes[0].dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.nodes[0].dir, nil, 0o600); err != nil { // so that it can't be made anew
		t.Fatal(err)
	}
	for _, b := range []testBlob{known, c.blobOf(0, mib), c.blobOf(0, 100)} {
		_, third := c.others(b)
		c.pull(third, b)
		c.pull(0, b)
	}
	var health struct {
		Status  string
		Reasons []string
	}
	c.json(0, "/_/health", &health)
	if health.Status != "degraded" || len(health.Reasons) == 0 {
		t.Errorf("health is %+v", health)
	}
}

func TestMeshCorruptedFileOfTheOwner(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 4*mib)
	c.pull(0, b)
	c.corrupt(0, b, 2*mib)
	_, third := c.others(b)
	p := c.tryPull(third, b.Digest)
	if !p.whole && p.err == nil && p.n == b.size {
		t.Error("a client got a whole blob that is wrong")
	}
	t.Logf("the pull: whole %v, %d bytes, %v", p.whole, p.n, p.err)
	c.pull(third, b)
	c.pull(0, b)
	c.pull(0, b)
}

// corrupt flips a bit of the blob's file.
func (c *testCluster) corrupt(i int, b testBlob, at int64) {
	c.t.Helper()
	var file string
	err := filepath.WalkDir(c.nodes[i].dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, b.Encoded()) {
			file = path
		}
		return err
	})
	if err != nil || file == "" {
		c.t.Fatalf("the blob's file: %q, %v", file, err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	one := make([]byte, 1)
	_, rerr := f.ReadAt(one, at)
	one[0] ^= 1
	_, werr := f.WriteAt(one, at)
	if cerr := f.Close(); rerr != nil || werr != nil || cerr != nil {
		c.t.Fatal(rerr, werr, cerr)
	}
}

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
			t.Errorf("two halves asked %d times", n)
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
			c := newCluster(t, 3)
			c.links.of(1, 0).set(f) // 0 asks 1, 1 can't ask 0
			for range 3 {
				theirs := c.blobOf(0, mib)
				c.pull(1, theirs)
				c.pull(2, theirs)
				if n := c.gets(theirs); n > 2 {
					t.Errorf("asked %d times", n)
				}
			}
			ours := c.blobOf(1, mib)
			if p := c.pull(0, ours); !strings.HasPrefix(p.status, "node-1; ") {
				t.Errorf("the way back is not used: %q", p.status)
			}
			c.wantGets(ours, 1)
		})
	}
}

func TestMeshCrawlingOwner(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	const speed, size = 8 * mib, 16 * mib // of the registry, and of a blob
	b := c.blobOf(0, size)
	second, _ := c.others(b)
	next := c.blobOf(0, size)
	for c.order(next.Digest)[1] != second { // another node would find out by itself
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

func TestMeshSeedGone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.stop(0) // the only seed that node 1 was given
	c.pull(1, c.blob(1000))
	late := c.join() // is told the seeds 0, which is gone, and 1
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

// Blobs that one node alone has are off while it is: these lie on two at least.
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
				for ; ; i = (i + 1) % 3 { // a balancer that asks who is ready
					if resp, err := c.ask(http.MethodGet, i, "/_/ready"); err == nil && read(resp).StatusCode == http.StatusOK {
						if p = c.tryPull(i, b.Digest); p.code != 0 {
							break // else it has gone since, and a balancer tries another
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

// starved reports whether a node had no time to answer whether it has a blob.
// Then another may ask the registry too: that is the price of not waiting.
func (c *testCluster) starved() bool {
	c.t.Helper()
	for _, one := range c.nodes {
		if strings.Contains(one.log.String(), "peek not answered") {
			c.t.Logf("%s got no answer to a peek: this machine is too busy to be strict", one.name)
			return true
		}
	}
	return false
}

// The nodes know each other, but believe in two rings, and all ask at once.
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
	c.awaitMembersOf(late, 3) // alone it would ask the registry itself
	for range 20 {            // some of these before all know of it
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

// awaitMembersOf waits until a node knows of n that are up.
func (c *testCluster) awaitMembersOf(i, n int) {
	c.t.Helper()
	one := c.nodes[i]
	one.awaitView(fmt.Sprintf("%d members", n), func(*membership.View) bool { return one.node.cluster.Size() == n })
}

// awaitLog waits until a node has said so.
func (c *testCluster) awaitLog(i int, part string) {
	c.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		text, more := c.nodes[i].log.look()
		if strings.Contains(text, part) {
			return
		}
		select {
		case <-more:
		case <-timeout.C:
			c.t.Fatalf("%q is not in\n%s", part, text)
		}
	}
}

func TestMeshUpstreamFailsWhileItIsDown(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	known, unknown := c.blobOf(0, 1000), c.blobOf(0, 1000)
	c.pull(1, known)
	c.up.Down()
	for i := range c.nodes {
		c.pull(i, known)
		start := time.Now()
		d := c.get(i, blobPath(unknown.Digest)).wantError(t, http.StatusBadGateway, "UNAVAILABLE")
		if d.Reason == "" || d.Registry != c.up.Host() {
			t.Errorf("detail %+v", d)
		}
		t.Logf("node %d: %v, %+v", i, time.Since(start), d)
	}
	for i := range c.nodes { // a registry that is down is nobody else's fault
		for _, other := range c.nodes {
			if other.i != i && !c.nodes[i].node.cluster.Client().Healthy(other.node.cluster.Members().View().Self.ID) {
				t.Errorf("node %d passes over node %d", i, other.i)
			}
		}
	}
}

func TestMeshUpstreamFailsWithWrongBytes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 4*mib)
	c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: b.String()}, Corrupt: true, CorruptAt: mib})
	_, third := c.others(b)
	if p := c.tryPull(third, b.Digest); p.code == http.StatusOK && p.err == nil {
		t.Errorf("a client got %d bytes and no error", p.n)
	}
	for _, one := range c.nodes {
		if s := c.own(one.i); s[figures.Items] != 0 {
			t.Errorf("%s keeps it", one.name)
		}
	}
	if n := c.gets(b); n > 8 {
		t.Errorf("the registry was asked %d times", n)
	}
	c.up.ClearFaults()
	c.pull(third, b)
}

func TestMeshUpstreamFailsWith429(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 1000)
	c.up.Fault(upstreamtest.Fault{
		Match: upstreamtest.Match{PathPart: b.String()}, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"77"}},
	})
	for i := range c.nodes {
		a := c.get(i, blobPath(b.Digest))
		d := a.wantError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
		t.Logf("node %d: Retry-After %q, %+v", i, a.Header.Get("Retry-After"), d)
		if a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if n := c.gets(b); n > 3 {
		t.Errorf("the registry was asked %d times by three clients", n)
	}
}

func TestMeshUpstreamFailsInMidBodyAndIsSlow(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 4*mib)
	blob := upstreamtest.Match{Method: http.MethodGet, PathPart: b.String()}
	c.up.Fault(upstreamtest.Fault{Match: blob, Times: 1, CutAfter: mib})
	c.up.Fault(upstreamtest.Fault{Match: blob, SlowBytesPerSecond: mib})
	_, third := c.others(b)
	c.pull(third, b) // a slow registry is no hung owner: nobody else asks
	c.wantGets(b, 2)
	if sent := c.up.BytesSent(); sent > b.size+mib {
		t.Errorf("the registry sent %d bytes of %d", sent, b.size)
	}
}

// A registry that takes its time over a tag or a listing hangs no owner.
func TestMeshSlowTag(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.up.PutImage(repo, "slow", random(1, 1000))
	for _, path := range []string{"/manifests/slow", "/tags/list"} {
		c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: path}, Wrap: func(_ http.ResponseWriter, r *http.Request) bool {
			select {
			case <-time.After(3 * time.Second): // longer than a peer may show no sign of life
			case <-r.Context().Done():
			}
			return false
		}})
	}
	var wg sync.WaitGroup
	for i := range c.nodes {
		for _, path := range []string{"manifests/slow", "tags/list"} {
			wg.Go(func() {
				if a := c.get(i, "/v2/"+c.up.Host()+"/"+repo+"/"+path); a.StatusCode != http.StatusOK {
					t.Errorf("node %d, %s: %d %s", i, path, a.StatusCode, a.body)
				}
			})
		}
	}
	wg.Wait()
	if n := c.up.Count(http.MethodHead, "/manifests/slow"); n != 1 {
		t.Errorf("the registry was asked %d times for one tag", n)
	}
	for i, n := range c.nodes {
		if log := n.log.String(); strings.Contains(log, "quarantined") {
			t.Errorf("node %d passes another over: %s", i, log)
		}
	}
}

func TestMeshClientDisconnects(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 8*mib)
	release := c.gated(b)
	_, third := c.others(b)
	resp, err := c.ask(http.MethodGet, third, blobPath(b.Digest))
	if err != nil {
		t.Fatal(err)
	}
	stays := c.began(0, b)
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	release()
	(<-stays).wantWhole(t)
	c.pull(third, b)
	c.wantGets(b, 1)
}

func TestMeshDuplicateIdentity(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	c := newCluster(t, 2)
	id, err := os.ReadFile(filepath.Join(c.nodes[0].dir, "node-id"))
	if err != nil {
		t.Fatal(err)
	}
	twin := &testNode{c: c, i: 2, name: "node-2", dir: filepath.Join(c.dir, "twin"), client: anyPort, gossip: anyPort, peer: anyPort, log: new(buffer)}
	if err := os.Mkdir(twin.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(twin.dir, "node-id"), id, 0o600); err != nil {
		t.Fatal(err)
	}
	c.nodes = append(c.nodes, twin)
	c.start(2)
	c.awaitLog(0, "another node has this node's identity")
	c.awaitLog(2, "another node has this node's identity")
	if a := c.get(2, "/_/health"); !bytes.Contains(a.body, []byte("node-id")) {
		t.Errorf("health is %s", a.body)
	}
	b := c.blob(1000)
	for i := range c.nodes {
		c.pull(i, b)
	}
}

// A node that comes back gets traffic when it knows the others, not before: alone
// it would ask the registry for all that they have.
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
	c.start(1) // nobody is to be found
	c.await("it is ready alone", func() bool { return c.get(1, "/_/ready").StatusCode == http.StatusOK })
}
