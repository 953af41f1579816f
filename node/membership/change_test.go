package membership

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/ring"
)

// dir gives a node a directory of its own, which it finds again at its next start.
func dir(path string) func(*Config) { return func(c *Config) { c.Dir = path } }

// at moves a node to another address.
func at(i int) func(*Config) { return func(c *Config) { c.BindAddr = ip(i) + ":7946" } }

func TestANodeThatRestartsKeepsItsPlaceAndIsBackAtOnce(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	bubble(t, 1, func(s *sim) {
		s.form(4)
		again := s.start(4, dir(home))
		s.reach(time.Second, "each node sees all", s.whole)
		id, hash := again.self.ID, again.View().Ring.Hash()
		kept := s.all(func(v *View) bool { return v.Ring.Hash() == hash })
		for _, test := range []struct {
			how  string
			stop func()
			host int
		}{
			{"announced", func() {
				again.Restarting(context.Background())
				if !s.all(func(v *View) bool { m, _ := v.Member(id); return m.State == Restarting && (m.ID == v.Self.ID || !m.Up) })() {
					s.Error("after Restarting it is still up for some members")
				}
				again.Close(context.Background())
			}, 4},
			{"a crash", func() { again.Kill() }, 4},
			{"a crash and a new address, at once", func() { again.Kill() }, 40},
		} {
			test.stop()
			delete(s.nodes, 4)
			if test.host == 4 {
				s.reach(foundDead(5), "it is down", s.all(isDown(id)))
			}
			if !kept() {
				s.Fatalf("%s: it has lost its place", test.how)
			}
			again = s.start(4, dir(home), at(test.host))
			if again.self.ID != id {
				s.Fatal("it has a new id")
			}
			took := s.reach(time.Second, "it is back", s.all(func(v *View) bool {
				m, ok := v.Member(id)
				return ok && m.Up && m.Epoch == again.self.Epoch && m.Gossip == ip(test.host)+":7946" && len(v.Members) == 5
			}))
			s.Logf("%s: back in %v", test.how, took)
			s.reach(time.Second, "the same ring", kept)
			for range 200 { // meanwhile its last boot is found dead, which must change nothing
				s.pass(100 * time.Millisecond)
				if !s.all(isUp(id))() || !kept() {
					s.Fatalf("%s: it was not up all the time", test.how)
				}
			}
			if err := wrongWith(again); err != nil {
				s.Errorf("%s: %v", test.how, err)
			}
		}
	})
}

func TestACrashedNodeLosesItsPlaceAfterTheGrace(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(s *sim) {
		s.form(5)
		id := s.nodes[3].self.ID
		before := s.nodes[0].View().Ring
		s.kill(3)
		s.reach(foundDead(5), "it is down", s.all(isDown(id)))

		// memberlist tells a newcomer nothing of it, but the newcomer has the same ring.
		s.pass(40 * time.Second)
		s.start(5)
		s.reach(time.Second, "the newcomer has the others' ring", func() bool {
			return s.all(isDown(id))() && s.agree() && inRing(s.nodes[0].View(), s.nodes[5].self.ID)
		})
		took := s.reach(81*time.Second, "it has lost its place", s.all(isOut(id)))
		if took < 75*time.Second {
			s.Errorf("it lost its place after %v more, which is too early", took)
		}
		s.reach(time.Second, "only the others are in the ring", s.whole)
		for range 300 { // no late report may bring it back
			s.pass(time.Second)
			if !s.whole() {
				s.Fatal("it has come back")
			}
		}
		if former := s.nodes[0].View().Former; !slices.ContainsFunc(former, func(r *ring.Ring) bool { return r.Hash() == before.Hash() }) {
			s.Errorf("none of the %d former rings has the lost member", len(former))
		}
		s.pass(6 * time.Minute)
		if former := s.nodes[0].View().Former; len(former) != 0 {
			s.Errorf("%d former rings after ten minutes", len(former))
		}
	})
}

func TestADrainingNodeLeavesTheRingAtOnceButStaysASource(t *testing.T) {
	t.Parallel()
	bubble(t, 3, func(s *sim) {
		s.form(6)
		id := s.nodes[2].self.ID
		s.nodes[2].Draining(context.Background())
		s.reach(200*time.Millisecond, "it is out of the ring", s.all(isOut(id)))
		if !s.all(func(v *View) bool {
			m, ok := v.Member(id)
			return ok && m.State == Draining && (m.Up == (v.Self.ID == id)) && len(v.Members) == 6
		})() {
			s.Error("it is no longer a member")
		}
		s.nodes[2].Close(context.Background())
		delete(s.nodes, 2)
		s.reach(time.Second, "it is no longer a member", s.whole)
		s.start(6)
		s.reach(time.Second, "a newcomer does not see it", s.whole)
	})
}

