package node

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"oci-proxy/node/membership"
	"oci-proxy/transfer/grants"
)

// What a living member holds never comes from the registry again, whoever joins, leaves
// or dies. These tests pull one blob after the other and look who holds each one before.

// A onceTally pulls blobs through a cluster, and counts what the registry sent though a
// living node had it.
type onceTally struct {
	c     *testCluster
	r     *rand.Rand
	blobs []testBlob
	twice []string // what came again
	bytes int64    // of all different blobs
	lost  int64    // bytes that came again because no living node had them
}

func newOnceTally(c *testCluster, seed uint64) *onceTally {
	return &onceTally{c: c, r: rand.New(rand.NewPCG(seed, 1))}
}

// any is a running node.
func (w *onceTally) any() int {
	all := w.c.running()
	return all[w.r.IntN(len(all))].i
}

// fresh pulls n new blobs, each through some node.
func (w *onceTally) fresh(n int) {
	w.c.t.Helper()
	for range n {
		b := w.c.blob(int64(20_000 + w.r.IntN(80_000)))
		w.blobs, w.bytes = append(w.blobs, b), w.bytes+b.size
		w.c.pull(w.any(), b)
		w.c.wantGets(b, 1)
	}
}

// again pulls n blobs that are known, each through some node.
func (w *onceTally) again(n int) {
	w.c.t.Helper()
	for range n {
		w.pull(w.any(), w.blobs[w.r.IntN(len(w.blobs))])
	}
}

// all pulls all known blobs through node i.
func (w *onceTally) all(i int) {
	w.c.t.Helper()
	for _, b := range w.blobs {
		w.pull(i, b)
	}
}

// pull pulls a known blob.
func (w *onceTally) pull(i int, b testBlob) {
	w.c.t.Helper()
	holders, before := w.holders(b), w.c.gets(b)
	p := w.c.pull(i, b)
	switch more := w.c.gets(b) - before; {
	case more > 0 && len(holders) > 0:
		w.twice = append(w.twice, fmt.Sprintf("a blob that %v hold, of the owners %v, through %d: %s", holders, w.c.order(b.Digest), i, p.status))
	case more > 0:
		w.lost += b.size
	}
}

// holders lists the running nodes that hold a blob.
func (w *onceTally) holders(b testBlob) (all []int) {
	for _, one := range w.c.running() {
		if slices.ContainsFunc(one.node.registries.Shards(), func(s *grants.Shard) bool { _, ok := s.Stat(b.Digest); return ok }) {
			all = append(all, one.i)
		}
	}
	return all
}

// settle waits until a node that was started knows all that run.
func (w *onceTally) settle(i int) {
	w.c.t.Helper()
	w.c.nodes[i].awaitView("all that run", func(v *membership.View) bool {
		for _, one := range w.c.running() {
			if m, ok := v.Member(one.node.cluster.Members().View().Self.ID); !ok || !m.Up {
				return false
			}
		}
		return true
	})
}

// wantOnce fails the test if anything came again that a living node had.
func (w *onceTally) wantOnce() {
	w.c.t.Helper()
	w.c.t.Logf("%d blobs of %d bytes; the registry sent %.3f × that, %d bytes of it because no living node had them", len(w.blobs), w.bytes, float64(w.c.up.BytesSent())/float64(w.bytes), w.lost)
	if len(w.twice) > 0 {
		w.c.t.Errorf("%d times the registry was asked for what a living node held: %s", len(w.twice), w.twice[0])
	}
}

func TestMeshOnceWhenOneDies(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 6)
	w := newOnceTally(c, 1)
	w.fresh(40)
	w.again(40)
	c.kill(0)
	for _, one := range c.running() {
		w.all(one.i)
	}
	w.wantOnce()
}

func TestMeshOnceWhenNodesJoin(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	w := newOnceTally(c, 2)
	w.fresh(30)
	w.again(10)
	for range 3 {
		i := c.join()
		w.settle(i)
		w.fresh(5)
		w.again(10)
		w.all(i)
	}
	w.wantOnce()
}

// A node that has just started is asked before it knows the others: by clients, and by members
// that know it already.
func TestMeshOnceWhenNodesAreAskedAtOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	w := newOnceTally(c, 6)
	w.fresh(30)
	for range 2 {
		w.all(c.join())
	}
	c.stop(0)
	c.start(0)
	w.all(0)
	w.wantOnce()
}

func TestMeshOnceWhenAllRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 4)
	w := newOnceTally(c, 3)
	w.fresh(30)
	w.again(30)
	for i := range c.nodes {
		c.stop(i)
		w.again(20)
		w.fresh(3)
		c.start(i)
		w.settle(i)
		w.again(20)
	}
	for i := range c.nodes {
		w.all(i)
	}
	w.wantOnce()
}

func TestMeshOnceWhenSomeLeave(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	w := newOnceTally(c, 4)
	w.fresh(30)
	w.again(20)
	for i := range 2 {
		c.leave(i)
		w.again(20)
		w.fresh(3)
	}
	for _, one := range c.running() {
		w.all(one.i)
	}
	w.wantOnce()
	if w.lost > 0 {
		t.Errorf("%d bytes were lost with nodes that left", w.lost)
	}
}

// Nodes join, leave, die, restart and come back at random.
func TestMeshOnceWhateverHappens(t *testing.T) {
	t.Parallel()
	const seed = 5
	c := newCluster(t, 5)
	w := newOnceTally(c, seed)
	w.fresh(20)
	var away []int
	for range 12 {
		i := w.any()
		switch what := w.r.IntN(5); {
		case what == 0 && len(c.nodes) < 8:
			i = c.join()
			w.settle(i)
		case what == 1 && len(c.running()) > 3:
			c.leave(i)
		case what == 2 && len(c.running()) > 3:
			c.kill(i)
			away = append(away, i)
		case len(away) > 0:
			i, away = away[0], away[1:]
			c.start(i)
			w.settle(i)
		default:
			c.stop(i)
			c.start(i)
			w.settle(i)
		}
		w.again(10)
		w.fresh(2)
	}
	for _, one := range c.running() {
		w.all(one.i)
	}
	w.wantOnce()
}
