package cluster

import (
	"context"
	"testing"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

func TestPartnersAreLostWithTheirMember(t *testing.T) {
	t.Parallel()
	p := newPartners()
	p.note(blobNamed(0).Digest, "a")
	p.note(blobNamed(1).Digest, "b")
	p.note(blobNamed(2).Digest, "a")
	p.note(blobNamed(2).Digest, "b") // it was found elsewhere
	p.lose(map[string]bool{"a": true})
	for i, want := range [][2]bool{{false, true}, {true, false}, {true, false}, {false, false}} {
		if held, lost := p.has(blobNamed(i).Digest); held != want[0] || lost != want[1] {
			t.Errorf("blob %d: held %v, lost %v", i, held, lost)
		}
	}
}

// Partners forget singly what is too much.
func TestPartnersAreBounded(t *testing.T) {
	t.Parallel()
	p := newPartners()
	for i := range maxPartners + 100 {
		p.note(blobNamed(i).Digest, "a")
	}
	if held, _ := p.has(blobNamed(maxPartners + 99).Digest); !held {
		t.Error("the last one is not remembered")
	}
	if n := len(p.of); n != maxPartners {
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
