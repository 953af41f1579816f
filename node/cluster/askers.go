package cluster

import (
	"maps"
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
	out     map[string]bool // those of them that also ask for other members, by their own way out
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

// forget makes the askers ask anew what this node is configured for.
func (a *askers) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by.Purge()
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

// whoAsks tells which members may ask the registry: those of the best grade there is.
// Whether they are up does not matter: what a registry says to a node without the login is
// no answer for those with it. Those that suit as well and have no way out of their own
// (egress: false) ask by way of the others. own says that this node is configured for the
// registry; it need not go by what it tells of itself.
func whoAsks(v *membership.View, registry string, own bool) asking {
	a := asking{members: map[string]bool{}, out: map[string]bool{}}
	best := unfit
	for i := range v.Members {
		one := &v.Members[i]
		_, _, private := one.Has(registry)
		a.private = a.private || private
		if one.Egress {
			best = max(best, gradeOf(v, one, registry, own))
		}
	}
	if best == unfit {
		return a
	}
	for i := range v.Members {
		if one := &v.Members[i]; one.Egress && gradeOf(v, one, registry, own) == best {
			a.members[one.ID], a.out[one.ID] = true, one.Relays
		}
	}
	maps.DeleteFunc(a.out, func(_ string, relays bool) bool { return !relays })
	for i := range v.Members {
		if one := &v.Members[i]; !one.Egress && one.Relays && len(a.out) > 0 && gradeOf(v, one, registry, own) >= best {
			a.members[one.ID] = true
		}
	}
	return a
}

// gradeOf says how well a member suits to ask the registry, if it has a way out.
func gradeOf(v *membership.View, one *membership.Member, registry string, own bool) grade {
	configured, login, _ := one.Has(registry)
	switch {
	case login:
		return loggedIn
	case configured && (!one.Whitelist || one.Names(registry)), own && one.ID == v.Self.ID:
		return suited
	case !one.Whitelist:
		return anyone
	case configured:
		return maybe
	default:
		return unfit
	}
}
