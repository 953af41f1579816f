package cluster

import (
	"errors"
	"testing"

	"oci-proxy/node/figures"
)

// Only members that answered, and told of another ring, disagree.
func TestMembersWithAnotherRingAreCounted(t *testing.T) {
	t.Parallel()
	says := func(ring string) Report { return Report{Figures: &figures.Node{Ring: ring}} }
	for name, test := range map[string]struct {
		said []Report
		want int
	}{
		"nobody":                     {nil, 0},
		"all agree":                  {[]Report{says("a"), says("a")}, 0},
		"one does not":               {[]Report{says("a"), says("b")}, 1},
		"none does":                  {[]Report{says("b"), says("c")}, 2},
		"an earlier version":         {[]Report{says("")}, 0},
		"one that does not answer":   {[]Report{{Err: errors.New("refused")}, says("a")}, 0},
		"no answer and no agreement": {[]Report{{Err: errors.New("refused")}, says("b")}, 1},
	} {
		if got := (&reports{said: test.said}).disagreeing("a"); got != test.want {
			t.Errorf("%s: %d disagree, want %d", name, got, test.want)
		}
	}
}
