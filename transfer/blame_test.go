package transfer_test

import (
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// A registry sends wrong bytes first, and other bytes to the node that continues the
// download. Honest nodes are not blamed for that.
func TestARegistrysLiesAreNotItsReaders(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 2, setup{})
	m.nodes[1].routes(func(string) []int { return []int{0} })
	d, content := m.put(1, 300*kib)
	m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/blobs/"}, Corrupt: true, CorruptAt: 5})
	n := m.nodes[1]
	if _, _, err := n.pull(n.ref(d), content, 0, -1); err == nil {
		t.Error("the client got wrong bytes")
	}
	n.events.await(notFilled, 1)
	if m.nodes[0].faulted.Load() != 0 {
		t.Error("the node that passed the wrong bytes on is blamed for them")
	}
}
