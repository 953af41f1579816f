package cluster

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/membership"
	"oci-proxy/transfer/grants"
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

// A Sight says what a client may learn of what is held: everything, or only what
// anybody may know.
type Sight struct {
	All    bool
	Open   func(ref oci.Ref) bool     // unless All: whether this node holds that, and anybody may know it
	Public func(registry string) bool // unless All: whether anybody may pull from the registry
}

// Owner tells who owns a digest and who holds it. To a client that may not see
// everything it tells holders as if private content were not there, in this node
// and in the others.
func (c *Cluster) Owner(ctx context.Context, d digest.Digest, see Sight) Owner {
	o := Owner{Digest: d.String(), Owner: c.cfg.Name, Next: []string{}, Holders: []string{}, Missing: []Missing{}}
	if see.holds(c.cfg.Registries, d) {
		o.Holders = append(o.Holders, c.cfg.Name)
	}
	if c.network == nil {
		return o
	}
	v := c.network.members.View()
	o.place(v, d)
	asked := see.registries(c.cfg.Registries.ByShard())
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

// holds reports whether this node visibly holds the digest.
func (s Sight) holds(registries Registries, d digest.Digest) bool {
	if !s.All {
		return slices.ContainsFunc(registries.ByShard(), func(those []string) bool {
			return s.Open(oci.Ref{Registry: those[0], Digest: d})
		})
	}
	return slices.ContainsFunc(registries.Shards(), func(shard *grants.Shard) bool {
		_, held := shard.Stat(d)
		return held
	})
}

// registries chooses by which registries to ask other members: a public one of each shard or, if
// everything may be seen, all, since a member says of what is private only to its own registry
// that it holds it.
func (s Sight) registries(byShard [][]string) []string {
	if s.All {
		return slices.Concat(byShard...)
	}
	var out []string
	for _, those := range byShard {
		if i := slices.IndexFunc(those, s.Public); i >= 0 {
			out = append(out, those[i])
		}
	}
	return out
}

// heldBy asks another member whether it visibly holds the digest.
func (s Sight) heldBy(ctx context.Context, p mesh.Peer, registries []string, d digest.Digest) (bool, error) {
	for _, registry := range registries {
		held, err := s.ask(ctx, p, oci.Ref{Registry: registry, Digest: d})
		if err != nil || held {
			return held, err
		}
	}
	return false, nil
}

// ask asks another member about one registry. For a client that may not see
// everything, a peek leaves out what came from a private registry, and the member's
// progress says if it knows this one as private. Both are always asked, so that not
// even the time tells more.
func (s Sight) ask(ctx context.Context, p mesh.Peer, ref oci.Ref) (bool, error) {
	now, err := p.Progress(ctx, ref)
	if err != nil || s.All {
		return now.Held, err
	}
	at, err := p.Peek(ctx, ref)
	return at == mesh.Held && now.Held && !now.Unvouched, err
}
