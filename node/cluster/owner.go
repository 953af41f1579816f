package cluster

import (
	"context"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// An Owner is the answer of /_/owner/<digest>.
type Owner struct {
	Digest  string    `json:"digest"`
	Owner   string    `json:"owner"`
	Next    []string  `json:"next"`
	Holders []string  `json:"holders"` // whose shard holds it
	Missing []Missing `json:"missing"` // members that did not answer
}

// A Sight says whose holdings a client may see: all of them, or only those that
// nobody needs a right for.
type Sight struct {
	All    bool
	Public func(registry string) bool // unless All: whether everybody may pull from it
}

// Owner tells who owns a digest and who holds it. To a client that may not see
// everything it tells holders as if private content were not there, in this node
// and in the others.
func (c *Cluster) Owner(ctx context.Context, d digest.Digest, see Sight) Owner {
	o := Owner{Digest: d.String(), Owner: c.cfg.Name, Next: []string{}, Holders: []string{}, Missing: []Missing{}}
	for _, store := range c.cfg.Registries.Stores() {
		if see.holds(store, d) {
			o.Holders = append(o.Holders, c.cfg.Name)
			break
		}
	}
	if c.network == nil {
		return o
	}
	v := c.network.members.View()
	o.place(v, d)
	asked := see.registries(c.cfg.Registries.ByStore())
	for _, one := range fan(ctx, v, func(ctx context.Context, m *membership.Member) (bool, error) {
		return see.heldBy(ctx, c.network.client.Peer(m.ID), asked, d)
	}) {
		switch {
		case one.err != nil:
			o.Missing = append(o.Missing, Missing{one.member.Name, one.err.Error()})
		case one.value:
			o.Holders = append(o.Holders, one.member.Name)
		}
	}
	return o
}

// place names the owner of a digest and those next to it.
func (o *Owner) place(v *membership.View, d digest.Digest) {
	owners, n := v.Ring.Owners(d.String())
	for i, one := range owners[:n] {
		name := one.ID
		if m, ok := v.Member(one.ID); ok {
			name = m.Name
		}
		if i == 0 {
			o.Owner = name
		} else {
			o.Next = append(o.Next, name)
		}
	}
}

// holds reports whether a store of this node visibly holds the digest.
func (s Sight) holds(store *cache.Store, d digest.Digest) bool {
	if s.All {
		_, held := store.Stat(d)
		return held
	}
	origin, held := store.Origin(d)
	return held && origin != "" && s.Public(origin)
}

// registries chooses, for each store, a registry to ask other members by: a
// public one unless everything may be seen.
func (s Sight) registries(byStore [][]string) []string {
	var out []string
	for _, those := range byStore {
		for _, registry := range those {
			if s.All || s.Public(registry) {
				out = append(out, registry)
				break
			}
		}
	}
	return out
}

// heldBy asks another member whether it visibly holds the digest. A member
// answers a peek for a public registry as it would serve a client of that
// registry: what came from a private one is absent.
func (s Sight) heldBy(ctx context.Context, p mesh.Peer, registries []string, d digest.Digest) (bool, error) {
	for _, registry := range registries {
		ref := oci.Ref{Registry: registry, Digest: d}
		var held bool
		var err error
		if s.All {
			var at mesh.Progress
			at, err = p.Progress(ctx, ref)
			held = at.Held
		} else {
			var at mesh.Presence
			at, err = p.Peek(ctx, ref)
			held = at == mesh.Held
		}
		if err != nil || held {
			return held, err
		}
	}
	return false, nil
}
