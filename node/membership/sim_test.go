package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"oci-proxy/node/membership/memnet"
	"oci-proxy/ring"
	"oci-proxy/transfer/testkit"
)

// memberlist's Shutdown does not wait for its last probes. They end by themselves:
// each bubble fails if they don't.
func TestMain(m *testing.M) {
	testkit.Main(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

const secret = "a secret of the mesh"

// A sim is a mesh of real nodes on a network in memory. It runs in a synctest bubble,
// where waiting takes no time.
type sim struct {
	*testing.T
	net      *memnet.Network
	nodes    map[int]*Membership // the running ones
	logs     map[int]*testkit.Log
	prepared func(i int, m *Membership) // called before a node starts; nil: nothing to do
	next     func(*ring.Ring, []ring.Member) (*ring.Ring, error)
}

// bubble runs the test in virtual time.
func bubble(t *testing.T, seed uint64, test func(*sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &sim{T: t, net: memnet.New(seed), nodes: map[int]*Membership{}, logs: map[int]*testkit.Log{}, next: remembered}
		defer func() {
			for i := range s.nodes {
				s.kill(i)
			}
			s.pass(20 * time.Second) // until memberlist's last probes have timed out
		}()
		test(s)
	})
}

// ip returns the address of node i.
func ip(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250+1) }

// start starts node i. Its seed is node 0.
func (s *sim) start(i int, change ...func(*Config)) *Membership {
	s.Helper()
	if s.logs[i] == nil {
		s.logs[i] = new(testkit.Log)
	}
	cfg := Config{
		Name: fmt.Sprintf("node-%d", i), BindAddr: ip(i) + ":7946", PeerAddr: ":7947", Weight: 1,
		Seeds: []string{ip(0) + ":7946"}, Secrets: []string{secret}, Zone: "here", Version: "1.0.0",
		Log: slog.New(slog.NewTextHandler(s.logs[i], &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for _, c := range change {
		c(&cfg)
	}
	cfg.Transport = s.net.Host(cfg.BindAddr)
	m, err := prepare(cfg)
	if err == nil && s.prepared != nil {
		s.prepared(i, m)
	}
	if err == nil {
		err = m.start(s.next)
	}
	if err != nil {
		s.Fatal(err)
	}
	s.nodes[i] = m
	return m
}

// form starts n nodes and waits until each sees all.
func (s *sim) form(n int, change ...func(*Config)) {
	s.Helper()
	for i := range n {
		s.start(i, change...)
	}
	s.reach(time.Minute, "each node sees all", s.whole)
}

// kill crashes node i.
func (s *sim) kill(i int) {
	s.Helper()
	if err := s.nodes[i].Kill(); err != nil {
		s.Error(err)
	}
	delete(s.nodes, i)
}

// reach waits until so returns true, and returns how long that took.
func (s *sim) reach(within time.Duration, what string, so func() bool) time.Duration {
	s.Helper()
	began := time.Now()
	for !so() {
		if time.Since(began) > within {
			s.Fatalf("still not after %v: %s", within, what)
		}
		s.pass(10 * time.Millisecond)
	}
	return time.Since(began)
}

// pass lets time pass.
func (s *sim) pass(d time.Duration) {
	time.Sleep(d) // in the bubble
	synctest.Wait()
}

// whole reports whether every running node sees exactly the running nodes, all up.
func (s *sim) whole() bool {
	for _, m := range s.nodes {
		v := m.View()
		if up(v) != len(s.nodes) || len(v.Members) != len(s.nodes) {
			return false
		}
	}
	return s.agree()
}

func up(v *View) (n int) {
	for i := range v.Members {
		if v.Members[i].Up {
			n++
		}
	}
	return n
}

// agree reports whether all nodes have the same ring.
func (s *sim) agree() bool {
	hash, first := uint64(0), true
	for _, m := range s.nodes {
		h := m.View().Ring.Hash()
		if !first && h != hash {
			return false
		}
		hash, first = h, false
	}
	return true
}

// all returns whether so holds for the views of all running nodes.
func (s *sim) all(so func(v *View) bool) func() bool {
	return func() bool {
		for _, m := range s.nodes {
			if !so(m.View()) {
				return false
			}
		}
		return true
	}
}

// isUp, isDown and isOut report on a member in a view.
func isUp(id string) func(*View) bool {
	return func(v *View) bool { m, ok := v.Member(id); return ok && m.Up }
}

func isDown(id string) func(*View) bool {
	return func(v *View) bool { m, ok := v.Member(id); return ok && !m.Up && inRing(v, id) }
}

func isOut(id string) func(*View) bool {
	return func(v *View) bool { return !inRing(v, id) }
}

func inRing(v *View, id string) bool { return v.Ring.Share(id) > 0 }

// memory keeps the rings of all tests: the nodes of a mesh build the same ones.
var memory struct {
	mu    sync.Mutex
	rings map[string]*ring.Ring
}

// remembered does what (*ring.Ring).Next does, but builds each ring only once.
func remembered(old *ring.Ring, members []ring.Member) (*ring.Ring, error) {
	r, err := memorized(members)
	if err == nil && r.Hash() == old.Hash() {
		return old, nil
	}
	return r, err
}

// memorized returns the ring of the members, built at the first call.
func memorized(members []ring.Member) (*ring.Ring, error) {
	key := fmt.Sprint(members)
	memory.mu.Lock()
	defer memory.mu.Unlock()
	if r := memory.rings[key]; r != nil {
		return r, nil
	}
	r, err := ring.New(members)
	if err == nil {
		if memory.rings == nil {
			memory.rings = map[string]*ring.Ring{}
		}
		memory.rings[key] = r
	}
	return r, err
}

// noRing builds no rings. It is for tests of many nodes, in which too many rings would
// be built.
func noRing(old *ring.Ring, _ []ring.Member) (*ring.Ring, error) { return old, nil }

// A zone resolves names. Its entries may change.
type zone struct {
	mu    sync.Mutex
	names map[string][]string
}

func (z *zone) set(name string, addresses ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.names[name] = addresses
}

func (z *zone) resolve(_ context.Context, host string) (all []netip.Addr, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, a := range z.names[host] {
		all = append(all, netip.MustParseAddr(a))
	}
	return all, nil
}

// names returns a resolver of the names.
func names(table map[string][]string) func(context.Context, string) ([]netip.Addr, error) {
	return (&zone{names: table}).resolve
}

// wrongWith joins what is wrong with a node, nil if nothing is.
func wrongWith(m *Membership) error { return errors.Join(m.Health()...) }
