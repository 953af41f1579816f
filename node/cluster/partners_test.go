package cluster

import (
	"context"
	"testing"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

func TestPartnersAreForgottenWithTheirMember(t *testing.T) {
	t.Parallel()
	p := newPartners()
	p.note(blobNamed(0).Digest, "a")
	p.note(blobNamed(1).Digest, "b")
	p.note(blobNamed(2).Digest, "a")
	p.note(blobNamed(2).Digest, "b") // it was found elsewhere
	p.lose("a")
	for i, want := range []bool{false, true, true} {
		if p.has(blobNamed(i).Digest) != want {
			t.Errorf("blob %d", i)
		}
	}
	p.forget(blobNamed(1).Digest)
	if p.has(blobNamed(1).Digest) {
		t.Error("it is not forgotten")
	}
}

// Partners forget singly what is too much.
func TestPartnersAreBounded(t *testing.T) {
	t.Parallel()
	p := newPartners()
	for i := range maxPartners + 100 {
		p.note(blobNamed(i).Digest, "a")
	}
	if n := len(p.of); n != maxPartners || !p.has(blobNamed(maxPartners+99).Digest) {
		t.Errorf("%d are remembered", n)
	}
}

// A holding peer says that it holds everything.
type holding struct {
	mesh.Peer
	id     string
	leaves bool
}

// ID implements mesh.Peer.
func (h holding) ID() string { return h.id }

// Progress implements mesh.Peer.
func (h holding) Progress(context.Context, oci.Ref) (mesh.Progress, error) {
	return mesh.Progress{Held: true, Leaves: h.leaves}, nil
}

// Who says that it leaves takes along what it holds.
func TestWhoLeavesIsNoHolder(t *testing.T) {
	t.Parallel()
	leaves, stays := holding{id: "a", leaves: true}, holding{id: "b"}
	if id := whoHolds(t.Context(), []mesh.Peer{leaves}, oci.Ref{}); id != "" {
		t.Errorf("%q holds it", id)
	}
	if id := whoHolds(t.Context(), []mesh.Peer{leaves, stays}, oci.Ref{}); id != "b" {
		t.Errorf("%q holds it", id)
	}
}