// A node that leaves for good may get SIGTERM meanwhile. It leaves all the same.
func TestADrainingNodeThatIsToldToEndLeavesForGood(t *testing.T) {
	t.Parallel()
	bubble(t, 3, func(s *sim) {
		s.form(4)
		id := s.nodes[2].self.ID
		s.nodes[2].Draining(context.Background())
		s.nodes[2].Restarting(context.Background())
		s.pass(time.Second)
		if !s.all(isOut(id))() {
			s.Error("it keeps its place")
		}
		s.nodes[2].Close(context.Background())
		delete(s.nodes, 2)
		s.reach(time.Second, "it is no longer a member", s.whole)
	})
}

// A node drains and ends before all members have heard of it. Those that missed it
// take it out of the ring too.
func TestADrainedNodeIsOutForMembersThatMissedIt(t *testing.T) {
	t.Parallel()
	bubble(t, 4, func(s *sim) {
		s.form(5)
		id := s.nodes[4].self.ID
		s.net.Cut([]string{ip(0), ip(1), ip(4)}, []string{ip(2), ip(3)})
		s.nodes[4].Draining(context.Background())
		s.nodes[4].Close(context.Background())
		delete(s.nodes, 4)
		s.pass(25 * time.Second)
		if !isDown(id)(s.nodes[2].View()) || !isOut(id)(s.nodes[0].View()) {
			s.Fatal("the cut had no effect")
		}
		s.net.Cut()
		s.reach(15*time.Second, "all members know", s.whole)
	})
}

func TestASingleNodeThatDrainsKeepsTheKeys(t *testing.T) {
	t.Parallel()
	bubble(t, 5, func(s *sim) {
		m := s.start(0)
		m.Draining(context.Background())
		s.pass(time.Second)
		if v := m.View(); v.Self.State != Draining || !v.Self.Up || !inRing(v, m.self.ID) || wrongWith(m) != nil {
			s.Errorf("it is %v, with health %v", v.Self.State, wrongWith(m))
		}
	})
}

func TestAFlappingNodeDoesNotThrashTheRing(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	bubble(t, 6, func(s *sim) {
		var rings atomic.Int64
		s.next = func(old *ring.Ring, members []ring.Member) (*ring.Ring, error) {
			r, err := remembered(old, members)
			if r != old {
				rings.Add(1)
			}
			return r, err
		}
		s.form(3)
		s.start(3, dir(home))
		s.reach(time.Second, "each node sees all", s.whole)
		rings.Store(0)
		for range 20 {
			s.kill(3)
			s.pass(15 * time.Second)
			s.start(3, dir(home))
			s.pass(3 * time.Second)
			if !s.whole() {
				s.Error("the node is not back")
			}
		}
		// Each of its starts builds two rings: one alone, one with all members.
		if rings.Load() > 20*2 {
			s.Errorf("%d rings were built", rings.Load())
		}
	})
}

func TestTheViewKnowsAMembersRegistries(t *testing.T) {
	t.Parallel()
	bubble(t, 7, func(s *sim) {
		s.start(0, func(c *Config) {
			c.Registries = []Registry{{Host: "ghcr.io"}, {Host: "r.example:5000", Login: true, Private: true}}
			c.Weight, c.Egress, c.Fingerprint = 7, true, [32]byte{1, 2}
		})
		s.start(1)
		s.reach(time.Second, "both see both", s.whole)
		m, _ := s.nodes[1].View().Member(s.nodes[0].self.ID)
		for registry, want := range map[string][3]bool{
			"ghcr.io": {true, false, false}, "r.example:5000": {true, true, true}, "quay.io": {},
		} {
			a, b, c := m.Has(registry)
			if got := [3]bool{a, b, c}; got != want {
				s.Errorf("%s: %v", registry, got)
			}
		}
		if m.Peer != ip(0)+":7947" || m.Weight != 7 || !m.Egress || m.Fingerprint != [32]byte{1, 2} || len(m.Nonce) != 16 || m.Zone != "here" {
			s.Errorf("member %+v", m)
		}
	})
}

func TestChangedIsClosedAtTheNextView(t *testing.T) {
	t.Parallel()
	bubble(t, 8, func(s *sim) {
		m := s.start(0)
		s.pass(time.Second)
		changed, before := m.Changed(), m.View()
		s.start(1)
		<-changed
		after := m.View()
		if after == before || len(after.Members) != 2 || len(before.Members) != 1 {
			s.Errorf("%d members, and %d before", len(after.Members), len(before.Members))
		}
		ids := []string{after.Members[0].ID, after.Members[1].ID}
		if !slices.IsSorted(ids) || after.Self.ID != m.self.ID {
			s.Errorf("ids %v, self %s", ids, after.Self.ID)
		}
	})
}

func TestTheLogSaysWhatBecomesOfAMember(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	bubble(t, 9, func(s *sim) {
		s.form(2)
		logged := func(message string) {
			s.Helper()
			s.reach(3*time.Minute, message, func() bool { return s.logs[0].Has(`msg="` + message + `" peer=node-2`) })
		}
		s.start(2, dir(home))
		logged("member joined")
		s.kill(2)
		logged("member is down")
		s.start(2, dir(home)).Restarting(context.Background())
		logged("member is back")
		s.nodes[2].Draining(context.Background())
		logged("member changed its state")
		s.nodes[2].Close(context.Background())
		delete(s.nodes, 2)
		logged("member removed")
	})
}
