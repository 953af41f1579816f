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
