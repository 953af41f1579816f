package membership

import (
	"strings"
	"testing"
	"time"
)

func seeds(all ...string) func(*Config) { return func(c *Config) { c.Seeds = all } }

func TestANameStandsForAllItsAddresses(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		byName := func(c *Config) {
			c.Seeds = []string{"mesh:7946"}
			c.Resolve = names(map[string][]string{"mesh": {ip(0), ip(1), ip(2)}})
		}
		for i := 2; i >= 0; i-- {
			s.start(i, byName)
		}
		s.reach(2*time.Second, "each node sees all", s.whole)
	})
}

// A service's name may stand for this node alone. Then the node is alone, but
// healthy.
func TestASeedThatIsThisNodeItselfIsNoCompany(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		dns := &zone{names: map[string][]string{"mesh": {ip(0)}}}
		first := s.start(0, seeds("mesh:7946"), func(c *Config) { c.Resolve = dns.resolve })
		s.pass(40 * time.Second)
		if err := wrongWith(first); err != nil {
			s.Errorf("health %v", err)
		}
		s.start(1, seeds())
		s.pass(20 * time.Second)
		if n := len(first.View().Members); n != 1 {
			s.Fatalf("%d members", n)
		}
		dns.set("mesh", ip(0), ip(1))
		s.reach(11*time.Second, "the name is resolved again", s.whole)
	})
}

func TestSeedsAreTriedForEver(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		m := s.start(1)
		lone := s.start(2, seeds("nowhere:7946"), func(c *Config) { c.Resolve = names(nil) })
		s.pass(time.Hour)
		if err := wrongWith(m); err == nil || !strings.Contains(err.Error(), "connection refused") {
			s.Errorf("health %v", err)
		}
		if wrongWith(lone) == nil || !s.logs[2].Has("it has no address") {
			s.Errorf("health %v, log %s", wrongWith(lone), s.logs[2])
		}
		if n := s.logs[1].Count("joining a member failed"); n < 10 || n > 61 {
			s.Errorf("logged %d times in an hour", n)
		}
		s.kill(2)
		s.start(0)
		s.reach(11*time.Second, "the seed is found", s.whole)
		if err := wrongWith(m); err != nil {
			s.Errorf("health %v", err)
		}
	})
}

// After a restart, known members serve as seeds.
func TestKnownMembersAreFoundWithoutSeeds(t *testing.T) {
	t.Parallel()
	homes := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	bubble(t, 1, func(s *sim) {
		begin := func() {
			for i, home := range homes {
				s.start(i, dir(home), seeds())
			}
		}
		s.start(0, dir(homes[0]), seeds())
		s.start(1, dir(homes[1]))
		s.start(2, dir(homes[2]))
		s.reach(2*time.Second, "each node sees all", s.whole)
		s.pass(11 * time.Second)
		for i := range homes {
			s.kill(i)
		}
		s.pass(time.Hour)
		begin()
		s.reach(2*time.Second, "each node sees all", s.whole)
		for i := range homes {
			s.kill(i)
		}
		s.pass(25 * time.Hour)
		begin()
		s.pass(time.Minute)
		for i := range homes {
			if n := len(s.nodes[i].View().Members); n != 1 {
				s.Errorf("after a day a node sees %d members", n)
			}
		}
	})
}

// Two meshes that never knew each other become one once a common seed can be
// reached.
func TestMeshesThatStartedApartMeet(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.net.Cut([]string{ip(0), ip(1), ip(2)}, []string{ip(3), ip(4), ip(5)})
		for i := range 6 {
			s.start(i, seeds(ip(0)+":7946", ip(3)+":7946"))
		}
		s.pass(30 * time.Second)
		for _, m := range s.nodes {
			if n := len(m.View().Members); n != 3 {
				s.Fatalf("%d members", n)
			}
		}
		s.net.Cut()
		s.reach(time.Minute, "they meet", s.whole)
	})
}

// In a mesh with a seed that is gone for good, few members try it at a time.
func TestAMissingSeedDoesNotMakeAFlood(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: five minutes of a mesh of twenty")
	}
	bubble(t, 1, func(s *sim) {
		for i := range 20 {
			s.start(i, seeds(ip(0)+":7946", ip(100)+":7946"))
		}
		s.reach(5*time.Second, "each node sees all", s.whole)
		s.pass(time.Minute)
		before := 0
		for _, l := range s.logs {
			before += l.Count("joining a member failed")
		}
		s.pass(5 * time.Minute)
		tries := -before
		for _, l := range s.logs {
			tries += l.Count("joining a member failed")
		}
		s.Logf("%d tries in 5 minutes", tries)
		if tries < 10 || tries > 75 {
			s.Error("that is not about one try in ten seconds")
		}
	})
}

// A node in company tries the seeds that it never met in turn, so that what is wrong with each
// is known soon.
func TestEachSeedHasItsTurn(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		bubble(t, seed+1, func(s *sim) {
			all := seeds(ip(0)+":7946", ip(1)+":7946", ip(10)+":7946", ip(11)+":7946")
			s.start(0, all)
			s.start(1, all)
			s.reach(10*time.Second, "they meet", s.whole)
			s.said(30*time.Second, 0, ip(10)+":7946 was never met: connection refused", ip(11)+":7946 was never met: connection refused")
			s.start(10, all, secrets(newSecret))
			s.start(11, all, secrets(newSecret))
			s.said(2*lastPause+time.Second, 0, ip(10)+":7946 was never met: it has a different secret", ip(11)+":7946 was never met: it has a different secret")
		})
	}
}
