package keeper

import (
	"errors"
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

// A pinning is what a pin of several orders found: what was retained by its name, if anything.
type pinning struct {
	name  string
	found cache.Retention // without a name: nothing
}

// pin pins content in the shard of its registry. If that is refused, what was pinned by that name before
// its first order is pinned again.
func (k *Keeper) pin(p *Pin) Answer {
	shard := k.shards.Shard(p.Registry)
	if shard == nil {
		return Answer{} // in whitelist_mode there may be none: nothing of it is held here
	}
	content := map[digest.Digest]int64{}
	if was := retained(shard, p.Name); p.More {
		maps.Copy(content, was.Content)
	} else {
		k.begun(pinning{p.Name, was})
	}
	maps.Copy(content, p.Content)
	if err := shard.Stock().Retain(cache.Retention{Name: p.Name, Registry: p.Registry, Content: content}); err != nil {
		return Answer{Error: errors.Join(err, k.putBack(shard, p)).Error()}
	}
	return Answer{}
}

// begun notes what the pin that has just begun found.
func (k *Keeper) begun(p pinning) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = p
}

// putBack undoes the orders of a pin of which the last one was refused, that one excepted, which did nothing.
// If another pin has begun meanwhile, they stay.
func (k *Keeper) putBack(shard *grants.Shard, p *Pin) error {
	k.mu.Lock()
	last := k.last
	k.mu.Unlock()
	if !p.More || last.name != p.Name {
		return nil
	}
	if last.found.Name == "" {
		_, err := shard.Stock().Release(p.Name)
		return err
	}
	return shard.Stock().Retain(last.found)
}

// retained is what a shard retains by a name; nothing has no name.
func retained(shard *grants.Shard, name string) cache.Retention {
	for _, r := range shard.Stock().Retained() {
		if r.Name == name {
			return r
		}
	}
	return cache.Retention{}
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
