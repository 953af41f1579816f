package membership

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"oci-proxy/ring"
)

// remembers reports whether the view has the ring among those before.
func remembers(v *View, hash uint64) bool {
	return slices.ContainsFunc(v.Former, func(r *ring.Ring) bool { return r.Hash() == hash })
}

// formerOf returns the hashes of the rings before, sorted.
func formerOf(v *View) (all []uint64) {
	for _, r := range v.Former {
		all = append(all, r.Hash())
	}
	slices.Sort(all)
	return all
}

// Who joins or restarts knows at once who owned what before, until ten minutes later.
func TestANewcomerKnowsTheRingsBefore(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	bubble(t, 1, func(s *sim) {
		var rings []uint64
		stand := func() {
			s.reach(time.Second, "each node sees all", s.whole)
			s.pass(5 * time.Second)
			rings = append(rings, s.nodes[0].View().Ring.Hash())
		}
		s.form(3)
		stand()
		s.start(3, dir(home))
		s.nodes[3].AwaitOthers(s.Context())
		if v := s.nodes[3].View(); !remembers(v, rings[0]) || len(v.Members) != 4 {
			s.Errorf("a newcomer sees %d members and %d rings before", len(v.Members), len(v.Former))
		}
		stand()
		s.leave(1)
		stand()
		s.start(4)
		s.nodes[4].AwaitOthers(s.Context())
		for i, hash := range rings {
			if !remembers(s.nodes[4].View(), hash) {
				s.Errorf("a later newcomer does not know ring %d", i)
			}
		}
		stand()
		s.restart(3)
		again := s.start(3, dir(home))
		again.AwaitOthers(s.Context())
		for i, hash := range rings[:3] {
			if !remembers(again.View(), hash) {
				s.Errorf("after a restart a node does not know ring %d", i)
			}
		}
		s.pass(10*time.Minute - 10*time.Second)
		if !s.all(func(v *View) bool { return remembers(v, rings[2]) || len(v.Former) == 0 })() {
			s.Error("a ring is forgotten before its time")
		}
		s.pass(time.Minute)
		if !s.all(func(v *View) bool { return len(v.Former) == 0 })() {
			s.Error("rings are remembered that were replaced more than ten minutes ago")
		}
	})
}

// All nodes come to remember the same rings, which then only become fewer.
func TestRingsBeforeNeitherGrowNorOscillate(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: a quarter of an hour of a mesh")
	}
	homes := make([]string, 40)
	for i := range homes {
		homes[i] = t.TempDir()
	}
	bubble(t, 1, func(s *sim) {
		c := newChurn(s, 1, homes)
		for range 6 {
			c.join()
		}
		c.reach(5*time.Second, "each node sees all", c.whole)
		for range 12 {
			c.pass(time.Duration(c.random.IntN(8000)) * time.Millisecond)
			c.event(6)
		}
		c.pass(3 * time.Minute) // those that died have lost their place
		c.steady()
	})
}

// steady checks that what nodes remember only becomes less, and ends.
func (c *churn) steady() {
	c.Helper()
	before := map[int][]uint64{}
	for range 11 * 12 {
		for i, m := range c.nodes {
			now := formerOf(m.View())
			if len(now) > formerRings {
				c.Fatalf("node %d remembers %d rings", i, len(now))
			}
			if old, known := before[i]; known {
				for _, hash := range now {
					if !slices.Contains(old, hash) {
						c.Fatalf("node %d remembers a ring that it had forgotten, or never seen", i)
					}
				}
			}
			before[i] = now
		}
		c.pass(5 * time.Second)
	}
	if !c.all(func(v *View) bool { return len(v.Former) == 0 })() {
		c.Error("rings are remembered for ever")
	}
}

