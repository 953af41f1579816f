package cluster

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/node/membership"
)

// maxAsked bounds the registries for which it is remembered who may ask them:
// clients make up names. The one used least recently is forgotten.
const maxAsked = 256

// askers know who may ask each registry.
type askers struct {
	own func(registry string) bool // whether this node is configured for it

	mu sync.Mutex // guards the fields below; never held during I/O
	at *membership.View
	by *simplelru.LRU[string, asking] // by registry, for the members in at
}

// An asking is who may ask one registry.
type asking struct {
	members map[string]bool // by id
	private bool            // some member treats its content as private
}

func newAskers(own func(registry string) bool) *askers {
	by, err := simplelru.NewLRU[string, asking](maxAsked, nil)
	if err != nil {
		panic(err) // it only refuses a size below 1
	}
	return &askers{by: by, own: own}
}

// of is who may ask the registry, among the members of a view.
func (a *askers) of(v *membership.View, registry string) asking {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at != v {
		a.at = v
		a.by.Purge()
	}
	one, ok := a.by.Get(registry)
	if !ok {
		one = whoAsks(v, registry, a.own(registry))
		a.by.Add(registry, one)
	}
	return one
}

// grade says how well a member suits to ask a registry.
type grade int

const (
	unfit    grade = iota // it must not ask
	maybe                 // in whitelist_mode, with more registries than it can tell: it may refuse
	anyone                // it asks any registry
	suited                // it is configured for this one
	loggedIn              // it has a login there
)

// whoAsks lists the members that may ask the registry: those of the best grade
// there is. Whether they are up does not matter: what a registry says to a node
// without the login is no answer for those with it. own says that this node is
// configured for the registry; it need not go by what it tells of itself.
func whoAsks(v *membership.View, registry string, own bool) asking {
	a := asking{members: map[string]bool{}}
	best := unfit
	for i := range v.Members {
		one := &v.Members[i]
		configured, login, private := one.Has(registry)
		a.private = a.private || private
		g := unfit
		switch {
		case !one.Egress:
		case login:
			g = loggedIn
		case configured && (!one.Whitelist || one.Names(registry)), own && one.ID == v.Self.ID:
			g = suited
		case !one.Whitelist:
			g = anyone
		case configured:
			g = maybe
		}
		if g > best {
			best = g
			clear(a.members)
		}
		if g == best && g != unfit {
			a.members[one.ID] = true
		}
	}
	return a
}
