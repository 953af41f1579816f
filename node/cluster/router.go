package cluster

import (
	"cmp"
	"context"
	"slices"

	"github.com/cespare/xxhash/v2"

	"oci-proxy/node/membership"
	"oci-proxy/transfer/mesh"
)

// peers make requests to other members, and know which of them are quarantined.
type peers interface {
	Peer(id string) mesh.Peer
	Relayer(id string) mesh.Relayer
	Healthy(id string) bool
}

// A router tells whom to ask: it puts together what gossip knows of the members
// and what the peers' client knows of their health. It does no I/O.
type router struct {
	view   func() *membership.View
	alive  func(id string) bool // at this moment: the view is a little behind
	client peers
	lies   func(id string) bool // whether a member is quarantined for that
	askers *askers
	settle func(ctx context.Context)
	// directories say who holds what; nil in tests that have none.
	directories *directories
}

// Settle implements mesh.Router.
func (r *router) Settle(ctx context.Context) { r.settle(ctx) }

// Self implements mesh.Router.
func (r *router) Self() string { return r.view().Self.ID }

// Peer implements mesh.Router.
func (r *router) Peer(id string) mesh.Peer {
	if r.lies(id) {
		return nil
	}
	if id != r.Self() && r.alive(id) {
		return r.client.Peer(id)
	}
	return nil
}

// Members implements mesh.Router.
func (r *router) Members() []mesh.Peer {
	v := r.view()
	var out []mesh.Peer
	for i := range v.Members {
		if one := &v.Members[i]; one.Alive() && one.ID != v.Self.ID {
			out = append(out, r.client.Peer(one.ID))
		}
	}
	return out
}

// Route implements mesh.Router.
func (r *router) Route(registry, key string) []mesh.Peer {
	v := r.view()
	ids := route(v, r.askers.of(v, registry).members, key, r.client.Healthy)
	out := make([]mesh.Peer, len(ids))
	for i, id := range ids {
		if id != v.Self.ID {
			out[i] = r.client.Peer(id)
		}
	}
	return out
}

// Owner implements mesh.Router.
func (r *router) Owner(registry, key string) mesh.Peer {
	v := r.view()
	if id := r.keeper(v, registry, key); id != "" && id != v.Self.ID {
		return r.client.Peer(id)
	}
	return nil
}

// Holders implements mesh.Router.
func (r *router) Holders(_, key string) []mesh.Peer {
	var out []mesh.Peer
	v := r.view()
	for _, id := range holders(v, key, r.directories.of(v, key), r.client.Healthy, r.lies) {
		out = append(out, r.client.Peer(id))
	}
	return out
}

// Relays lists the members that may ask the registry for this node, by their own way out.
// Which comes first depends on key, so that all have their share.
func (r *router) Relays(registry, key string) []mesh.Relayer {
	v := r.view()
	var ids []string
	for id := range r.askers.of(v, registry).out {
		if one, ok := v.Member(id); ok && one.Up && id != v.Self.ID && r.client.Healthy(id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a, key), rank(b, key)), cmp.Compare(a, b))
	})
	out := make([]mesh.Relayer, len(ids))
	for i, id := range ids {
		out[i] = r.client.Relayer(id)
	}
	return out
}

// rank orders members in a way of each key's own.
func rank(id, key string) uint64 { return xxhash.Sum64String(id + " " + key) }

// moreTakers is how many members that do not own a blob are to take it when owners can't.
const moreTakers = 2

// takers are the owners of what key names that are up, whether or not they may
// ask the registry: whoever looks for it looks there. Then come others, and last the owners
// that are quarantined now.
func (r *router) takers(key string) []mesh.Peer {
	v := r.view()
	var well, sick []mesh.Peer
	owners, n := v.Ring.Owners(key)
	is := map[string]bool{v.Self.ID: true}
	for _, o := range owners[:n] {
		switch one, ok := v.Member(o.ID); {
		case !ok || !one.Up || is[o.ID]:
		case r.client.Healthy(o.ID):
			well = append(well, r.client.Peer(o.ID))
		default:
			sick = append(sick, r.client.Peer(o.ID))
		}
		is[o.ID] = true
	}
	more := 0
	for _, id := range inOrder(v, key) {
		if one, ok := v.Member(id); ok && one.Up && !is[id] && more < moreTakers && r.client.Healthy(id) {
			well = append(well, r.client.Peer(id))
			more++
		}
	}
	return append(well, sick...)
}

// keeps reports whether this node is the one that is to keep what key names of the registry.
func (r *router) keeps(registry, key string) bool {
	v := r.view()
	return r.keeper(v, registry, key) == v.Self.ID
}

