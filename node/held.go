package node

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// atHand is up to how many bytes content is in memory, or soon read. For more net/http has the kernel
// copy the file.
const atHand = 64 << 10

// holds reports whether a shard holds the blob or the manifest that the path of a request names by
// its digest, as far as memory knows, and it is small. Who may have it is not asked.
func (r *registries) holds(path string) bool {
	end := strings.LastIndexByte(path, '/')
	above, d := path[:max(end, 0)], path[end+1:]
	if !strings.HasSuffix(above, "/blobs") && !strings.HasSuffix(above, "/manifests") || !oci.Verifiable(d) {
		return false
	}
	for _, shard := range r.shards {
		if h, held, _ := shard.Known(digest.Digest(d)); held {
			return h.Size <= atHand
		}
	}
	return false
}
