package membership

import (
	"context"
	"slices"
	"testing"
	"time"
)

// In a mesh of a hundred, all members see an announced change within a second, and a
// crash within 15 s as a rule.
func TestHundredNodesSeeEachOtherComeAndGo(t *testing.T) {
	t.Parallel()
	if raceEnabled || testing.Short() {
		t.Skip("slow, a minute under the race detector; TestThirtyNodesThatStartAtOnceForm runs the same code")
	}
	bubble(t, 1, func(s *sim) {
		s.next = noRing
		began := time.Now()
		for i := range 100 {
			s.start(i)
		}
		full := func(n int) func() bool { return s.all(func(v *View) bool { return up(v) == n }) }
		s.reach(10*time.Second, "100 see each other", full(100))
		s.Logf("100 nodes formed a mesh in %v", time.Since(began))
		s.pass(2 * time.Second)

		s.start(100)
		s.Logf("it took %v to see a join", s.reach(time.Second, "the join is seen", full(101)))

		leaver := s.nodes[50]
		delete(s.nodes, 50)
		go leaver.Close(context.Background())
		s.Logf("it took %v to see a leave", s.reach(time.Second, "the leave is seen", full(100)))

		// One in fifty takes longer than 15 s: a suspicion ends earlier or later, as
		// random other members confirm it.
		var kills []time.Duration
		for i := range 3 {
			s.kill(51 + i)
			kills = append(kills, s.reach(25*time.Second, "the kill is seen", full(99-i)))
		}
		slices.Sort(kills)
		s.Logf("it took %v to see the kills", kills)
		if kills[1] > 15*time.Second {
			s.Error("that is too slow")
		}
	})
}

func TestThirtyNodesThatStartAtOnceForm(t *testing.T) {
	t.Parallel()
	worst, runs := time.Duration(0), uint64(5)
	if raceEnabled || testing.Short() {
		runs = 1
	}
	for seed := range runs {
		bubble(t, seed, func(s *sim) {
			s.next = noRing
			for i := range 30 {
				s.start(i)
			}
			took := s.reach(2*time.Second, "each node sees all", s.all(func(v *View) bool { return up(v) == 30 }))
			worst = max(worst, took)
		})
	}
	t.Logf("the slowest mesh formed in %v", worst)
}

func TestKillIsSeenInSmallMeshes(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.form(10)
		for i := 9; i > 4; i-- { // those killed before keep their places
			id := s.nodes[i].self.ID
			s.kill(i)
			s.Logf("it took %v to see a kill", s.reach(15*time.Second, "the kill is seen", s.all(isDown(id))))
		}
	})
}