// keeper returns the id of the member that is to keep what key names of the registry: of its
// owners the first that may ask that, up or not, or whoever stands in for them now; "" if nobody may.
func (r *router) keeper(v *membership.View, registry, key string) string {
	able := r.askers.of(v, registry).members
	owners, n := v.Ring.Owners(key)
	for _, o := range owners[:n] {
		if able[o.ID] {
			return o.ID
		}
	}
	return standIn(v, able, key, func(string) bool { return true })
}

// asking is who may ask the registry now.
func (r *router) asking(registry string) asking { return r.askers.of(r.view(), registry) }

// route lists the ids of the members that are to get what key names, among those
// able to ask: the owners of the key, in order, that are up. If no owner can,
// all nodes agree on a stand-in. This node, if it is able, comes at its place or
// last.
func route(v *membership.View, able map[string]bool, key string, healthy func(id string) bool) []string {
	var ids, sick []string
	owners, n := v.Ring.Owners(key)
	for _, o := range owners[:n] {
		one, ok := v.Member(o.ID)
		switch {
		case !ok || !one.Up || !able[o.ID]:
		case o.ID == v.Self.ID || healthy(o.ID):
			ids = append(ids, o.ID)
		default:
			sick = append(sick, o.ID)
		}
	}
	if len(ids) == 0 {
		if id := standIn(v, able, key, healthy); id != "" {
			ids = append(ids, id)
		}
	}
	if able[v.Self.ID] {
		if !slices.Contains(ids, v.Self.ID) {
			ids = append(ids, v.Self.ID)
		}
		return ids
	}
	return append(ids, sick...) // a node that cannot ask has nothing to lose
}

// standIn is the member that gets what key names if no owner can: the one with
// the lowest hash.
func standIn(v *membership.View, able map[string]bool, key string, healthy func(id string) bool) string {
	best, lowest := "", uint64(0)
	for i := range v.Members {
		one := &v.Members[i]
		if !one.Up || !able[one.ID] || one.ID != v.Self.ID && !healthy(one.ID) {
			continue
		}
		if h := rank(one.ID, key); best == "" || h < lowest {
			best, lowest = one.ID, h
		}
	}
	return best
}

// maxHolders is the size up to which all members of a cluster are asked whether they hold
// something before a registry is, whatever the directory says.
const maxHolders = mesh.Many

// holders lists the ids of the other members to ask whether they hold what key names: those
// that said so, its owners, its owners in former rings, and then the others, in an order of
// the key's own. In a large cluster there are no others if nobody else holds it, and not
// many if key is no digest. Those that are not healthy come last among each: they may hold it
// all the same. Those that lied are left out.
func holders(v *membership.View, key string, s said, healthy, lies func(id string) bool) []string {
	var ids []string
	seen := map[string]bool{v.Self.ID: true}
	add := func(id string) {
		if seen[id] {
			return
		}
		seen[id] = true
		if one, ok := v.Member(id); ok && one.Alive() && !lies(id) {
			ids = append(ids, id)
		}
	}
	for _, id := range s.names {
		add(id)
	}
	owners, n := v.Ring.Owners(key)
	for _, o := range owners[:n] {
		add(o.ID)
	}
	for _, r := range v.Former {
		add(r.Owner(key).ID)
	}
	likely := len(ids)
	if s.whole {
		return wellFirst(ids, healthy)
	}
	most := len(v.Members)
	if !s.blob {
		most = maxHolders
	}
	for _, id := range inOrder(v, key) {
		if len(ids) >= most {
			break
		}
		add(id)
	}
	return append(wellFirst(ids[:likely], healthy), wellFirst(ids[likely:], healthy)...)
}

// inOrder lists the ids of all members in an order of the key's own. It begins with the
// one that stands in if no owner can ask the registry.
func inOrder(v *membership.View, key string) []string {
	type ranked struct {
		id   string
		rank uint64
	}
	all := make([]ranked, len(v.Members))
	for i := range v.Members {
		all[i] = ranked{v.Members[i].ID, rank(v.Members[i].ID, key)}
	}
	slices.SortFunc(all, func(a, b ranked) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.id, b.id)) })
	ids := make([]string, len(all))
	for i, one := range all {
		ids[i] = one.id
	}
	return ids
}

// wellFirst returns ids, those that are not healthy last.
func wellFirst(ids []string, healthy func(id string) bool) []string {
	var well, sick []string
	for _, id := range ids {
		if healthy(id) {
			well = append(well, id)
		} else {
			sick = append(sick, id)
		}
	}
	return append(well, sick...)
}
