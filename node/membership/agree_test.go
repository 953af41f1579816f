package membership

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var agreeSeed = flag.Uint64("agree", 0, "seed of TestAllAgreeOnOneRingSoon, for a run that failed")

// agreeSeeds are some seeds, and those that failed once.
var agreeSeeds = []uint64{1, 2, 3, 4}

// Whatever joins, leaves, dies and restarts: within 10 s of the last event all members
// have one ring, and it is the right one, also if packets get lost, and if some nodes are of
// an earlier version. When a member that died loses its place, it
// does so everywhere within a moment.
func TestAllAgreeOnOneRingSoon(t *testing.T) {
	t.Parallel()
	seeds := append(slices.Clone(agreeSeeds), rand.Uint64())
	if raceEnabled || testing.Short() {
		seeds = agreeSeeds[2:]
	}
	if *agreeSeed != 0 {
		seeds = []uint64{*agreeSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			homes := make([]string, 60)
			for i := range homes {
				homes[i] = t.TempDir()
			}
			bubble(t, seed, func(s *sim) {
				c := newChurn(s, seed, homes)
				c.mixed = seed%2 == 1
				if seed%3 == 0 {
					s.net.Lose(0.1)
				}
				c.run(10, 40)
			})
		})
	}
}

// A churn makes random members come and go.
type churn struct {
	*sim
	random *rand.Rand
	homes  []string
	used   int               // nodes that were ever started
	lost   map[int]time.Time // nodes that are down or left: when they lose their place
	ids    map[int]string    // of nodes that were ever started
	mixed  bool              // some nodes are of an earlier version
	did    []string
}

func newChurn(s *sim, seed uint64, homes []string) *churn {
	return &churn{sim: s, random: rand.New(rand.NewPCG(seed, 2)), homes: homes, lost: map[int]time.Time{}, ids: map[int]string{}}
}

func (c *churn) run(nodes, events int) {
	for range nodes {
		c.join()
	}
	c.reach(5*time.Second, "each node sees all", c.whole)
	began := time.Now()
	for range events {
		pause := 8000
		if c.random.IntN(2) == 0 {
			pause = 300 // before the last event is known to all
		}
		c.pass(time.Duration(c.random.IntN(pause)) * time.Millisecond)
		c.did = append(c.did, fmt.Sprintf("%v %s", time.Since(began).Round(time.Millisecond), c.event(nodes)))
	}
	last, differ, first, longest := time.Now(), time.Duration(0), time.Duration(-1), time.Duration(0)
	for time.Since(last) < 5*time.Minute {
		switch ok := c.agree() && c.right(time.Now(), 0); {
		case ok:
			differ = 0
			if first < 0 {
				first = time.Since(last)
			}
		case time.Since(last) > 10*time.Second && (differ >= 5*time.Second || !c.right(time.Now(), 15*time.Second)):
			c.Fatalf("%v after the last event the rings differ or are wrong:\n%s\n%s", time.Since(last), c.rings(), strings.Join(c.did, "\n"))
		default:
			differ += 100 * time.Millisecond
			if first >= 0 {
				longest = max(longest, differ)
			}
		}
		c.pass(100 * time.Millisecond)
	}
	c.Logf("all agreed %v after the last event; later they differed for %v at most, as dead members lost their place", first, longest)
}

// event lets something happen, and tells what.
func (c *churn) event(most int) string {
	running := c.running()
	i := running[c.random.IntN(len(running))]
	n := c.random.IntN(6)
	switch {
	case len(running) <= 4 || n == 0 && len(running) < most+4:
		return fmt.Sprint("join ", c.join())
	case n == 1:
		c.lost[i] = time.Now()
		c.leave(i)
		return fmt.Sprint("leave ", i)
	case n <= 3:
		c.lost[i] = time.Now().Add(defaultGrace)
		c.kill(i)
		return fmt.Sprint("kill ", i)
	case n == 4:
		c.restart(i)
		c.pass(time.Duration(c.random.IntN(3000)) * time.Millisecond)
		c.begin(i)
		return fmt.Sprint("restart ", i)
	}
	for _, i := range c.random.Perm(c.used) {
		if c.nodes[i] == nil {
			c.begin(i)
			return fmt.Sprint("back ", i)
		}
	}
	return fmt.Sprint("join ", c.join())
}

func (c *churn) running() (all []int) {
	for i := range c.used {
		if c.nodes[i] != nil {
			all = append(all, i)
		}
	}
	return all
}

func (c *churn) join() int {
	i := c.used
	c.used++
	c.begin(i)
	return i
}

// begin starts a node. Its seed's name stands for those that run.
func (c *churn) begin(i int) {
	var table []string
	for _, n := range c.running() {
		table = append(table, ip(n))
	}
	tells := cache([]int64{5, 10, 70, 500}[i%4])
	if c.mixed && i%7 == 6 {
		tells = cacheOfEarlier(300)
	}
	m := c.start(i, dir(c.homes[i]), tells, func(cfg *Config) {
		cfg.Seeds, cfg.Resolve = []string{"mesh.example:7946"}, names(map[string][]string{"mesh.example": append(table, ip(i))})
	})
	c.ids[i] = m.self.ID
	delete(c.lost, i)
}

// right reports whether every ring has just the nodes that it must: those that run, and
// those that died within the grace. One that died may keep its place for slack longer, as
// others have to notice the loss.
func (c *churn) right(now time.Time, slack time.Duration) bool {
	return c.all(func(v *View) bool {
		for i, id := range c.ids {
			until, lost := c.lost[i]
			in := inRing(v, id)
			switch {
			case !lost && !in, lost && in && now.After(until.Add(max(slack, 15*time.Second))):
				return false
			case lost && !in && now.Before(until):
				return false
			}
		}
		return true
	})()
}

// rings tells which ring each node has.
func (c *churn) rings() string {
	var b strings.Builder
	for _, i := range c.running() {
		v := c.nodes[i].View()
		fmt.Fprintf(&b, "%2d %016x", i, v.Ring.Hash())
		for n := range c.used {
			if m, ok := v.Member(c.ids[n]); ok && inRing(v, c.ids[n]) {
				fmt.Fprintf(&b, " %d", n)
				if !m.Up {
					b.WriteString("-")
				}
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// A newcomer counts a member that the others only suspect: it was just killed. Before, the
// newcomer had another ring until that one was found dead.
func TestANewcomerCountsASuspectedMember(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		bubble(t, seed, func(s *sim) {
			s.form(7)
			id, hash := s.nodes[6].self.ID, s.nodes[0].View().Ring.Hash()
			s.kill(6)
			s.pass(time.Duration(1000+700*seed) * time.Millisecond)
			s.start(7)
			s.reach(time.Second, "it has the others' ring", func() bool {
				return s.agree() && s.all(func(v *View) bool { return inRing(v, id) && v.Ring.Hash() != hash })()
			})
			for range 100 { // also while it is found dead
				s.pass(100 * time.Millisecond)
				if !s.agree() {
					s.Fatal("the rings differ")
				}
			}
		})
	}
}
