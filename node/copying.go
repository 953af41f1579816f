package node

import (
	"oci-proxy/node/cluster"
	"oci-proxy/transfer/oci"
)

// copying is an archive whose offers are also told to the cluster, which sees to it that
// another member has the content too.
type copying struct {
	oci.Archive
	cluster *cluster.Cluster
}

// Offer implements oci.Archive.
func (c copying) Offer(k oci.Kept) {
	c.Archive.Offer(k)
	cluster.Kept(c.cluster, k)
}

// keptFor returns what tells the cluster of content that came by another way than a registry.
func keptFor(c *cluster.Cluster) func(oci.Kept) { return func(k oci.Kept) { cluster.Kept(c, k) } }
