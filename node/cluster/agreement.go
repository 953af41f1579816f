package cluster

import (
	"fmt"

	"oci-proxy/node/figures"
	"oci-proxy/node/membership"
)

// ringOf is a view's ring in a word, which is equal on all nodes that place keys alike.
func ringOf(v *membership.View) string { return fmt.Sprintf("%016x", v.Ring.Hash()) }

// withRing adds this node's ring to its figures, as other members are told.
func (n *network) withRing(own *figures.Node) *figures.Node {
	own.Ring = ringOf(n.members.View())
	return own
}

// An Agreement is how far the members agree.
type Agreement struct {
	Ring        uint64 // a sum over who owns what, as this node sees it; 0 for a node on its own
	Disagreeing int    // members that place keys otherwise, of those that answered when they were last asked
	Quarantined int    // members that this node does not ask because they failed
}

// AgreementOf tells how far the members agree, as far as this node knows. It asks nobody.
func AgreementOf(c *Cluster) (a Agreement) {
	if c.network == nil {
		return a
	}
	v := c.network.members.View()
	a.Ring = v.Ring.Hash()
	a.Disagreeing = c.reports.disagreeing(ringOf(v))
	for i := range v.Members {
		if m := &v.Members[i]; m.ID != v.Self.ID && m.Alive() && !c.network.client.Healthy(m.ID) {
			a.Quarantined++
		}
	}
	return a
}

// disagreeing counts the members that answered in the last round and told of another ring.
// Those of earlier versions tell of none.
func (r *reports) disagreeing(ring string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.said {
		if one.Err == nil && one.Figures.Ring != "" && one.Figures.Ring != ring {
			n++
		}
	}
	return n
}

// RingOf is how this node places keys, in a word that is equal on all nodes that place them
// alike; "" for a node on its own.
func RingOf(c *Cluster) string {
	if c.network == nil {
		return ""
	}
	return ringOf(c.network.members.View())
}