// What is told of rings is bounded, and what is not told right does no harm.
func TestToldRingsAreBounded(t *testing.T) {
	t.Parallel()
	now := noon
	told := func(rings int) *toldRings {
		f := newFormers()
		for i := range rings + 1 {
			members := make([]ring.Member, 2)
			for j := range members {
				members[j] = ring.Member{ID: newID(), Weight: 1, Size: 7}
			}
			r, err := ring.New(members)
			if err != nil {
				t.Fatal(err)
			}
			f.use(r, now.Add(time.Duration(i)*time.Minute))
		}
		return f.tell(true, now.Add(time.Duration(rings+1)*time.Minute))
	}
	all := told(8)
	if len(all.Rings) != formerRings+1 {
		t.Errorf("%d rings are told", len(all.Rings))
	}
	b, err := json.Marshal(all)
	if err != nil || len(b) > 1000 {
		t.Errorf("rings of ten members take %d bytes, %v", len(b), err)
	}
	fresh := newFormers()
	if fresh.hear(all, now); fresh.busy == nil {
		t.Fatal("nothing is worth building")
	}
	fresh.hear(told(8), now)
	fresh.hear(told(8), now)
	if len(fresh.heard) > maxHeldRings {
		t.Errorf("%d rings wait", len(fresh.heard))
	}
	own, err := ring.New([]ring.Member{{ID: newID(), Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	fresh.use(own, now)
	fresh.build(t.Context(), (*ring.Ring).Next)
	if rings, _ := fresh.list(now); len(rings) != formerRings || fresh.busy != nil {
		t.Errorf("%d rings are remembered", len(rings))
	}
	for name, bad := range map[string]toldRings{
		"no base64": {Members: "=", Rings: all.Rings}, "half a record": {Members: all.Members[:30], Rings: all.Rings},
		"too long": {Members: strings.Repeat("A", maxToldBytes+4), Rings: all.Rings}, "nothing": {},
		"bad hashes": {Members: all.Members, Rings: []toldRing{{Hash: "x"}, {Hash: "1", In: "="}, {Hash: "1", Ago: -1}, {Hash: "1", Ago: 1 << 60}}},
		"a lie":      {Members: all.Members, Rings: []toldRing{{Hash: "1", In: all.Rings[0].In}, {Hash: "2"}}},
	} {
		f := newFormers()
		f.use(own, now)
		f.hear(&bad, now)
		f.build(t.Context(), (*ring.Ring).Next)
		if rings, _ := f.list(now); len(rings) != 0 || f.busy != nil {
			t.Errorf("%s: %d rings are remembered", name, len(rings))
		}
	}
}

// The rings of a very large cluster are told as far as there is room.
func TestRingsOfManyMembersAreTold(t *testing.T) {
	t.Parallel()
	members := make([]ring.Member, 300)
	for i := range members {
		members[i] = ring.Member{ID: newID(), Weight: 1, Size: 80}
	}
	r, err := ring.New(members)
	if err != nil {
		t.Fatal(err)
	}
	f := newFormers()
	f.use(r, noon)
	b, err := json.Marshal(f.tell(true, noon.Add(time.Minute)))
	if err != nil || len(b) < 300*idSize || len(b) > 300*30+200 {
		t.Errorf("a ring of 300 members takes %d bytes, %v", len(b), err)
	}
	if f.tell(false, noon.Add(time.Minute)) != nil {
		t.Error("it is told though nothing has changed and nobody joins")
	}
}

// A node is ready when it has met all that its seeds know, also if it met another
// newcomer first, and though one seed does not answer.
func TestAwaitOthersAwaitsAllThatTheSeedsKnow(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		bubble(t, seed, func(s *sim) {
			s.form(6)
			s.pass(5 * time.Second)
			apart := func(c *Config) { c.Seeds = []string{ip(20) + ":7946"} }
			s.start(20, apart)
			s.pass(5 * time.Second) // alone, and ready
			began := time.Now()
			m := s.start(21, func(c *Config) { c.Seeds = []string{ip(20) + ":7946", ip(3) + ":7946"} })
			m.AwaitOthers(s.Context())
			if v, took := m.View(), time.Since(began); len(v.Members) != 8 || took > time.Second {
				s.Errorf("ready after %v with %d members", took, len(v.Members))
			}
			s.net.Hang(ip(3), true)
			began = time.Now()
			m = s.start(22, func(c *Config) { c.Seeds = []string{ip(0) + ":7946", ip(3) + ":7946"} })
			m.AwaitOthers(s.Context())
			if v, took := m.View(), time.Since(began); len(v.Members) != 9 || took > 10*time.Second {
				s.Errorf("with a hung seed ready after %v with %d members", took, len(v.Members))
			}
			s.net.Hang(ip(3), false)
			began = time.Now()
			s.start(30, func(c *Config) { c.Seeds = []string{ip(31) + ":7946"} }).AwaitOthers(s.Context())
			if took := time.Since(began); took > 5*time.Second {
				s.Errorf("without any seed ready after %v", took)
			}
		})
	}
}
