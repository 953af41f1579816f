package membership

import (
	"context"
	"slices"
	"testing"
	"time"
)

// The figures of a mesh of a hundred: who comes and goes in order is seen by
// all within a second, who crashes within 15 as a rule.
func TestHundredNodesSeeEachOtherComeAndGo(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("takes a minute under the race detector; TestThirtyNodesThatStartAtOnceForm has the same code")
	}
	bubble(t, 1, func(s *sim) {
		s.next = noRing
		began := time.Now()
		for i := range 100 {
			s.start(i)
		}
		full := func(n int) func() bool { return s.all(func(v *View) bool { return up(v) == n }) }
		s.reach(10*time.Second, "100 see each other", full(100))
		s.Logf("100 formed in %v", time.Since(began))
		s.pass(2 * time.Second)

		s.start(100)
		s.Logf("a join took %v", s.reach(time.Second, "the join is seen", full(101)))

		leaver := s.nodes[50]
		delete(s.nodes, 50)
		go leaver.Close(context.Background())
		s.Logf("a leave took %v", s.reach(time.Second, "the leave is seen", full(100)))

		// One in fifty takes longer than 15 s: each suspicion waits for what
		// random others confirm.
		var kills []time.Duration
		for i := range 3 {
			s.kill(51 + i)
			kills = append(kills, s.reach(25*time.Second, "the kill is seen", full(99-i)))
		}
		slices.Sort(kills)
		s.Logf("kills took %v", kills)
		if kills[1] > 15*time.Second {
			s.Error("that is too long")
		}
	})
}

func TestThirtyNodesThatStartAtOnceForm(t *testing.T) {
	t.Parallel()
	worst, runs := time.Duration(0), uint64(5)
	if raceEnabled {
		runs = 1
	}
	for seed := range runs {
		bubble(t, seed, func(s *sim) {
			s.next = noRing
			for i := range 30 {
				s.start(i)
			}
			took := s.reach(2*time.Second, "all see all", s.all(func(v *View) bool { return up(v) == 30 }))
			worst = max(worst, took)
		})
	}
	t.Logf("at worst %v", worst)
}

func TestKillIsSeenInSmallMeshes(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.form(10)
		for i := 9; i > 4; i-- { // one after the other: the ones before are still counted
			id := s.nodes[i].self.ID
			s.kill(i)
			s.Logf("kill took %v", s.reach(15*time.Second, "the kill is seen", s.all(isDown(id))))
		}
	})
}
