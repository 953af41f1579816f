package keeper

import (
	"context"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// A Purge makes a node forget tags, and remove blobs.
type Purge struct {
	Tags  []Tag           `json:"tags,omitempty"`
	Blobs []digest.Digest `json:"blobs,omitempty"`
}

// A Tag is one that is to be forgotten, or a digest of a repository without keys.
type Tag struct {
	Registry   string        `json:"registry"`
	Repository string        `json:"repository"`
	Tag        string        `json:"tag,omitempty"`
	Digest     digest.Digest `json:"digest,omitempty"`
	Keys       []string      `json:"keys,omitempty"` // as cache.Tag has them
}

// purge forgets tags first: who asks for one then gets it anew.
func (k *Keeper) purge(ctx context.Context, p *Purge) (a Answer) {
	for _, t := range p.Tags {
		ref := oci.Ref{Registry: t.Registry, Repository: t.Repository, Tag: t.Tag, Digest: t.Digest}
		if shard := k.shards.Shard(t.Registry); shard != nil {
			shard.Stock().Forget(ref, t.Keys)
		}
	}
	for _, d := range p.Blobs {
		for _, shard := range k.shards.Shards() {
			if size, removed := shard.Stock().Remove(ctx, d); removed {
				a.Blobs++
				a.Bytes += size
			}
		}
	}
	return a
}
