package node

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/figures"
	"oci-proxy/node/image"
	"oci-proxy/transfer/upstreamtest"
)

// copyingCluster is formCluster for nodes that copy soon what only they hold.
func copyingCluster(t *testing.T, n int, of func(i int) form) *testCluster {
	t.Helper()
	c := formCluster(t, 0, upstreamtest.New(t), of)
	c.seams.CopyAfter, c.seams.Settle = 10*time.Millisecond, 100*time.Millisecond
	for range n {
		c.join()
	}
	c.awaitMembers(n)
	return c
}

// plain is the form of a node like all others.
func plain(int) form { return form{} }

// single is the form of a node that makes no second copies.
var single = form{cluster: `secret: "` + meshSecret + `", copies: 1`}

// copies are the second copies of what a node holds.
func (c *testCluster) copies(i int) cluster.Copies {
	return cluster.CopiesOf(c.nodes[i].node.cluster)
}

// holders counts the running nodes that hold a blob.
func (c *testCluster) holders(b testBlob) (n int) {
	for _, one := range c.running() {
		for _, shard := range one.node.registries.Shards() {
			if _, held := shard.Stat(b.Digest); held {
				n++
			}
		}
	}
	return n
}

// awaitNoted waits until a node has noted of n blobs that they have come. Their clients may have
// them a moment earlier.
func (c *testCluster) awaitNoted(i int, n int64) {
	c.t.Helper()
	c.await("the node has noted the blobs", func() bool { return c.copies(i).Waiting == n })
}

// awaitCopies waits until each of the blobs is on at least two nodes.
func (c *testCluster) awaitCopies(blobs []testBlob) {
	c.t.Helper()
	for _, b := range blobs {
		c.await("the blob is on two nodes", func() bool { return c.holders(b) >= 2 })
	}
}

// pullAll pulls all blobs at all running nodes, and fails the test if the registry is asked
// for any of them.
func (c *testCluster) pullAll(blobs []testBlob) {
	c.t.Helper()
	for _, b := range blobs {
		had := c.gets(b)
		for _, one := range c.running() {
			c.pull(one.i, b)
		}
		c.wantGets(b, had)
	}
}

// What only its owner holds is soon on a second node, and outlives the first.
func TestMeshSecondCopyOutlivesTheOwner(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 4, plain)
	var blobs []testBlob
	var sum int64
	for k := range 8 {
		b := c.blobOf(0, int64(1000+300_000*k))
		c.pull(0, b)
		blobs, sum = append(blobs, b), sum+b.size
	}
	manifest := c.up.PutManifest(repo, "", upstreamtest.TypeManifest, []byte(`{"schemaVersion":2}`))
	path := "/v2/" + repo + "/manifests/" + manifest.String()
	c.get(c.order(manifest)[0], path).want(t, http.StatusOK)
	c.awaitCopies(append(blobs, testBlob{manifest, 0}))
	c.await("all copies are counted", func() bool { now := c.copies(0); return now.Made >= 8 && now.Bytes >= sum && now.Waiting == 0 })
	for _, b := range blobs {
		if n := c.holders(b); n != 2 {
			t.Errorf("%d nodes hold a blob", n)
		}
	}
	c.kill(0)
	c.pullAll(blobs)
	c.get(c.running()[0].i, path).want(t, http.StatusOK, "Content-Type", upstreamtest.TypeManifest)
}

// What a member pulled through the owner is on two nodes already.
func TestMeshSecondCopyIsMadeOnlyOfWhatNobodyElseHolds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for range 4 {
		c.pull(1, c.blobOf(0, 100_000))
	}
	c.awaitNoted(0, 4)
	cluster.Secure(t.Context(), c.nodes[0].node.cluster)
	if now := c.copies(0); now != (cluster.Copies{}) {
		t.Errorf("%+v", now)
	}
}

