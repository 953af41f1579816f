package membership

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
)

// ids returns the ids of the running nodes, and how many have each.
func (s *sim) ids() map[string]int {
	all := map[string]int{}
	for _, m := range s.nodes {
		all[m.View().Self.ID]++
	}
	return all
}

// apart reports whether each node has an id of its own and sees all others up, where they
// are.
func (s *sim) apart() bool {
	if len(s.ids()) != len(s.nodes) || !s.whole() {
		return false
	}
	for _, m := range s.nodes {
		self := m.View().Self
		if !s.all(func(v *View) bool { o, ok := v.Member(self.ID); return ok && o.Up && o.Gossip == m.at.gossip })() {
			return false
		}
	}
	return true
}

// savedID returns the id that a node finds at its next start.
func savedID(t *testing.T, home string) string {
	t.Helper()
	id, err := readID(home)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// setEpoch makes the next start in the directory be of that epoch or later.
func setEpoch(t *testing.T, home string, epoch int64) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(home, epochFile), []byte(strconv.FormatInt(epoch, 10)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A copy of a running node's cache directory is started. The original keeps its id,
// whatever the clocks say, and the copy takes another and saves it.
func TestATwinTakesANewID(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{
		"clocks agree": 0, "the copy's clock is 40 days ahead": 40 * 24 * time.Hour, "and behind": -40 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home, twin := t.TempDir(), filepath.Join(t.TempDir(), "copy")
			bubble(t, 1, func(s *sim) {
				s.form(3)
				first := s.start(3, dir(home))
				s.reach(time.Second, "each node sees all", s.whole)
				id, hash := first.self.ID, first.View().Ring.Hash()
				copyDir(s.T, home, twin)
				s.pass(time.Minute)
				setEpoch(s.T, twin, time.Now().Add(skew).Unix())
				if skew < 0 { // the original has restarted since
					s.kill(3)
					first = s.start(3, dir(home))
					s.pass(20 * time.Second)
				}
				second := s.start(4, dir(twin))
				s.Logf("each has an id of its own after %v", s.reach(5*time.Second, "each node has its own id", s.apart))
				for range 300 {
					s.pass(100 * time.Millisecond)
					if !s.apart() {
						s.Fatalf("ids %v", s.ids())
					}
					for i, m := range s.nodes {
						if err := wrongWith(m); err != nil {
							s.Fatalf("health of node %d: %v", i, err)
						}
					}
				}
				if first.View().Self.ID != id || second.View().Self.ID != savedID(s.T, twin) || savedID(s.T, home) != id {
					s.Errorf("the original has id %s, the copy %s; saved are %s and %s", first.View().Self.ID, second.View().Self.ID, savedID(s.T, home), savedID(s.T, twin))
				}
				if first.View().Ring.Hash() == hash {
					s.Error("the copy is not in the ring")
				}
				if n := s.logs[4].Count("this node takes a new id"); n != 1 || s.logs[3].Has("takes a new id") {
					s.Errorf("the copy says %d times that it takes a new id", n)
				}
				s.kill(4)
				s.start(4, dir(twin))
				s.reach(2*time.Second, "the copy is back under its new id", s.apart)
			})
		})
	}
}

// Many nodes start at once from one image, with one id and one epoch or several. Each
// ends with an id of its own.
func TestGoldenImages(t *testing.T) {
	t.Parallel()
	for name, spread := range map[string]time.Duration{"at one moment": 0, "within a second": 100 * time.Millisecond, "within a minute": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 10
			homes := make([]string, n)
			for i := range homes {
				homes[i] = t.TempDir()
				if i == 0 {
					if _, err := identify(homes[0], noon); err != nil {
						t.Fatal(err)
					}
				} else {
					copyDir(t, homes[0], homes[i])
				}
			}
			bubble(t, 1, func(s *sim) {
				image := savedID(s.T, homes[0])
				for i, home := range homes {
					s.start(i, dir(home), seeds(ip(0)+":7946", ip(1)+":7946", ip(2)+":7946"))
					s.pass(spread)
				}
				s.Logf("each has an id of its own after %v", s.reach(time.Minute, "each node has its own id", func() bool { return len(s.ids()) == n }))
				s.Logf("and sees all after %v more", s.reach(time.Minute, "each node sees all", s.apart))
				s.pass(time.Minute)
				if !s.apart() {
					s.Errorf("ids %v", s.ids())
				}
				kept := 0
				for i, m := range s.nodes {
					self := m.View().Self
					if self.ID == image {
						kept++
					}
					if self.ID != savedID(s.T, homes[i]) {
						s.Errorf("node %d has id %s, saved is %s", i, self.ID, savedID(s.T, homes[i]))
					}
					if err := wrongWith(m); err != nil {
						s.Errorf("health of node %d: %v", i, err)
					}
					if changes := s.logs[i].Count("takes a new id"); changes > 1 {
						s.Errorf("node %d took a new id %d times", i, changes)
					}
				}
				s.Logf("%d of %d nodes kept the image's id", kept, n)
				if kept > 1 {
					s.Error("more than one")
				}
			})
		})
	}
}

