package cluster

import (
	"fmt"
	"maps"
	"testing"

	"oci-proxy/node/membership"
)

// Names that clients make up do not push out a registry that is in use.
func TestMadeUpRegistriesPushOutOnlyEachOther(t *testing.T) {
	t.Parallel()
	computed := map[string]int{}
	a := newAskers(func(registry string) bool {
		computed[registry]++
		return false
	})
	v := &membership.View{Members: []membership.Member{{ID: "a", Egress: true}}}
	for i := range 10 * maxAsked {
		a.of(v, fmt.Sprintf("made-up-%d.example", i))
		if i%(maxAsked/2) == 0 {
			a.of(v, "in-use.example")
		}
	}
	if n := computed["in-use.example"]; n != 1 {
		t.Errorf("the registry in use was forgotten %d times", n-1)
	}
	if n := a.by.Len(); n != maxAsked {
		t.Errorf("%d registries are remembered, want %d", n, maxAsked)
	}
	a.of(&membership.View{}, "in-use.example")
	if n := a.by.Len(); n != 1 {
		t.Errorf("%d registries are remembered of members that are gone", n-1)
	}
}

func TestTheBestSuitedMembersAsk(t *testing.T) {
	t.Parallel()
	member := func(id string, egress, whitelist bool) membership.Member {
		return membership.Member{ID: id, Egress: egress, Whitelist: whitelist}
	}
	for name, test := range map[string]struct {
		members []membership.Member
		own     bool
		want    map[string]bool
	}{
		"any that may":                 {[]membership.Member{member("a", true, false), member("b", true, false), member("self", true, false)}, false, map[string]bool{"a": true, "b": true, "self": true}},
		"none without egress":          {[]membership.Member{member("a", false, false), member("self", true, false)}, false, map[string]bool{"self": true}},
		"none in whitelist_mode":       {[]membership.Member{member("a", true, true), member("self", true, false)}, false, map[string]bool{"self": true}},
		"the one that is configured":   {[]membership.Member{member("a", true, false), member("self", true, true)}, true, map[string]bool{"self": true}},
		"nobody, if nobody has egress": {[]membership.Member{member("a", false, false), member("self", false, false)}, true, map[string]bool{}},
	} {
		v := &membership.View{Self: member("self", true, false), Members: test.members}
		if got := whoAsks(v, "registry.example", test.own); !maps.Equal(got.members, test.want) || got.private {
			t.Errorf("%s: %v, want %v", name, got.members, test.want)
		}
	}
}

// A node with egress: false is on the routes if another asks for it. Members of earlier
// versions know nothing of that, be they those that would ask or those that would be asked.
func TestNodesWithoutEgressAskByWayOfOthers(t *testing.T) {
	t.Parallel()
	with, without := membership.Member{ID: "with", Egress: true, Relays: true}, membership.Member{ID: "without", Relays: true}
	former, formerWithout := membership.Member{ID: "former", Egress: true}, membership.Member{ID: "former without"}
	strict := membership.Member{ID: "strict", Relays: true, Whitelist: true}
	for name, test := range map[string]struct {
		members []membership.Member
		routes  map[string]bool
		out     map[string]bool
	}{
		"one asks for the other":             {[]membership.Member{with, without}, map[string]bool{"with": true, "without": true}, map[string]bool{"with": true}},
		"nobody may ask":                     {[]membership.Member{without}, map[string]bool{}, map[string]bool{}},
		"only an earlier version may":        {[]membership.Member{former, without}, map[string]bool{"former": true}, map[string]bool{}},
		"an earlier version without egress":  {[]membership.Member{with, formerWithout}, map[string]bool{"with": true}, map[string]bool{"with": true}},
		"in whitelist_mode, not its own":     {[]membership.Member{with, strict}, map[string]bool{"with": true}, map[string]bool{"with": true}},
		"both versions may, and one may not": {[]membership.Member{former, with, without}, map[string]bool{"former": true, "with": true, "without": true}, map[string]bool{"with": true}},
	} {
		got := whoAsks(&membership.View{Members: test.members}, "registry.example", false)
		if !maps.Equal(got.members, test.routes) || !maps.Equal(got.out, test.out) {
			t.Errorf("%s: %v on routes, %v asked for others; want %v, %v", name, got.members, got.out, test.routes, test.out)
		}
	}
}