func TestMeshNoSecondCopies(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 3, func(int) form { return single })
	b := c.blobOf(0, 100_000)
	c.pull(0, b)
	if now := c.copies(0); now != (cluster.Copies{}) || c.holders(b) != 1 {
		t.Errorf("%+v, %d nodes hold it", now, c.holders(b))
	}
}

// A copy never takes room from what a member keeps.
func TestMeshSecondCopyTakesNoRoom(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 2, func(i int) form {
		if i == 1 {
			return form{settings: settings{defaults: "cache_max_size: 1m"}}
		}
		return form{settings: settings{defaults: "cache_max_size: 4m"}}
	})
	own := c.blobOf(1, 900_000)
	c.pull(1, own)
	b := c.blobOf(0, 500_000)
	c.pull(0, b)
	c.await("nobody has taken it", func() bool { return c.copies(0).Failed >= 1 })
	if n, sent := c.holders(b), c.own(0)[figures.ToPeersBytes]; n != 1 || sent != 0 {
		t.Errorf("%d nodes hold it, and the taker got %d bytes", n, sent)
	}
	had := c.gets(own)
	c.pull(1, own)
	c.wantGets(own, had)
}

// When a member is gone, what it held and one other holds is copied again.
func TestMeshLostCopiesAreMadeAgain(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 4, plain)
	var blobs []testBlob
	for range 8 {
		b := c.blobOf(0, 50_000)
		c.pull(0, b)
		blobs = append(blobs, b)
	}
	c.awaitCopies(blobs)
	if done := c.leave(1); done.Bytes != 0 {
		t.Errorf("it handed over what others hold: %+v", done)
	}
	c.awaitMembers(3)
	c.awaitCopies(blobs)
	c.kill(0)
	c.pullAll(blobs)
}

// What a member that dies held, and one other holds, is copied again at once: neither the ring
// changes before that, nor does gossip know.
func TestMeshCopiesOfADeadMemberAreMadeAtOnce(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 4, plain)
	c.seams.Settle = time.Hour
	var blobs []testBlob
	for range 8 {
		b := c.blobOf(0, 50_000)
		c.pull(0, b)
		blobs = append(blobs, b)
	}
	c.awaitCopies(blobs)
	for _, i := range []int{0, c.order(blobs[0].Digest)[1]} {
		c.kill(i)
		c.awaitCopies(blobs)
	}
	c.pullAll(blobs)
}

// A killed node that comes back with its disk is asked for what it holds.
func TestMeshWhoComesBackIsAsked(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 4, func(int) form { return single })
	b := c.blobOf(0, 50_000)
	other := c.order(b.Digest)[3] // which is no owner
	c.pull(other, b)
	c.kill(0)
	c.kill(other)
	c.start(other)
	c.awaitMembers(3)
	c.pullAll([]testBlob{b})
}

// Of two nodes that leave at the same time neither counts on the other.
func TestMeshTwoThatLeaveDoNotCountOnEachOther(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 4, func(int) form { return single })
	var blobs []testBlob
	for range 8 {
		b := c.blobOf(0, 50_000)
		c.pull(1, b) // 0 and 1 hold it now
		blobs = append(blobs, b)
	}
	var both sync.WaitGroup
	for i := range 2 {
		both.Go(func() { c.leave(i) })
	}
	both.Wait()
	c.awaitMembers(2)
	c.pullAll(blobs)
}

// Second copies that are switched on while the node runs are made of what it holds.
func TestMeshSecondCopiesSwitchedOn(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 3, func(int) form { return single })
	var blobs []testBlob
	for range 4 {
		b := c.blobOf(0, 50_000)
		c.pull(0, b)
		blobs = append(blobs, b)
	}
	for _, one := range c.nodes {
		cfg := *one.node.cfg
		cfg.Cluster = new(config.Cluster)
		*cfg.Cluster = *one.node.cfg.Cluster
		cfg.Cluster.Copies = 2
		cluster.Reload(one.node.cluster, &cfg)
	}
	c.awaitCopies(blobs)
}

