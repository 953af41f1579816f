package cluster

import (
	"testing"

	"oci-proxy/node/membership"
	"oci-proxy/transfer/mesh"
)

// Whoever offers something lives for as long as it does, once for each of its offers.
func TestCallersLiveWhileTheyAsk(t *testing.T) {
	t.Parallel()
	var c callers
	first, second := c.enter("a"), c.enter("a")
	if !c.has("a") || c.has("b") {
		t.Error("a asks, and b does not")
	}
	first()
	if !c.has("a") {
		t.Error("its other offer does not count")
	}
	if second(); c.has("a") || len(c.now) > 0 {
		t.Error("it counts for ever")
	}
}

// named is a peer by its id alone.
type named struct {
	mesh.Peer
	id string
}

// Peers by their ids alone; all are well.
type allWell struct{}

func (allWell) Peer(id string) mesh.Peer    { return named{id: id} }
func (allWell) Relayer(string) mesh.Relayer { return nil }
func (allWell) Healthy(string) bool         { return true }

// A member that is down keeps its place on the ring for a while, since it may just be late: what
// others get in its stead is offered to it.
func TestTheOwnerIsWhoKeepsItsPlace(t *testing.T) {
	t.Parallel()
	v := viewOf(t, 5)
	for i := range v.Members {
		v.Members[i].Egress = true
	}
	v.Self = v.Members[0]
	r := &router{view: func() *membership.View { return v }, client: allWell{}, askers: newAskers(func(string) bool { return false })}
	blob := owned(v, "node-003")
	v.Members[3].Up = false
	for _, p := range r.Route("reg.test", blob) {
		if p != nil && p.(named).id == "node-003" {
			t.Error("one that is down is on the route")
		}
	}
	if p, ok := r.Owner("reg.test", blob).(named); !ok || p.id != "node-003" {
		t.Errorf("%v is offered what others got in the stead of node-003", p.id)
	}
	if p := r.Owner("reg.test", owned(v, v.Self.ID)); p != nil {
		t.Error("this node is another member")
	}
}
