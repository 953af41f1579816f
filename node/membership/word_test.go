package membership

import (
	"errors"
	"testing"
	"time"
)

// leave makes node i leave for good.
func (s *sim) leave(i int) {
	s.Helper()
	s.nodes[i].Draining(s.Context())
	if err := s.nodes[i].Close(s.Context()); err != nil {
		s.Error(err)
	}
	delete(s.nodes, i)
}

// restart ends node i as SIGTERM does.
func (s *sim) restart(i int) {
	s.Helper()
	s.nodes[i].Restarting(s.Context())
	if err := s.nodes[i].Close(s.Context()); err != nil {
		s.Error(err)
	}
	delete(s.nodes, i)
}

// The newest word of a node counts alone. A node that left for good is out of the ring
// at once and for all, whatever its earlier starts did within the grace.
func TestTheNewestWordCounts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		story string // r: restart, k: kill -9, l: leave, s: start, .: 5 s pass
		there bool   // at the end
	}{
		"restart, leave":                   {"rs.l", false},
		"restart, leave at once":           {"rsl", false},
		"restart, restart, leave":          {"rs.rs.l", false},
		"kill, leave at once":              {"ksl", false},
		"kill, kill, leave":                {"ks.ksl", false},
		"kill, restart, leave":             {"ksrs.l", false},
		"leave, rejoin":                    {"l.s.", true},
		"restart, leave, rejoin at once":   {"rslss", true},
		"leave, rejoin, leave":             {"l.s.l", false},
		"leave, rejoin, kill, rejoin":      {"lsks", true},
		"leave, rejoin, kill, leave again": {"lsksl", false},
	} {
		for clock, skew := range map[string]time.Duration{"": 0, ", clocks go back 40 days": -40 * 24 * time.Hour, ", clocks go on 40 days": 40 * 24 * time.Hour} {
			t.Run(name+clock, func(t *testing.T) {
				t.Parallel()
				home := t.TempDir()
				bubble(t, 1, func(s *sim) {
					if skew < 0 { // the node was started once before they went back
						setEpoch(s.T, home, time.Now().Add(-skew).Unix())
					}
					s.form(4)
					s.start(4, dir(home))
					s.reach(time.Second, "each node sees all", s.whole)
					id, moved := s.nodes[4].self.ID, false
					for _, step := range test.story {
						switch step {
						case 'r':
							s.restart(4)
						case 'k':
							s.kill(4)
						case 'l':
							s.leave(4)
						case 's':
							if s.nodes[4] != nil {
								continue
							}
							if skew > 0 && !moved {
								moved = true
								setEpoch(s.T, home, int64(readEpoch(home))+int64(skew/time.Second))
							}
							epoch := s.start(4, dir(home)).self.Epoch
							s.reach(time.Second, "it is back", s.all(func(v *View) bool { m, ok := v.Member(id); return ok && m.Up && m.Epoch == epoch }))
						default:
							s.pass(5 * time.Second)
						}
					}
					s.Logf("rings agree after %v", s.reach(2*time.Second, "all rings agree", func() bool {
						return s.agree() && s.all(func(v *View) bool { return inRing(v, id) == test.there })()
					}))
					// Neither the end of an earlier start nor a newcomer changes that.
					for i := range 300 {
						s.pass(time.Second)
						if i == 2 {
							s.start(9)
							s.pass(time.Second)
						}
						if !s.all(func(v *View) bool { return inRing(v, id) == test.there })() || !s.agree() {
							s.Fatalf("after %d s the rings differ or are wrong", i)
						}
					}
					for i, m := range s.nodes {
						if gone := m.Gone(); len(gone) != 0 {
							s.Errorf("node %d lists %v as gone", i, gone)
						}
					}
				})
			})
		}
	}
}