// What an operator brings is on two nodes soon, too.
func TestMeshImportedImagesAreCopied(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 3, plain)
	layer, cfg := random(1, 50_000), "{}"
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":2},"layers":[{"digest":%q,"size":%d}]}`, upstreamtest.TypeManifest, digest.FromString(cfg), digest.FromBytes(layer), len(layer))
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":1,"annotations":{"org.opencontainers.image.ref.name":"%s/org/app:v1"}}]}`, upstreamtest.TypeManifest, digest.FromString(m), c.up.Host())
	files := []string{image.IndexName, index}
	var blobs []testBlob
	for _, content := range []string{m, cfg, string(layer)} {
		d := digest.FromString(content)
		files, blobs = append(files, "blobs/sha256/"+d.Encoded(), content), append(blobs, testBlob{d, int64(len(content))})
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.nodes[0].client+"/_/import", strings.NewReader(tarOf(t, files...)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := c.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if a := read(resp); a.StatusCode != http.StatusOK {
		t.Fatalf("%d: %s", a.StatusCode, a.body)
	}
	c.awaitCopies(blobs)
}

// A newcomer gets what its predecessor alone holds.
func TestMeshNewOwnerGetsCopies(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 1, plain)
	var blobs []testBlob
	for range 8 {
		b := c.blob(50_000)
		c.pull(0, b)
		blobs = append(blobs, b)
	}
	c.join()
	c.awaitMembers(2)
	c.awaitCopies(blobs)
	c.kill(0)
	c.pullAll(blobs)
}

// A node that stops for a moment offers what has just come. What others hold stays where
// it is.
func TestMeshRestartSecuresWhatHasJustCome(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	var blobs []testBlob
	for k := range 6 {
		b := c.blobOf(0, 50_000)
		c.pull(0, b)
		if k%2 == 0 {
			c.pull(1, b)
		}
		blobs = append(blobs, b)
	}
	c.awaitNoted(0, 6)
	n := c.nodes[0].node
	c.stop(0)
	if now := cluster.CopiesOf(n.cluster); now.Made != 3 || now.Bytes != 150_000 {
		t.Errorf("%+v", now)
	}
	c.pullAll(blobs)
}

// Private content stays as private where it is copied.
func TestPrivateContentStaysPrivateWhereItIsCopied(t *testing.T) {
	t.Parallel()
	c := copyingCluster(t, 2, func(i int) form {
		return form{settings: settings{registry: []string{"private: true", ""}[i]}}
	})
	b := c.blobOf(0, 100<<10)
	c.pull(0, b)
	c.awaitCopies([]testBlob{b})
	strange := "/v2/strangers/app/blobs/" + b.String()
	if a := c.get(1, strange); a.StatusCode != http.StatusNotFound {
		t.Errorf("another repository's blob: status %d", a.StatusCode)
	}
	c.kill(0)
	if a := c.get(1, strange); a.StatusCode != http.StatusNotFound {
		t.Errorf("another repository's blob, the owner gone: status %d", a.StatusCode)
	}
	c.pull(1, b)
	c.wantGets(b, 1)
}

// A node that leaves hands over what nobody else has, and no more. Where the others make no
// second copies of what it held, nothing else moves.
func TestMeshLeaveHandsOverOnlyWhatNobodyElseHas(t *testing.T) {
	t.Parallel()
	c := formCluster(t, 4, upstreamtest.New(t), func(int) form { return single })
	var blobs []testBlob
	var alone int64
	for k := range 8 {
		b := c.blobOf(0, int64(10_000+1000*k))
		c.pull(0, b)
		if k%2 == 0 {
			c.pull(1+k%3, b)
		} else {
			alone += b.size
		}
		blobs = append(blobs, b)
	}
	if done := c.leave(0); done != (cluster.HandedOver{Blobs: 4, Bytes: alone, Held: 4}) {
		t.Errorf("%+v; others lacked %d bytes", done, alone)
	}
	c.awaitMembers(3)
	for _, b := range blobs {
		if n := c.holders(b); n != 1 {
			t.Errorf("%d nodes hold a blob", n)
		}
	}
}
