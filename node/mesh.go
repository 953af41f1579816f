package node

import (
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"oci-proxy/node/membership"
	"oci-proxy/ring"
	"oci-proxy/transfer/mesh"
)

// A router tells the Fetcher whom to ask: it puts together what gossip knows of
// the members and what the peers' client knows of their health. It does no I/O.
type router struct {
	view    func() *membership.View
	peer    func(id string) mesh.Peer
	healthy func(id string) bool
	known   func(registry string) bool // whether any member ever treated it as private
	note    func(registry string)      // remembers that one does
	own     func(registry string) bool // whether this node is configured for it

	mu   sync.Mutex
	of   *membership.View // whose members able is about
	able map[string]asking
}

// An asking is who may ask one registry.
type asking struct {
	members map[string]bool // by id
	private bool            // some member treats its content as private, or did
}

// Self implements transfer.Mesh.
func (m *router) Self() string { return m.view().Self.ID }

// Peer implements transfer.Mesh.
func (m *router) Peer(id string) mesh.Peer {
	if !m.healthy(id) {
		return nil
	}
	return m.anyPeer(id)
}

// anyPeer is Peer for one that may be passed over at the moment.
func (m *router) anyPeer(id string) mesh.Peer {
	v := m.view()
	if one, ok := v.Member(id); ok && one.Alive() && id != v.Self.ID {
		return m.peer(id)
	}
	return nil
}

// Members implements transfer.Mesh.
func (m *router) Members() []mesh.Peer {
	v := m.view()
	var out []mesh.Peer
	for i := range v.Members {
		if one := &v.Members[i]; one.Alive() && one.ID != v.Self.ID {
			out = append(out, m.peer(one.ID))
		}
	}
	return out
}

// Route implements transfer.Mesh.
func (m *router) Route(registry, key string) []mesh.Peer {
	v := m.view()
	able := m.asking(v, registry).members
	ids := route(v, able, key, m.healthy)
	out := make([]mesh.Peer, len(ids))
	for i, id := range ids {
		if id != v.Self.ID {
			out[i] = m.peer(id)
		}
	}
	return out
}

// private reports whether any member treats the registry's content as private,
// or ever did: that member may be gone, what it got is still here.
func (m *router) private(registry string) bool { return m.asking(m.view(), registry).private }

// Holders implements transfer.Mesh.
func (m *router) Holders(_, key string) []mesh.Peer {
	v := m.view()
	var out []mesh.Peer
	for _, id := range holders(v, key, m.healthy) {
		out = append(out, m.peer(id))
	}
	return out
}

// route lists the ids of those that are to get what key names, of those able
// to: the owners of the key, in order, that are up. If none is, all nodes agree
// on another by its hash. This node, if it is able, comes at its place or last.
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
	return append(ids, sick...) // who can't do it itself has nothing to lose
}

// standIn is the member that gets what key names where no owner can.
func standIn(v *membership.View, able map[string]bool, key string, healthy func(id string) bool) string {
	best, lowest := "", uint64(0)
	for i := range v.Members {
		one := &v.Members[i]
		if !one.Up || !able[one.ID] || one.ID != v.Self.ID && !healthy(one.ID) {
			continue
		}
		if h := xxhash.Sum64String(one.ID + " " + key); best == "" || h < lowest {
			best, lowest = one.ID, h
		}
	}
	return best
}

// holders lists the ids of the other members that may hold what key names
// beside who is to get it: those next to the owner, and those that owned it in
// the rings before.
func holders(v *membership.View, key string, healthy func(id string) bool) []string {
	var ids []string
	add := func(o ring.Member) {
		one, ok := v.Member(o.ID)
		if ok && one.Alive() && o.ID != v.Self.ID && !slices.Contains(ids, o.ID) && healthy(o.ID) {
			ids = append(ids, o.ID)
		}
	}
	owners, n := v.Ring.Owners(key)
	for _, o := range owners[:n] {
		add(o)
	}
	for _, r := range v.Former {
		add(r.Owner(key))
	}
	return ids
}

// maxAsked bounds the registries of which is remembered who may ask them:
// clients choose their names.
const maxAsked = 256

// asking is who may ask the registry, by the view's members. It may read or
// write a note on the disk, when it is asked for the first time after a change.
func (m *router) asking(v *membership.View, registry string) asking {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of != v || len(m.able) >= maxAsked {
		m.of, m.able = v, map[string]asking{}
	}
	one, ok := m.able[registry]
	if !ok {
		one = whoAsks(v, registry, m.own(registry))
		if one.private {
			m.note(registry)
		} else {
			one.private = m.known(registry)
		}
		m.able[registry] = one
	}
	return one
}

// whoAsks lists the members that may ask the registry: of those with a way out,
// those with a login there; else those configured for it; else, where nobody
// is, those that ask any; else those in whitelist_mode that have more registries
// than they can tell: one that may not ask refuses. Down or not: what a registry
// says to a node without the login is no answer for those with it. own: this
// node, which need not go by what it tells of itself, is configured for it.
func whoAsks(v *membership.View, registry string, own bool) asking {
	a := asking{members: map[string]bool{}}
	best := 0
	for i := range v.Members {
		one := &v.Members[i]
		configured, login, private := one.Has(registry)
		a.private = a.private || private
		var grade int
		switch {
		case !one.Egress:
			continue
		case login:
			grade = 4
		case configured && (!one.Whitelist || one.Names(registry)), own && one.ID == v.Self.ID:
			grade = 3
		case !one.Whitelist:
			grade = 2
		case configured:
			grade = 1
		default:
			continue
		}
		if grade > best {
			best = grade
			clear(a.members)
		}
		if grade == best {
			a.members[one.ID] = true
		}
	}
	return a
}