// A node leaves while the network is split. The other side takes it for down, and for
// gone, until the network heals.
func TestALeaveInASplit(t *testing.T) {
	t.Parallel()
	for _, split := range []time.Duration{30 * time.Second, 5 * time.Minute} {
		bubble(t, 1, func(s *sim) {
			s.form(6)
			id := s.nodes[5].self.ID
			s.net.Cut([]string{ip(0), ip(1), ip(5)}, []string{ip(2), ip(3), ip(4)})
			s.pass(20 * time.Second)
			s.leave(5)
			s.pass(split)
			s.net.Cut()
			s.reach(30*time.Second, "the sides agree", s.whole)
			s.reach(30*time.Second, "nobody lists it", func() bool {
				for _, m := range s.nodes {
					if len(m.Gone()) != 0 {
						return false
					}
				}
				return true
			})
			for range 100 {
				s.pass(time.Second)
				if !s.all(isOut(id))() || !s.agree() {
					s.Fatal("it has come back")
				}
			}
		})
	}
}

// listed reports whether all nodes list exactly these as gone.
func (s *sim) listed(names ...string) func() bool {
	return func() bool {
		for _, m := range s.nodes {
			gone := m.Gone()
			if len(gone) != len(names) {
				return false
			}
			for i, g := range gone {
				if g.Name != names[i] {
					return false
				}
			}
		}
		return true
	}
}

// A member that died is listed on all members: those that restart and those that join
// later, too.
func TestADeadMemberIsListedByAll(t *testing.T) {
	t.Parallel()
	homes := []string{t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()}
	bubble(t, 1, func(s *sim) {
		for i, home := range homes {
			s.start(i, dir(home))
		}
		s.reach(10*time.Second, "each node sees all", s.whole)
		s.kill(3)
		s.pass(time.Minute)
		if !s.listed()() {
			s.Error("listed though it keeps its place")
		}
		s.Logf("listed after %v more", s.reach(80*time.Second, "all list it", s.listed("node-3")))
		s.start(4)
		s.reach(2*time.Second, "a newcomer lists it", s.listed("node-3"))
		s.pass(15 * time.Second)
		for i := range 3 { // all at once
			s.restart(i)
		}
		s.kill(4)
		for i := range 3 {
			s.start(i, dir(homes[i]))
		}
		s.reach(5*time.Second, "they list it after a restart", s.listed("node-3"))
		s.pass(10 * time.Minute)
		s.reach(time.Second, "so they do later", s.listed("node-3", "node-4"))
	})
}

// A member that is listed comes back, or another of its name takes its place.
func TestADeadMemberIsReplaced(t *testing.T) {
	t.Parallel()
	homes := []string{t.TempDir(), t.TempDir()}
	bubble(t, 1, func(s *sim) {
		s.form(2)
		s.start(2, dir(homes[0]))
		s.start(3, dir(homes[1]))
		s.reach(time.Second, "each node sees all", s.whole)
		s.kill(2)
		s.kill(3)
		s.pass(3 * time.Minute)
		s.reach(time.Second, "both are listed", s.listed("node-2", "node-3"))
		s.start(2, dir(homes[0]))
		s.reach(time.Second, "one is back", s.listed("node-3"))
		s.start(30, func(c *Config) { c.Name = "node-3" })
		s.reach(time.Second, "the other is replaced", s.listed())
		s.start(5)
		s.pass(5 * time.Minute)
		s.reach(time.Second, "and stays so", s.listed())

		// Replaced before it was found dead.
		s.kill(30)
		s.start(31, func(c *Config) { c.Name = "node-3" })
		s.pass(5 * time.Minute)
		s.reach(time.Second, "nobody lists it", s.listed())
	})
}

