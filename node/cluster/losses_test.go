package cluster

import (
	"maps"
	"testing"

	"oci-proxy/node/membership"
)

// A refusal counts for the boot whose address refused, and not for one that has started since.
func TestARefusalCountsForItsBoot(t *testing.T) {
	t.Parallel()
	v := viewOf(t, 3)
	sick := map[string]bool{}
	l := &losses{
		view: func() *membership.View { return v }, member: func(id string) (membership.Member, bool) {
			m, known := v.Member(id)
			return *m, known
		},
		well: func(id string) bool { return !sick[id] }, refused: map[string]uint64{},
	}
	wantLost := func(when string, want ...string) {
		t.Helper()
		lost := map[string]bool{}
		for _, id := range want {
			lost[id] = true
		}
		if got := l.since(); !maps.Equal(got, lost) {
			t.Errorf("%s: lost are %v, want %v", when, got, lost)
		}
	}
	wantLost("at first")
	if l.refuses(refusal{"node-001", 0}) || l.refuses(refusal{"node-001", 2}) {
		t.Error("another boot's refusal counts")
	}
	wantLost("after another boot's refusal")
	sick["node-001"] = true
	if !l.refuses(refusal{"node-001", 1}) {
		t.Error("a refusal does not count")
	}
	wantLost("after its refusal") // mind has seen to it
	v.Members[1].Epoch = 2
	if l.refuses(refusal{"node-001", 1}) {
		t.Error("the refusal counts for the next boot")
	}
	wantLost("when it has started anew")
	if !l.stayed["node-001"] {
		t.Error("it is not counted on again")
	}
}