// Four nodes start within a few seconds from one image: some have another's title, some its id alone.
// What one says that takes a new id harms no other, and nobody counts as alive that has
// none. If each takes a new id, the image's is down as long as a member that died.
func TestFourOfOneImage(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			homes := make([]string, 4)
			for i := range homes {
				homes[i] = t.TempDir()
				if i > 0 {
					copyDir(t, homes[0], homes[i])
				} else if _, err := identify(homes[0], noon); err != nil {
					t.Fatal(err)
				}
			}
			draw := rand.New(rand.NewPCG(seed, 0))
			bubble(t, seed, func(s *sim) {
				for i, home := range homes {
					s.start(i, dir(home), seeds(ip(0)+":7946", ip(1)+":7946"))
					s.pass(time.Duration(draw.IntN(1300)) * time.Millisecond)
				}
				s.reach(150*time.Second, "each node is up under an id of its own", s.apart)
			})
		})
	}
}

// Twins that start apart meet when the network heals.
func TestTwinsMeetAfterASplit(t *testing.T) {
	t.Parallel()
	home, twin := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	bubble(t, 1, func(s *sim) {
		s.net.Cut([]string{ip(0), ip(1)}, []string{ip(2), ip(3)})
		both := seeds(ip(0)+":7946", ip(2)+":7946")
		s.start(0, both)
		s.start(2, both)
		first := s.start(1, both, dir(home))
		s.pass(5 * time.Second)
		copyDir(s.T, home, twin)
		s.start(3, both, dir(twin))
		s.pass(time.Minute)
		id := first.self.ID
		s.net.Cut()
		s.Logf("each has an id of its own after %v", s.reach(20*time.Second, "each node has its own id", s.apart))
		if first.View().Self.ID != id {
			s.Error("the one that has run for longer has lost its id")
		}
	})
}

// A node that stops and its successor in the same directory are one node, even if the
// old process lives for a while.
func TestASuccessorIsNoTwin(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	bubble(t, 1, func(s *sim) {
		s.form(3)
		old := s.start(3, dir(home))
		s.reach(time.Second, "each node sees all", s.whole)
		id := old.self.ID
		old.Restarting(s.Context())
		delete(s.nodes, 3)
		s.start(3, dir(home), at(30)) // while the old one drains
		s.pass(10 * time.Second)
		if err := old.Close(s.Context()); err != nil {
			s.Error(err)
		}
		s.reach(time.Second, "each node sees all", s.whole)
		if now := s.nodes[3].View().Self.ID; now != id || s.logs[3].Has("takes a new id") {
			s.Errorf("the id was %s and is %s", id, now)
		}
	})
}

// The twin's directory can't be written: it takes a new id all the same, and says so.
func TestATwinThatCanNotSaveItsID(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 && os.Getenv("HOME") == "" {
		t.Skip("no user")
	}
	home, twin := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	bubble(t, 1, func(s *sim) {
		s.form(2)
		s.start(2, dir(home))
		s.reach(time.Second, "each node sees all", s.whole)
		copyDir(s.T, home, twin)
		s.pass(5 * time.Second)
		s.prepared = func(i int, m *Membership) {
			if i == 3 { // between the start and the meeting
				m.cfg.Dir = filepath.Join(twin, "none", "below")
			}
		}
		m := s.start(3, dir(twin))
		s.reach(5*time.Second, "each node has its own id", s.apart)
		if err := wrongWith(m); err == nil || !strings.Contains(err.Error(), "saving the id") {
			s.Errorf("health %v", err)
		}
	})
}

// Of two nodes with one id never both take another, whatever the network delays.
func TestNeverBothTwinsYield(t *testing.T) {
	t.Parallel()
	for _, apart := range []int64{-5000, -1001, -1000, -999, -1, 0, 1, 999, 1000, 1001, 5000} {
		for _, late := range [][2]int64{{0, 0}, {1, 0}, {0, 3000}, {3000, 3000}} {
			for _, nonces := range [][2]string{{"a", "b"}, {"b", "a"}} {
				a, b := card{Nonce: []byte(nonces[0]), Up: 10_000 + apart}, card{Nonce: []byte(nonces[1]), Up: 10_000}
				seenByA, seenByB := b, a
				seenByA.Up -= late[0]
				seenByB.Up -= late[1]
				x, y := a.yields(&seenByA), b.yields(&seenByB)
				if x && y || !x && !y && late == [2]int64{} {
					t.Errorf("%d ms apart, %v late, nonces %v: %v and %v yield", apart, late, nonces, x, y)
				}
			}
		}
	}
}
