package membership

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestASplitOfTwoMinutesHeals(t *testing.T) {
	t.Parallel()
	sides := []int{1, 3, 5}
	if testing.Short() {
		sides = sides[1:2]
	}
	for _, smaller := range sides {
		bubble(t, uint64(smaller), func(s *sim) {
			s.form(10)
			var sides [2][]string
			for i := range 10 {
				side := 0
				if i >= 10-smaller {
					side = 1
				}
				sides[side] = append(sides[side], ip(i))
			}
			s.net.Cut(sides[0], sides[1])
			s.pass(15 * time.Second)
			if s.whole() {
				s.Fatal("the cut had no effect")
			}
			s.pass(2*time.Minute - 15*time.Second)
			s.net.Cut()
			s.Logf("%d of 10 nodes were cut off: healed in %v", smaller, s.reach(15*time.Second, "it heals", s.whole))
		})
	}
}

// A firewall drops packets, so streams must do.
func TestAMeshFormsWithoutPackets(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.net.Packets(false)
		for i := range 10 {
			s.start(i)
		}
		s.Logf("formed in %v", s.reach(30*time.Second, "each node sees all", s.whole))
		for range 60 {
			s.pass(time.Second)
			if !s.whole() {
				s.Fatal("a live member was taken for dead")
			}
		}
		id := s.nodes[7].self.ID
		s.kill(7)
		s.Logf("it took %v to see a kill", s.reach(time.Minute, "the kill is seen", s.all(isDown(id))))
	})
}

func TestLostPacketsMakeNoMemberDead(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(s *sim) {
		s.net.Lose(0.3)
		s.form(8)
		for range 60 {
			s.pass(time.Second)
			if !s.whole() {
				s.Fatal("a live member was taken for dead")
			}
		}
	})
}

func TestAHungNodeIsDownAndComesBack(t *testing.T) {
	t.Parallel()
	bubble(t, 3, func(s *sim) {
		s.form(6)
		id := s.nodes[4].self.ID
		s.net.Hang(ip(4), true)
		others := func() bool {
			for i, m := range s.nodes {
				if i != 4 && !isDown(id)(m.View()) {
					return false
				}
			}
			return true
		}
		s.Logf("it took %v to see a hung node", s.reach(15*time.Second+lateFor, "the others see that it hangs", others))
		s.pass(time.Minute)
		s.net.Hang(ip(4), false)
		s.Logf("back in %v", s.reach(20*time.Second, "each node sees all", s.whole))
	})
}

var chaosSeed = flag.Uint64("chaos", 0, "seed of TestChaosHeals, for a run that failed")

// chaosSeeds are seeds that failed once.
var chaosSeeds = []uint64{1, 2}

func TestChaosHeals(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: ten minutes of a mesh of twelve")
	}
	seeds := append(chaosSeeds, rand.Uint64())
	if *chaosSeed != 0 {
		seeds = []uint64{*chaosSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			homes := make([]string, 12)
			for i := range homes {
				homes[i] = t.TempDir()
			}
			bubble(t, seed, func(s *sim) { s.chaos(seed, homes) })
		})
	}
}

// chaos kills and starts nodes and breaks the network at random for ten minutes.
// Then it repairs the network and checks that the mesh heals.
func (s *sim) chaos(seed uint64, homes []string) {
	random := rand.New(rand.NewPCG(seed, 1))
	s.next = noRing
	begin := func(i int) {
		s.start(i, dir(homes[i]), at(i+20*random.IntN(2)), func(c *Config) {
			c.Seeds = []string{ip(0) + ":7946", ip(1) + ":7946", ip(20) + ":7946"}
		})
	}
	for i := range homes {
		begin(i)
	}
	steps := 40
	if raceEnabled {
		steps = 12
	}
	var did []string
	for range steps {
		s.pass(time.Duration(random.IntN(20000)) * time.Millisecond)
		i := random.IntN(len(homes))
		var what string
		switch n := random.IntN(6); {
		case n < 2 && s.nodes[i] != nil:
			what = fmt.Sprint("kill ", i)
			s.kill(i)
		case n < 3 && s.nodes[i] == nil:
			what = fmt.Sprint("start ", i)
			begin(i)
		case n == 3:
			var sides [2][]string
			for host := range 40 {
				side := random.IntN(2)
				sides[side] = append(sides[side], ip(host))
			}
			s.net.Cut(sides[0], sides[1])
			what = "cut"
		case n == 4:
			p := random.Float64() / 2
			s.net.Lose(p)
			what = fmt.Sprintf("lose %.2f", p)
		case n == 5:
			s.net.Cut()
			what = "heal"
		}
		did = append(did, what)
	}
	for i := range homes {
		if s.nodes[i] == nil {
			begin(i)
		}
	}
	var sides [2][]string
	for host := range 40 {
		side := random.IntN(2)
		sides[side] = append(sides[side], ip(host))
	}
	s.net.Cut(sides[0], sides[1])
	s.pass(time.Duration(30+random.IntN(150)) * time.Second)
	s.net.Cut()
	s.net.Lose(0)
	began := time.Now()
	for !s.all(func(v *View) bool { return up(v) == len(homes) && len(v.Members) == len(homes) })() {
		if time.Since(began) > time.Minute {
			s.Fatalf("the mesh has not healed a minute after %s", strings.Join(did, ", "))
		}
		s.pass(10 * time.Millisecond)
	}
	s.Logf("healed in %v", time.Since(began))
}
