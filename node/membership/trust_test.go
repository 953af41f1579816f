package membership

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"oci-proxy/node/health"
	"oci-proxy/ring"
	"oci-proxy/transfer/testkit"
)

const (
	oldSecret = "the secret of last year"
	newSecret = "the secret of this year"
)

func secrets(all ...string) func(*Config) { return func(c *Config) { c.Secrets = all } }

func TestADifferentSecretIsRefusedAndLogged(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*Config)
		joiner string // in its log
		mesh   string // in the mesh's log
	}{
		{"a different secret", secrets(newSecret), "it has a different secret", "no installed keys could decrypt"},
		{"none", func(c *Config) {
			c.Secrets, c.BindAddr = nil, "127.0.0.9:7946"
		}, "it has a secret, this node has none", "not encrypted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(s *sim) {
				s.form(3)
				s.start(3, test.change)
				s.pass(20 * time.Second)
				for i := range 3 {
					if n := len(s.nodes[i].View().Members); n != 3 {
						s.Fatalf("node %d sees %d members", i, n)
					}
				}
				if n := len(s.nodes[3].View().Members); n != 1 {
					s.Fatalf("the stranger sees %d members", n)
				}
				if log := s.logs[3].String(); !strings.Contains(log, test.joiner) {
					s.Errorf("the stranger's log: %s", log)
				}
				if log := s.logs[0].String(); !strings.Contains(log, test.mesh) {
					s.Errorf("the mesh's log: %s", log)
				}
				if err := wrongWith(s.nodes[3]); err == nil || !strings.Contains(err.Error(), test.joiner) {
					s.Errorf("health: %v", err)
				}
				s.coded(3, health.Alone, health.Secret)
				if err := wrongWith(s.nodes[0]); err != nil {
					s.Errorf("health of the mesh: %v", err)
				}
			})
		})
	}
}

func TestRekeyingMakesNoMemberDead(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		pause time.Duration // between two nodes
		steps [][]string
	}{
		{"quickly", 100 * time.Millisecond, [][]string{{newSecret, oldSecret}, {newSecret}}},
		{"slowly", 15 * time.Second, [][]string{{newSecret, oldSecret}, {newSecret}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(s *sim) {
				s.form(6, secrets(oldSecret))
				for _, step := range test.steps {
					for i := range 6 {
						if err := s.nodes[i].Rekey(step); err != nil {
							s.Fatal(err)
						}
						s.pass(test.pause)
						if !s.whole() {
							s.Fatalf("%q: a member is taken for dead", step)
						}
					}
				}
				for range 30 {
					s.pass(time.Second)
					if !s.whole() {
						s.Fatal("a member is taken for dead")
					}
				}
				s.start(6, secrets(newSecret))
				s.reach(time.Second, "a node with the new secret joins", s.whole)
				s.start(7, secrets(oldSecret))
				s.pass(15 * time.Second)
				if n := len(s.nodes[7].View().Members); n != 1 {
					s.Errorf("a node with the old secret sees %d members", n)
				}
			})
		})
	}
}

// If secrets change by restarts, a node that comes back must use one that the others
// accept.
func TestRekeyingByRestarts(t *testing.T) {
	t.Parallel()
	homes := make([]string, 5)
	for i := range homes {
		homes[i] = t.TempDir()
	}
	bubble(t, 1, func(s *sim) {
		for i, home := range homes {
			s.start(i, dir(home), secrets(oldSecret))
		}
		s.reach(2*time.Second, "each node sees all", s.whole)
		for _, step := range [][]string{{newSecret, oldSecret}, {newSecret}} {
			for i, home := range homes {
				s.nodes[i].Restarting(s.Context())
				s.nodes[i].Close(s.Context())
				s.pass(5 * time.Second)
				// Its seed is the next node: even node 0 must find the others.
				s.start(i, dir(home), secrets(step...), seeds(ip((i+1)%5)+":7946"))
				took := s.reach(3*time.Second, "it is back", s.whole)
				s.Logf("%d secrets: node %d is back in %v", len(step), i, took)
				for range 50 {
					s.pass(100 * time.Millisecond)
					if !s.whole() {
						s.Fatal("a member is taken for dead")
					}
				}
			}
			v := s.nodes[0].View()
			if m, _ := v.Member(s.nodes[1].self.ID); !m.Accepts(sketch([]string{newSecret})) || m.Accepts(sketch([]string{oldSecret})) != (len(step) == 2) {
				s.Error("the view does not say which secrets a member accepts")
			}
		}
	})
}

