package membership

import (
	"testing"
	"time"
)

// A member that does not answer for 10 s, while its kernel takes connections, is not down. Who joins
// meanwhile has the same ring.
func TestALateMemberIsNotDown(t *testing.T) {
	t.Parallel()
	bubble(t, 3, func(s *sim) {
		s.form(6)
		id, found := s.nodes[4].self.ID, false
		s.net.Hang(ip(4), true)
		for i := range 20 {
			s.pass(500 * time.Millisecond)
			for n, m := range s.nodes {
				if one, ok := m.View().Member(id); n != 7 && (!ok || !one.Alive()) {
					s.Fatalf("node %d takes it for down after %d half seconds", n, i+1)
				}
				m.roster.mu.Lock()
				b := m.roster.boots[id][s.nodes[4].self.Epoch]
				found = found || b != nil && b.late
				m.roster.mu.Unlock()
			}
			if i == 17 {
				s.start(7)
			}
		}
		if !found {
			s.Error("gossip has not found it dead: the test shows nothing")
		}
		s.reach(5*time.Second, "the newcomer has the ring of the others", func() bool {
			return s.nodes[7].View().Ring.Hash() == s.nodes[0].View().Ring.Hash() && inRing(s.nodes[7].View(), id)
		})
		s.net.Hang(ip(4), false)
		// It hears at its next exchange with a member what the others think, and that may fail once.
		s.reach(2*pushPullInterval, "each node sees all", s.whole)
	})
}

// A vigil that another member ends, which took the address, ends with the loss of who had it.
func TestAVigilEndsWhenTheAddressIsTaken(t *testing.T) {
	t.Parallel()
	bubble(t, 4, func(s *sim) {
		s.form(4)
		old := s.nodes[3].self
		watched := func() bool {
			r := s.nodes[0].roster
			r.mu.Lock()
			defer r.mu.Unlock()
			b := r.boots[old.ID][old.Epoch]
			return b != nil && b.late
		}
		s.net.Hang(ip(3), true)
		s.reach(20*time.Second, "a vigil is kept", watched)
		s.kill(3)
		s.net.Hang(ip(3), false)
		s.start(9, func(c *Config) { c.BindAddr = ip(3) + ":7946" })
		s.reach(lateFor+20*time.Second, "nobody takes it for alive", func() bool {
			return s.all(func(v *View) bool { m, ok := v.Member(old.ID); return !ok || !m.Alive() })()
		})
	})
}

// Who takes another id has not left for good under the one before, which may be another's too.
func TestATitleThatIsGivenUpHasNotLeft(t *testing.T) {
	t.Parallel()
	r := newRoster(identity{"self", 1}, time.Minute)
	for void, want := range map[bool]bool{false: true, true: false} {
		r.mu.Lock()
		r.put(&boot{member: Member{ID: "a", Epoch: 1, State: Draining, void: void, alive: true}})
		r.mu.Unlock()
		if left := r.lost(title("a", 1)); left != want {
			t.Errorf("void %v: left for good is %v", void, left)
		}
	}
}

// A process that has ended is lost when gossip says so, and one that said that it ends too.
func TestNoVigilIsKeptForWhoHasEnded(t *testing.T) {
	t.Parallel()
	r := newRoster(identity{"self", 1}, time.Minute)
	put := func(id string, epoch uint64, state State, at string) string {
		r.mu.Lock()
		defer r.mu.Unlock()
		m := Member{ID: id, Epoch: epoch, State: state, Gossip: at, alive: true}
		r.put(&boot{member: m, since: time.Now()})
		return title(id, epoch)
	}
	for name, c := range map[string]struct {
		boot string
		want bool
	}{
		"it may be late":            {put("a", 1, Active, "10.0.0.1:1"), true},
		"it said that it restarts":  {put("b", 1, Restarting, "10.0.0.2:1"), false},
		"it said that it leaves":    {put("c", 1, Draining, "10.0.0.3:1"), false},
		"it has started again":      {put("d", 1, Active, "10.0.0.4:1"), false},
		"another has its address":   {put("e", 1, Active, "10.0.0.5:1"), false},
		"the newer start":           {put("d", 2, Active, "10.0.0.40:1"), true},
		"who has the other address": {put("f", 1, Active, "10.0.0.5:1"), false},
		"nobody knows it":           {title("g", 1), false},
	} {
		if got := doubt(r, c.boot) != nil; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
