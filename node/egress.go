package node

import (
	"oci-proxy/node/cluster"
	"oci-proxy/transfer/egress"
	"oci-proxy/transfer/lanes"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// newEgress is how a member of a cluster asks registries: by its own way out, or by that of
// another member. It is nil for a node on its own.
func newEgress(n *Node) *egress.Egress {
	if n.cfg.Cluster == nil {
		return nil
	}
	all := n.client
	if several, ok := n.client.(*lanes.Lanes); ok {
		all = several.Along(otherWays(n))
	}
	return egress.New(egress.Config{
		Upstream: sourceOf(all, n.mirrors), Lent: sourceOf(n.client, n.mirrors), Own: n.cfg.Cluster.Egress, Relays: cluster.Relays(n.cluster), Ways: n.ways, Log: n.log,
		PassOn: func(registry string) bool { r, _ := n.registries.cfg().Registry(registry); return !r.FollowRedirects },
	})
}

// wayOut is how the node asks registries.
func wayOut(n *Node) oci.Upstream {
	if n.egress == nil {
		return sourceOf(n.client, n.mirrors)
	}
	return n.egress
}

// otherWays lists the ways of other members to a blob's registry. There are none to a mirror,
// which answers for every byte of a blob that it brings.
func otherWays(n *Node) func(oci.Ref) []oci.Upstream {
	relays := cluster.Relays(n.cluster)
	return func(ref oci.Ref) (ways []oci.Upstream) {
		if isMirror(n.registries.cfg(), ref.Registry) {
			return nil
		}
		for _, m := range relays(ref.Registry, ref.Digest.String()) {
			ways = append(ways, m.Relay())
		}
		return ways
	}
}

// reaches reports whether the node's own way out may lead to a registry.
func reaches(n *Node) func(registry string) bool {
	own := n.cfg.Cluster == nil || n.cfg.Cluster.Egress
	return func(registry string) bool { return own && n.ways.Tell(registry).State != mesh.WayDown }
}

// outlet is the node's own way out, as it is lent to other members.
func outlet(n *Node) cluster.Outlet {
	if n.egress == nil || !n.cfg.Cluster.Egress {
		return cluster.Outlet{}
	}
	return cluster.Outlet{Upstream: n.egress.Out(n.fetcher.Came), Asks: n.registries.relays, Way: n.ways.Tell}
}
