package ring

import (
	"fmt"
	"slices"
	"testing"
)

// mesh makes n members of the weight, or of many weights if it is 0.
func mesh(n, weight int, seed uint64) []Member {
	members := nodes(n, weight, seed)
	for i := range members {
		if weight == 0 {
			members[i].Weight = []int{1, 2, 5, 10, 20}[i%5]
		}
	}
	return members
}

// TestFigures checks what the ring promises: how even the shares are, how many
// keys a join moves, and who takes over. The seeds are fixed, so the rings are
// the same each time.
func TestFigures(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ n, weight, rounds int }{{10, 1, 12}, {100, 1, 12}, {300, 1, 12}, {30, 0, 5}} {
		t.Run(fmt.Sprintf("%d members of weight %d", test.n, test.weight), func(t *testing.T) {
			t.Parallel()
			if raceEnabled || testing.Short() {
				test.rounds = min(test.rounds, 3) // under the race detector a join takes ten times as long
			}
			members := mesh(test.n+test.rounds, test.weight, uint64(test.n))
			r := must(t, members[:test.n])
			balanced(t, r)
			moves(t, r, members[test.n:])
			takesOver(t, r, test.rounds)
		})
	}
}

func weigh(members []Member) (sum float64) {
	for _, m := range members {
		sum += float64(m.Weight)
	}
	return sum
}

// balanced checks that the largest share is at most 1.3 times the ideal one.
func balanced(t *testing.T, r *Ring) {
	t.Helper()
	members := r.members
	total, least, most := weigh(members), 2.0, 0.0
	for _, m := range members {
		share := r.Share(m.ID) / (float64(m.Weight) / total)
		least, most = min(least, share), max(most, share)
	}
	t.Logf("shares %.2f to %.2f of the mean", least, most)
	if most > 1.3 || least < 0.4 {
		t.Error("the shares are out of bounds")
	}
}

// movedPart returns the fraction of the keys whose owner differs in the rings.
func movedPart(before, after *Ring) float64 {
	n := 0
	for p := range uint64(partitions) {
		if before.owner(p).ID != after.owner(p).ID {
			n++
		}
	}
	return float64(n) / partitions
}

// moves checks that joins move on average at most 1.3 times the new members'
// share of the keys, and next to nothing between the members before. A single
// join may move twice the ideal: when the load bound falls by one, all full
// units give a partition away.
func moves(t *testing.T, r *Ring, joining []Member) {
	t.Helper()
	members := slices.Clone(r.members)
	ideal, moved, worst, aside := 0.0, 0.0, 0.0, 0.0
	for _, m := range joining {
		members = append(members, m)
		before := r
		r = mustNext(t, before, members)
		part, now := float64(m.Weight)/weigh(members), movedPart(before, r)
		ideal += part
		moved += now
		worst = max(worst, now/part)
		aside += now - r.Share(m.ID)
	}
	t.Logf("%d joins move %.2f times the ideal (the worst %.2f), and %.3f %% of the keys between the others",
		len(joining), moved/ideal, worst, 100*aside/float64(len(joining)))
	if moved > 1.3*ideal || aside > 0.005*float64(len(joining)) {
		t.Error("the joins move too many keys")
	}
}

// takesOver checks that when a member leaves, at least 98 % of its partitions go
// to one of the next two owners.
func takesOver(t *testing.T, r *Ring, rounds int) {
	t.Helper()
	members := r.members
	left, first, second := 0, 0, 0
	for n := range rounds {
		leaver := n * len(members) / rounds
		after := mustNext(t, r, without(members, members[leaver].ID))
		for p, owners := range r.owners {
			if owners[0] != uint16(leaver) {
				continue
			}
			left++
			switch after.owner(uint64(p)) {
			case members[owners[1]]:
				first++
			case members[owners[2]]:
				second++
			}
		}
	}
	part := func(n int) float64 { return 100 * float64(n) / float64(left) }
	t.Logf("of %d partitions, %.1f %% go to the next owner, %.1f %% to the one after it", left, part(first), part(second))
	if part(first) < 96 || part(first+second) < 98 {
		t.Error("the listed owners take over too few")
	}
}

// The ring also knows the member that takes over when two have left.
func TestThirdTakesOverForTheFirstTwo(t *testing.T) {
	t.Parallel()
	members := nodes(10, 1, 13)
	r := must(t, members)
	keys := digests(25)
	right := 0
	for _, key := range keys {
		owners, _ := r.Owners(key)
		after := mustNext(t, r, without(without(members, owners[0].ID), owners[1].ID))
		if after.Owner(key) == owners[2] {
			right++
		}
	}
	t.Logf("%d of %d", right, len(keys))
	if right < len(keys)*9/10 {
		t.Error("the third owner takes over too few keys")
	}
}
