package transfer_test

import (
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A node that holds a blob and waits for a slow registry to vouch for it does not count
// as crawling.
func TestWaitingForTheRegistrysWordIsNoCrawling(t *testing.T) {
	t.Parallel()
	var private atomic.Bool
	m := newMesh(t, 2, setup{private: func(string) bool { return private.Load() }})
	m.nodes[1].routes(func(string) []int { return []int{0} })
	d, content := m.put(1, 100*kib)
	m.pull(0, d, content)
	owner, n := m.nodes[0], m.nodes[1]
	private.Store(true)
	owner.Grant(owner.ref(d), oci.BlobResource, time.Now().Add(-time.Hour))
	head := upstreamtest.Match{Method: "HEAD"}
	release := m.registry.Hold(head)
	time.AfterFunc(18*100*time.Millisecond, release) // after eighteen looks
	m.pull(1, d, content)
	if owner.faulted.Load() != 0 {
		t.Error("the owner is passed over")
	}
	if n := m.gets(d); n != 1 {
		t.Errorf("%d GETs", n)
	}
	testkit.Await(t, "the note", func() bool { // the note may come a moment after the bytes
		p := n.Holder().Progress(n.ref(d))
		return p.Held && !p.Unvouched
	})
}

// What a private registry brought is not held for another one that shares the shard: neither a
// peek nor the question how far the node is says so.
func TestWhatAnotherRegistryBroughtIsNotHeld(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 1, setup{private: func(registry string) bool { return registry != "other.example.com" }})
	d, content := m.put(1, 100*kib)
	m.pull(0, d, content)
	n := m.nodes[0]
	own := n.ref(d)
	if p := n.Holder().Progress(own); !p.Held || p.Offset != 100*kib {
		t.Errorf("its own: %+v", p)
	}
	other := own
	other.Registry = "other.example.com"
	if p := n.Holder().Progress(other); p.Held || p.Offset != 0 || n.Holder().Presence(other, "node-001") != mesh.Absent {
		t.Errorf("another's: %+v", p)
	}
}