func TestRekeyRefusesBadSecrets(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		m := s.start(0)
		for _, bad := range [][]string{nil, {"short"}, {newSecret, ""}} {
			if err := m.Rekey(bad); err == nil {
				s.Errorf("Rekey accepted %q", bad)
			}
		}
		plain := s.start(1, func(c *Config) { c.BindAddr, c.Secrets = "127.0.0.1:7946", nil })
		if plain.Rekey([]string{newSecret}) == nil || plain.Rekey(nil) != nil {
			s.Error("Rekey gave plain gossip a secret, or refused it none")
		}
	})
}

// While keys change, memberlist reads them without a lock.
func TestKeysAreInstalledInOrder(t *testing.T) {
	t.Parallel()
	all := derive(defaultCluster, []string{"a", "b", "c", "d", "e"}, forGossip)
	for _, test := range [][2][]int{
		{{0}, {1, 0}}, {{1, 0}, {1}}, {{0, 1, 2}, {2, 0}}, {{0, 1, 2, 3}, {4, 3, 1}}, {{0}, {0}}, {{0, 1}, {1, 0}}, {{0, 1}, {2}},
	} {
		pick := func(is []int) (keys [][]byte) {
			for _, i := range is {
				keys = append(keys, all[i])
			}
			return keys
		}
		from, to := pick(test[0]), pick(test[1])
		keyring, err := memberlist.NewKeyring(from, from[0])
		if err != nil {
			t.Fatal(err)
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				seen := 0
				for _, k := range keyring.GetKeys() {
					if slices.ContainsFunc(all, func(a []byte) bool { return bytes.Equal(a, k) }) {
						seen++
					}
				}
				if seen == 0 {
					t.Error("for a moment there was no valid key")
				}
			}
		}()
		if err := install(keyring, to, 0); err != nil {
			t.Fatal(err)
		}
		close(stop)
		<-done
		got := slices.Clone(keyring.GetKeys())
		if !bytes.Equal(got[0], to[0]) || len(got) != len(to) {
			t.Errorf("%v: there are %d keys, or the wrong one is used", test, len(got))
		}
	}
}

func TestPeerKeysAreNotThoseOfGossip(t *testing.T) {
	t.Parallel()
	keys := PeerKeys(defaultCluster, []string{oldSecret, newSecret})
	gossip := derive(defaultCluster, []string{oldSecret, newSecret}, forGossip)
	if len(keys) != 2 || len(keys[0]) != 32 || bytes.Equal(keys[0], keys[1]) || bytes.Equal(keys[0], gossip[0]) {
		t.Error("the keys have the wrong number or length, or equal others")
	}
	if !bytes.Equal(keys[0], PeerKeys(defaultCluster, []string{oldSecret})[0]) {
		t.Error("another node derives a different key")
	}
	if none := PeerKeys(defaultCluster, nil); len(none) != 1 || !bytes.Equal(none[0], PeerKeys(defaultCluster, []string{""})[0]) {
		t.Error("without a secret there is not exactly the one known key")
	}
}

