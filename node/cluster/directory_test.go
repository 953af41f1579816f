package cluster

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/membership"
	"oci-proxy/ring"
	"oci-proxy/transfer/directory"
)

// viewOf is what node-0 sees of so many members, all of which are well.
func viewOf(t *testing.T, n int) *membership.View {
	t.Helper()
	v := &membership.View{}
	var placed []ring.Member
	for i := range n {
		m := membership.Living(membership.Member{ID: fmt.Sprintf("node-%03d", i), Hears: true, Epoch: 1})
		v.Members = append(v.Members, m)
		placed = append(placed, ring.Member{ID: m.ID, Weight: 1})
	}
	v.Self = v.Members[0]
	var err error
	if v.Ring, err = ring.New(placed); err != nil {
		t.Fatal(err)
	}
	return v
}

// owned returns the digest of a blob that the member owns.
func owned(v *membership.View, id string) string {
	for i := 0; ; i++ {
		if d := digest.FromString(fmt.Sprint(i)).String(); v.Ring.Owner(d).ID == id {
			return d
		}
	}
}

// tellHolding makes all members tell that they hold nothing, and some that they hold the blob.
func tellHolding(v *membership.View, d *directories, ring uint64, blob string, holding ...string) {
	k, _ := directory.KeyOf(blob)
	for _, m := range v.Members[1:] {
		said := &directory.Message{Session: 1, Ring: ring, First: true, Last: true}
		if slices.Contains(holding, m.ID) {
			said.Held = []directory.Key{k}
		}
		d.here.Hear(m.ID, said)
	}
}

func all(string) bool  { return true }
func none(string) bool { return false }

// In a large cluster a leader asks few members once all have told what they hold, and all
// until then. In others all are asked, those first that said that they hold it.
func TestWhoIsAskedForABlob(t *testing.T) {
	t.Parallel()
	small, large := viewOf(t, 100), viewOf(t, 200)
	drains := *large
	drains.Self.State = membership.Draining
	for name, test := range map[string]struct {
		v       *membership.View
		owner   string
		ring    uint64 // by which all have told; 0: they have not
		holding []string
		want    int // members
	}{
		"none has told":                     {large, "node-000", 0, nil, 199},
		"nobody has it":                     {large, "node-000", large.Ring.Hash(), nil, 2},
		"one has it":                        {large, "node-000", large.Ring.Hash(), []string{"node-150"}, 3},
		"told by another ring":              {large, "node-000", 1, []string{"node-150"}, 199},
		"this node drains":                  {&drains, "node-000", large.Ring.Hash(), nil, 199},
		"another member owns it":            {large, "node-007", large.Ring.Hash(), []string{"node-150"}, 199},
		"a small cluster, nobody has it":    {small, "node-000", small.Ring.Hash(), nil, 99},
		"a small cluster, and one that has": {small, "node-000", small.Ring.Hash(), []string{"node-050"}, 99},
	} {
		d, blob := &directories{many: maxHolders, here: directory.New(1000)}, owned(test.v, test.owner)
		if test.ring != 0 {
			tellHolding(test.v, d, test.ring, blob, test.holding...)
		}
		got := holders(test.v, blob, d.of(test.v, blob), all, none)
		if len(got) != test.want || len(test.holding) > 0 && got[0] != test.holding[0] {
			t.Errorf("%s: %d are asked, the first of them %q; want %d", name, len(got), got[0], test.want)
		}
		owners, n := test.v.Ring.Owners(blob)
		for _, o := range owners[:n] {
			if o.ID != test.v.Self.ID && !slices.Contains(got, o.ID) {
				t.Errorf("%s: an owner is not asked", name)
			}
		}
		if got := holders(test.v, "registry/team/app:tag", d.of(test.v, "registry/team/app:tag"), all, none); len(got) != min(len(test.v.Members)-1, maxHolders) {
			t.Errorf("%s: %d are asked about a tag", name, len(got))
		}
		if liars := holders(test.v, blob, d.of(test.v, blob), all, func(id string) bool { return id == "node-150" || id == "node-050" }); slices.Contains(liars, "node-150") || slices.Contains(liars, "node-050") {
			t.Errorf("%s: one that lied is asked", name)
		}
	}
}

// One that has joined and told nothing yet is asked, and so are all others.
func TestANewMemberIsAskedUntilItHasTold(t *testing.T) {
	t.Parallel()
	v := viewOf(t, 200)
	d, blob := &directories{many: maxHolders, here: directory.New(1000)}, owned(v, "node-000")
	tellHolding(v, d, v.Ring.Hash(), blob)
	more := &membership.View{Self: v.Self, Ring: v.Ring, Members: append(slices.Clone(v.Members), membership.Living(membership.Member{ID: "old-and-new"}))}
	if got := holders(more, blob, d.of(more, blob), all, none); len(got) != 200 || d.of(v, blob).whole != true {
		t.Errorf("%d are asked", len(got))
	}
	d.here.Keep(func(id string) bool { return id != "node-100" })
	if d.of(v, blob).whole {
		t.Error("one is forgotten, and it counts as told")
	}
}
