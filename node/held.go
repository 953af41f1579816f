package node

import (
	"strings"

	"oci-proxy/transfer/oci"
)

// handy is up to how many bytes content is in memory, or soon read. For more net/http has the kernel
// copy the file.
const handy = 64 << 10

// atHand returns what reports whether what a path names by its digest can be answered at once: it is small, the
// shard holds it, and nobody is asked or waited for. Those who wait are net/http's, which hears that
// a client leaves.
func atHand(n *Node) func(path string) bool {
	return func(path string) bool {
		if !oci.Verifiable(path[strings.LastIndexByte(path, '/')+1:]) {
			return false // most are tags
		}
		req, err := oci.ParsePath(path, "", n.registries.names())
		if err != nil || req.Resource != oci.BlobResource && req.Resource != oci.ManifestResource {
			return false
		}
		size, ok := n.fetcher.AtHand(req.Ref, req.Resource)
		return ok && size <= handy && n.gate.Figures().Waiting == 0
	}
}
