package transfer_test

import (
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/transfer/oci"
)

// large is the size of a blob that spreads from node to node.
const large = 9 << 20

// pullEverywhere pulls a blob through all nodes at once. Each must be right.
func (m *meshRig) pullEverywhere(ref oci.Ref, content []byte) {
	m.t.Helper()
	each(len(m.nodes), func(i int) {
		if _, _, err := m.nodes[i].pull(ref, content, 0, -1); err != nil {
			m.t.Errorf("node %d: %v", i, err)
		}
	})
}

// Members of earlier versions, as askers and as the root, get and give bytes as ever. Nobody is
// left for being late: who would go on elsewhere might make an old member lead.
func TestOldMembersAreFedByTheRoot(t *testing.T) {
	t.Parallel()
	for name, old := range map[string][]int{"some": {1, 3}, "the root": {0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, 6, setup{look: time.Hour})
			for _, i := range old {
				m.nodes[i].old = true
			}
			content := random(71, large)
			d := m.registry.PutBlob(repo, content)
			m.pullEverywhere(m.nodes[0].ref(d), content)
			if gets := m.registry.Count("GET", d.String()); gets != 1 {
				t.Errorf("%d GETs", gets)
			}
			for _, i := range old {
				if n := m.nodes[i].sent.Load(); i != 0 && n > 0 {
					t.Errorf("node %d, which knows nothing of feeding, sent %d bytes", i, n)
				}
			}
		})
	}
}

// What a private registry has goes from node to node as well, and to nobody who may not
// have it.
func TestPrivateContentSpreads(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 6, setup{private: all})
	content := random(72, large)
	img := m.registry.PutImage(repo, "v1", content)
	ref := m.nodes[0].ref(img.Layers[0])
	m.pullEverywhere(ref, content)
	if n := m.nodes[0].sent.Load(); n > 2*large+large/10 {
		t.Errorf("the root sent %d bytes", n)
	}
	for i, n := range m.nodes {
		if _, _, err := n.pull(in(ref, "strangers/app"), content, 0, -1); oci.KindOf(err) != oci.NotFound {
			t.Errorf("node %d, another repository's blob: %v", i, err)
		}
	}
}

// A feeder whose link crawls is left in mid-body, for another and not for the root.
func TestACrawlingFeederIsLeft(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 6, setup{})
	content := random(73, large)
	d := m.registry.PutBlob(repo, content)
	for i := range 5 { // the root, the two that it feeds, and two that those feed
		if _, _, err := m.nodes[i].pull(m.nodes[i].ref(d), content, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
	crawls := &fault{every: 20 * time.Millisecond, once: &atomic.Bool{}} // 200 KiB a second: the rest takes far longer than any wait
	for _, n := range m.nodes[1:5] {
		n.fails.Store(crawls)
	}
	sent, n := m.nodes[0].sent.Load(), m.nodes[5]
	if _, _, err := n.pull(n.ref(d), content, 0, -1); err != nil {
		t.Error(err)
	}
	if left := n.FeedersLeft(); !crawls.once.Load() || left["slow"] < 1 {
		t.Errorf("feeders left: %v", left)
	}
	if more := m.nodes[0].sent.Load() - sent; more > 0 || sent > 2*large || m.nodes[0].SentOn() < 4 {
		t.Errorf("the root sent %d bytes, then %d more, and sent on %d times", sent, more, m.nodes[0].SentOn())
	}
	if gets := m.registry.Count("GET", d.String()); gets != 1 {
		t.Errorf("%d GETs", gets)
	}
}
