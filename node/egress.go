package node

import (
	"oci-proxy/node/cluster"
	"oci-proxy/transfer/egress"
	"oci-proxy/transfer/oci"
)

// wayOut is how the node asks registries: by its own way out or, in a cluster, by that of
// another member.
func (n *Node) wayOut() oci.Upstream {
	if n.cfg.Cluster == nil {
		return n.upstream
	}
	n.egress = egress.New(egress.Config{
		Upstream: n.upstream, Own: n.cfg.Cluster.Egress, Relays: n.cluster.Relays, Ways: n.ways, Log: n.log,
	})
	return n.egress
}

// outlet is the node's own way out, as it is lent to other members.
func (n *Node) outlet() cluster.Outlet {
	if n.egress == nil || !n.cfg.Cluster.Egress {
		return cluster.Outlet{}
	}
	return cluster.Outlet{Upstream: n.egress.Out(n.fetcher.Came), Asks: n.registries.relays, Way: n.ways.Tell}
}