func TestForget(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	bubble(t, 1, func(s *sim) {
		s.form(5)
		s.start(5, dir(home))
		s.reach(time.Second, "each node sees all", s.whole)
		if _, err := s.nodes[0].Forget("node-5"); !errors.Is(err, ErrAlive) {
			s.Errorf("a live member: %v", err)
		}
		if _, err := s.nodes[0].Forget("node-9"); !errors.Is(err, ErrNoSuchMember) {
			s.Errorf("no member: %v", err)
		}
		s.kill(5)
		s.kill(4)
		s.pass(3 * time.Minute)
		s.reach(time.Second, "both are listed", s.listed("node-4", "node-5"))
		s.net.Cut([]string{ip(0), ip(1), ip(2)}, []string{ip(3)})
		s.pass(15 * time.Second)
		if n, err := s.nodes[0].Forget("node-4"); n != 1 || err != nil {
			s.Errorf("%d, %v", n, err)
		}
		away := s.nodes[3]
		delete(s.nodes, 3)
		s.Logf("forgotten by those that hear of it after %v", s.reach(2*time.Second, "it is forgotten", s.listed("node-5")))
		s.nodes[3] = away
		s.net.Cut()
		s.reach(15*time.Second, "the network heals", s.whole)
		s.reach(20*time.Second, "the others have heard of it", s.listed("node-5"))
		s.pass(time.Hour)
		s.reach(time.Second, "and it stays so", s.listed("node-5"))

		// One that keeps its place loses it.
		s.start(5, dir(home))
		s.reach(2*time.Second, "it is back", s.listed())
		id := s.nodes[5].self.ID
		s.kill(5)
		s.reach(15*time.Second, "it is down", s.all(isDown(id)))
		if _, err := s.nodes[1].Forget("node-5"); err != nil {
			s.Error(err)
		}
		s.Logf("out of all rings after %v", s.reach(2*time.Second, "it is out", func() bool { return s.all(isOut(id))() && s.agree() }))
		for range 300 {
			s.pass(time.Second)
			if !s.all(isOut(id))() || !s.listed()() {
				s.Fatal("it has come back")
			}
		}
		// A forgotten node may come back.
		s.start(5, dir(home))
		s.reach(2*time.Second, "it is a member again", s.whole)
	})
}

// Names that change with each start fill nothing. The oldest go singly.
func TestTheGoneAreBounded(t *testing.T) {
	t.Parallel()
	b, err := openAddressBook("", time.Minute, noon)
	if err != nil {
		t.Fatal(err)
	}
	var first, last string
	for i := range 1000 {
		last = newID()
		if i == 0 {
			first = last
		}
		b.note(snapshot{gone: []Member{
			{ID: last, Name: last, Gossip: "10.0.0.1:1", Epoch: 1, Since: noon.Add(time.Duration(i) * time.Second)},
			{ID: newID(), State: Draining, Gossip: "10.0.0.1:1", Epoch: 1, Since: noon.Add(time.Duration(i) * time.Second)},
		}}, noon.Add(time.Duration(i)*time.Second))
	}
	now := noon.Add(1000 * time.Second)
	defer func() {
		if n := len(b.gone(now.Add(24*time.Hour - 20*time.Minute))); n != maxGone {
			t.Errorf("%d are gone after most of a day", n)
		}
		b.note(snapshot{}, now.Add(24*time.Hour))
		if n, left := len(b.gone(now.Add(24*time.Hour))), len(b.known); n != 0 || left != maxLeft {
			t.Errorf("%d are gone after a day, %d known", n, left)
		}
		b.note(snapshot{}, now.Add(25*time.Hour))
		if n := len(b.known); n != 0 {
			t.Errorf("%d are known after a day and an hour", n)
		}
	}()
	gone, told := b.gone(now), b.departed(now)
	if len(gone) != maxGone || len(told) != maxGone+maxLeft || len(b.known) != maxGone+maxLeft {
		t.Errorf("%d are gone, %d told, %d known", len(gone), len(told), len(b.known))
	}
	for _, g := range gone {
		if g.ID == first {
			t.Error("the oldest has not gone first")
		}
	}
	if _, ok := b.known[last]; !ok {
		t.Error("the newest is not known")
	}
}
