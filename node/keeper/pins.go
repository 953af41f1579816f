package keeper

import (
	"maps"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
)

// A Pin keeps content from eviction, by the name of its image.
type Pin struct {
	Name     string                  `json:"name"`
	Registry string                  `json:"registry"`
	Content  map[digest.Digest]int64 `json:"content"` // sizes in bytes
	More     bool                    `json:"more"`    // of the same image as the order before
}

// An Unpin undoes a Pin.
type Unpin struct {
	Name     string `json:"name"`
	Registry string `json:"registry"`
}

// pin pins content in the shard of its registry.
func (k *Keeper) pin(p *Pin) Answer {
	shard := k.shards.Shard(p.Registry)
	if shard == nil {
		return Answer{} // in whitelist_mode there may be none: nothing of it is held here
	}
	content := map[digest.Digest]int64{}
	if p.More {
		maps.Copy(content, retained(shard, p.Name))
	}
	maps.Copy(content, p.Content)
	if err := shard.Stock().Retain(cache.Retention{Name: p.Name, Registry: p.Registry, Content: content}); err != nil {
		return Answer{Error: err.Error()}
	}
	return Answer{}
}

// retained is what a shard retains by a name.
func retained(shard *grants.Shard, name string) map[digest.Digest]int64 {
	for _, r := range shard.Stock().Retained() {
		if r.Name == name {
			return r.Content
		}
	}
	return nil
}

// unpin undoes pin.
func (k *Keeper) unpin(u *Unpin) Answer {
	shard := k.shards.Shard(u.Registry)
	if shard == nil {
		return Answer{}
	}
	had, err := shard.Stock().Release(u.Name)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	return Answer{Had: had}
}