// copyDir copies a node's cache directory, as people do.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// Nodes of older versions don't see to it themselves that ids differ.
func TestADuplicateIdentityIsReported(t *testing.T) {
	t.Parallel()
	home, twin := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	const told = "another node has this node's identity"
	bubble(t, 1, func(s *sim) {
		s.prepared = func(_ int, m *Membership) { m.twins.off = true }
		s.form(3)
		s.start(3, dir(home))
		s.reach(time.Second, "each node sees all", s.whole)
		copyDir(s.T, home, twin)
		s.start(4, dir(twin))
		s.pass(10 * time.Second)
		if wrongWith(s.nodes[3]) != nil || wrongWith(s.nodes[4]) != nil {
			s.Error("reported too early: it might have been a restart")
		}
		s.pass(6 * time.Second)
		for i := range 5 {
			err, want := wrongWith(s.nodes[i]), i >= 3
			if (err != nil) != want || s.logs[i].Has(told) != want {
				s.Errorf("node %d: health %v", i, err)
			}
		}
		s.coded(3, health.Identity)
		if n := s.logs[3].Count(told); n != 1 {
			s.Errorf("logged %d times", n)
		}
		later := s.nodes[4].self.Epoch
		if m, _ := s.nodes[0].View().Member(s.nodes[3].self.ID); m.Epoch != later {
			s.Error("the others see the earlier start")
		}

		s.kill(4) // the copy
		s.pass(20 * time.Second)
		if err := wrongWith(s.nodes[3]); err != nil {
			s.Errorf("health after the copy is gone: %v", err)
		}
		s.reach(time.Second, "the first one counts again", s.whole)
	})
}

// Two nodes with the same id and the same epoch don't see each other.
func TestTwoNodesWithOneTitleAreReported(t *testing.T) {
	t.Parallel()
	home, twin := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	for _, d := range []string{home, filepath.Join(t.TempDir())} {
		if _, err := identify(d, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	copyDir(t, home, twin)
	bubble(t, 1, func(s *sim) {
		s.prepared = func(_ int, m *Membership) { m.twins.off = true }
		s.form(3)
		s.start(3, dir(home))
		s.start(4, dir(twin))
		s.reach(30*time.Second, "one of them reports it", func() bool {
			return wrongWith(s.nodes[3]) != nil || wrongWith(s.nodes[4]) != nil
		})
	})
}

// A node that is not a member of this mesh is refused even if it knows the secret.
func TestAliensAreRefused(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.form(2)
		for i, meta := range []string{"", "{}", `{"i":"x","w":1}`, string(*s.nodes[0].meta.Load())} {
			c := memberlist.DefaultLANConfig()
			c.Name, c.Label, c.SecretKey = fmt.Sprint("alien-", i), program, derive(defaultCluster, []string{secret}, forGossip)[0]
			c.Transport, c.Delegate = s.net.Host(ip(10+i)+":7946"), alien(meta)
			c.LogOutput = new(testkit.Log)
			list, err := memberlist.Create(c)
			if err != nil {
				s.Fatal(err)
			}
			if _, err := list.Join([]string{ip(0) + ":7946"}); err != nil {
				s.Fatal(err)
			}
			s.pass(3 * time.Second)
			if !s.whole() {
				s.Errorf("a node with the meta %q became a member", meta)
			}
			list.Shutdown()
		}
		if !s.logs[0].Has("not a member of this mesh") {
			s.Errorf("log: %s", s.logs[0])
		}
		s.pass(20 * time.Second)
	})
}

type alien string

func (a alien) NodeMeta(int) []byte           { return []byte(a) }
func (alien) NotifyMsg([]byte)                {}
func (alien) GetBroadcasts(int, int) [][]byte { return nil }
func (alien) LocalState(bool) []byte          { return []byte(`{"d":[{"m":1,"a":"x"},{}],"new":3}`) }
func (alien) MergeRemoteState([]byte, bool)   {}

func TestARingThatCanNotBeBuiltLeavesTheOldOneInUse(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		var broken atomic.Bool
		s.next = func(old *ring.Ring, members []ring.Member) (*ring.Ring, error) {
			if broken.Load() {
				return nil, ring.ErrMembers
			}
			return remembered(old, members)
		}
		s.form(2)
		m := s.nodes[0]
		old := m.View().Ring
		broken.Store(true)
		s.start(2)
		s.reach(time.Second, "the third is seen", func() bool { return len(m.View().Members) == 3 })
		if m.View().Ring != old || wrongWith(m) == nil || !s.logs[0].Has("ring not built") {
			s.Errorf("health %v", wrongWith(m))
		}
		s.coded(0, health.Ring)
		broken.Store(false)
		s.start(3)
		s.reach(time.Second, "all is well again", func() bool { return s.whole() && wrongWith(m) == nil })
	})
}
