package ring

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// disks makes n members with the sizes in turn, in GiB.
func disks(n int, seed uint64, sizes ...int64) []Member {
	members := nodes(n, 1, seed)
	for i := range members {
		members[i].Size = Size(sizes[i%len(sizes)] << 30)
		members[i].Weight = Units(sizes[i%len(sizes)] << 30)
	}
	return members
}

// TestFitFigures checks what a ring promises whose shares follow sizes.
func TestFitFigures(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		n, rounds int
		sizes     []int64
	}{
		{2, 6, []int64{10}},
		{3, 6, []int64{10, 20, 70}},
		{3, 6, []int64{100}},
		{7, 6, []int64{5, 2048}},
		{10, 8, []int64{100}},
		{10, 8, []int64{5, 10, 20, 50, 100}},
		{30, 8, []int64{100}},
		{100, 8, []int64{100}},
		{100, 8, []int64{5, 10, 20, 50, 100, 2048}},
		{300, 4, []int64{100}},
		{300, 4, []int64{10, 500}},
	} {
		t.Run(fmt.Sprintf("%d members of %d", test.n, test.sizes), func(t *testing.T) {
			t.Parallel()
			if raceEnabled || testing.Short() {
				if test.n > 100 {
					t.Skip("slow under the race detector; smaller meshes run the same code")
				}
				test.rounds = 2
			}
			members := disks(test.n+test.rounds, uint64(test.n), test.sizes...)
			r := must(t, members[:test.n])
			proportional(t, r)
			fitMoves(t, r, members[test.n:])
			fitTakesOver(t, r)
		})
	}
}

// partOf is the share that is due to the member by its size.
func partOf(m Member, members []Member) float64 {
	sum := 0.0
	for _, o := range members {
		sum += float64(o.Size)
	}
	return float64(m.Size) / sum
}

// proportional checks that shares are within 15 % of the sizes' proportion, for members
// to whom at least 7 partitions are due.
func proportional(t *testing.T, r *Ring) {
	t.Helper()
	worst := 0.0
	for _, m := range r.members {
		if part := partOf(m, r.members); part*partitions >= 7 {
			worst = max(worst, math.Abs(r.Share(m.ID)/part-1))
		}
	}
	if worst > 0.15 {
		t.Errorf("with %d members, a share is %.1f %% off", len(r.members), 100*worst)
	}
}

// fitMoves checks that a join moves at most 2 % of the keys, or twice as many as go to
// the new member or to an average one, whichever is most.
func fitMoves(t *testing.T, r *Ring, joining []Member) {
	t.Helper()
	members := slices.Clone(r.members)
	ideal, moved, aside := 0.0, 0.0, 0.0
	for _, m := range joining {
		members = append(members, m)
		before := r
		r = mustNext(t, before, members)
		proportional(t, r)
		part, now := partOf(m, members), movedPart(before, r)
		ideal, moved, aside = ideal+part, moved+now, aside+now-r.Share(m.ID)
		if most := 2 * max(part, 1/float64(len(members)), 0.01); now > most {
			t.Errorf("a join moves %.4f of the keys, more than %.4f", now, most)
		}
	}
	t.Logf("%d joins move %.2f times the ideal, and %.3f %% of the keys between the others",
		len(joining), moved/ideal, 100*aside/float64(len(joining)))
}

// fitTakesOver checks that when a member leaves, most of its partitions go to one of the
// next two owners.
func fitTakesOver(t *testing.T, r *Ring) {
	t.Helper()
	members, rounds := r.members, min(8, len(r.members))
	left, first, second := 0, 0, 0
	for n := range rounds {
		leaver := n * len(members) / rounds
		after := mustNext(t, r, without(members, members[leaver].ID))
		for p, owners := range r.owners {
			if owners[0] != uint16(leaver) {
				continue
			}
			left++
			switch after.owner(uint64(p)).ID {
			case members[owners[1]].ID:
				first++
			case members[owners[2]].ID:
				second++
			}
		}
	}
	part := func(n int) float64 { return 100 * float64(n) / float64(left) }
	t.Logf("of %d partitions, %.1f %% go to the next owner, %.1f %% to the one after it", left, part(first), part(second))
	if part(first) < 80 || part(first+second) < 90 {
		t.Error("the listed owners take over too few")
	}
}

// Whatever the way, members with sizes make one ring. It is another one as soon as one
// member's size is not known.
func TestFittedRingsDependOnTheSetOfMembersOnly(t *testing.T) {
	t.Parallel()
	all := disks(12, 3, 5, 10, 20, 70)
	random := rand.New(rand.NewPCG(4, 0))
	r := must(t, all[:1])
	for i := range 12 {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		members := slices.Clone(all[:1+random.IntN(len(all))])
		if i%3 == 0 {
			members[0].Size = 0
		}
		r = mustNext(t, r, members)
		same(t, r, must(t, members))
	}
}

// A member of a version that tells no size makes all use the weights: the ring of such
// versions, with the same hash.
func TestWithoutAllSizesTheWeightsCount(t *testing.T) {
	t.Parallel()
	members := disks(8, 5, 10, 300, 700)
	mixed, old := slices.Clone(members), slices.Clone(members)
	mixed[3].Size = 0
	for i := range old {
		old[i].Size = 0
	}
	a, b, c := must(t, mixed), must(t, old), must(t, members)
	if a.Hash() != b.Hash() || a.owners != b.owners {
		t.Error("the ring is not that of members without sizes")
	}
	if c.Hash() == b.Hash() || c.owners == b.owners {
		t.Error("sizes change nothing")
	}
	weights := slices.Clone(members)
	for i := range weights {
		weights[i].Weight = 1
	}
	if d := must(t, weights); d.Hash() != c.Hash() || d.owners != c.owners {
		t.Error("weights count, though all sizes are known")
	}
}

// A ring that follows sizes keeps what the library gave, where that is near the sizes: an
// upgrade of a cluster of equal nodes moves little.
func TestEqualSizesMoveLittle(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 10, 100} {
		members := disks(n, 1, 10)
		after := must(t, members)
		for i := range members {
			members[i].Size = 0
		}
		moved := movedPart(must(t, members), after)
		t.Logf("%d members: %.2f %% of the keys move", n, 100*moved)
		if moved > 0.05 {
			t.Error("that is too much")
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[int64]int{
		math.MinInt64: 1600, 0: 1600, 1: 1, 64 << 20: 1, 96 << 20: 2, 5 << 30: 80, 100 << 30: 1600, 1 << 50: MaxSize, math.MaxInt64: MaxSize,
	} {
		if got := Size(bytes); got != want {
			t.Errorf("%d bytes are a size of %d, want %d", bytes, got, want)
		}
	}
}

// Nothing breaks at the edges: one member, members that own next to nothing, and all
// that fit.
func TestExtremeSizes(t *testing.T) {
	t.Parallel()
	for name, members := range map[string][]Member{
		"one": {{ID: "a", Weight: 1, Size: 1}}, "two": {{ID: "a", Weight: 1, Size: 1}, {ID: "b", Weight: 1, Size: MaxSize}},
		"largest": {{ID: "a", Weight: 1, Size: MaxSize}, {ID: "b", Weight: 1, Size: MaxSize}, {ID: "c", Weight: 1, Size: 1}, {ID: "d", Weight: 1, Size: 2}},
	} {
		r, err := New(members)
		check(t, r, err)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		proportional(t, r)
	}
	if _, err := New([]Member{{ID: "a", Weight: 1, Size: MaxSize + 1}}); !errors.Is(err, ErrMembers) {
		t.Errorf("too large a size: %v", err)
	}
}
