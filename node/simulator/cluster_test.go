package simulator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/membership/memnet"
	"oci-proxy/transfer/testkit"
)

// A scenario is something that happens to a cluster of n nodes.
type scenario struct {
	name   string
	from   func(n int) int // how many nodes it begins with
	cold   bool            // no blob has been pulled before
	happen func(w *World, n int) error
	most   float64 // how often a byte may come from the registry,
	least  int     // in clusters of so many nodes: in smaller ones both that hold a blob may be gone
}

func itself(n int) int { return n }

// agreement is how long after the last event all may have one ring.
const agreement = 10 * time.Second

// some is how many of something there are among n nodes: few in the gate's short form, else
// as many as can be simulated of a cluster of that size.
func some(n, few, least, most int) int {
	if !whole() {
		return few
	}
	return max(least, min(most, 40*most/n))
}

// The first is the one that begins with fewer nodes.
var scenarios = []scenario{
	{"join n/2 to n", func(n int) int { return (n + 1) / 2 }, false, func(w *World, n int) error { return w.Join(n) }, 1, 2},
	{"cold herd", itself, true, func(w *World, n int) error { return w.Herd(max(2, min(24, 2400/n)), 2) }, 1, 2},
	{"leave 1", itself, false, func(w *World, _ int) error { return w.Leave() }, 1, 2},
	{"kill 1 for good", itself, false, func(w *World, _ int) error { return w.Kill() }, 1.005, 2},
	{"rolling restart", itself, false, func(w *World, n int) error { return w.Roll(some(n, 3, 3, 10)) }, 1, 2},
	{"random events", itself, false, func(w *World, n int) error {
		return w.Chaos(Moments(w.cfg.Seed, n, some(n, 8, 8, 40)))
	}, 1.001, 6},
	{"starved nodes", itself, true, func(w *World, _ int) error { return Starve(w) }, 1, 2},
}

// How often the registry sends each byte, whatever happens to the cluster; no pull fails. Up
// to the size that gossip is real for, each scenario has a cluster of its own. Larger ones
// take long to begin: there one scenario follows the other.
func TestSimAmplification(t *testing.T) {
	testkit.SkipShort(t)
	b := newTable(t, "nodes", "gossip", "scenario", "amplification", "held by a living node", "by one lost node", "by several lost", "bound", "pulls", "one ring after", "virtual time", "gossip B/min of a node", "directory B of a node", "tellings")
	for _, n := range sizes(t, 6) {
		if n > gossiping {
			t.Run(fmt.Sprint(n, " nodes"), func(t *testing.T) { simulate(t, b, n, scenarios) })
			continue
		}
		for i := range scenarios {
			t.Run(fmt.Sprintf("%d nodes, %s", n, scenarios[i].name), func(t *testing.T) { simulate(t, b, n, scenarios[i:i+1]) })
		}
	}
}

// simulate makes the scenarios happen to one cluster of n nodes.
func simulate(t *testing.T, b *table, n int, all []scenario) {
	t.Helper()
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		blobs := 24
		if whole() {
			blobs = 60
		}
		w, err := New(Config{Seed: seed(t), Nodes: all[0].from(n), Blobs: blobs, Ranges: len(all), Dir: t.TempDir(), Oracle: n > gossiping})
		defer func() {
			if err := w.End(); err != nil {
				t.Error(err)
			}
		}()
		if err != nil {
			t.Error(err)
			return
		}
		for i := range all {
			all[i].happens(t, b, w, n, i > 0)
		}
	})
	t.Logf("%d nodes, %d scenarios: %v", n, len(all), time.Since(began))
}

// happens makes the scenario happen, and makes its row. again: others came before.
func (s *scenario) happens(t *testing.T, b *table, w *World, n int, again bool) {
	t.Helper()
	start, traffic, before, err := time.Now(), TrafficOf(w), Amplification{}, error(nil)
	w.agreed = 0
	if again && s.cold {
		w.Renew()
	} else if again {
		before = w.registry.Amplification()
	}
	if !s.cold {
		err = w.Warm()
	}
	if err := errors.Join(err, s.happen(w, n)); err != nil {
		t.Errorf("%s of %d, seed %d: %v", s.name, n, seed(t), err)
	}
	pulls, failed := w.Failed()
	if failed != nil {
		t.Errorf("%s of %d, seed %d: pulls failed: %v", s.name, n, seed(t), failed)
	}
	a, gossip := w.registry.Amplification().since(before), "real"
	if n > gossiping {
		gossip = "oracle"
	}
	b.row(n, gossip, s.name, a.Ratio(), a.part(a.Living), a.part(a.Lost), a.part(a.Gone), s.judge(t, n, a, w.agreed), pulls, w.agreed, time.Since(start).Round(time.Second), gossiped(w, traffic.Sent, time.Since(start)), DirectoryOf(w), TrafficOf(w).Asks["directory"]-traffic.Asks["directory"])
}

// gossiped is how many bytes of gossip a node sent in a minute, in the middle, since the
// World had sent so many, as long ago as that.
func gossiped(w *World, before memnet.Sent, since time.Duration) int64 {
	now := TrafficOf(w).Sent
	sent := now.PacketBytes + now.StreamBytes - before.PacketBytes - before.StreamBytes
	return int64(float64(sent) / since.Minutes() / float64(len(w.Living())))
}

// judge compares with the bound, which it returns. What came again because all that held it
// stopped, two or more, does not count: more copies would keep it.
func (s *scenario) judge(t *testing.T, n int, a Amplification, agreed time.Duration) (bound string) {
	t.Helper()
	bound = fmt.Sprintf("%.3f", s.most)
	if n < s.least {
		bound = "–"
	} else if ratio := a.Ratio() - a.part(a.Gone); ratio > s.most {
		t.Errorf("%s of %d, seed %d: each byte that two copies can keep came %.4f times, want %s at most", s.name, n, seed(t), ratio, bound)
	}
	if a.Living > 0 {
		t.Errorf("%s of %d, seed %d: %d bytes came again that a living node held", s.name, n, seed(t), a.Living)
	}
	if agreed > agreement {
		t.Errorf("%s of %d, seed %d: one ring after %v, want %v at most", s.name, n, seed(t), agreed, agreement)
	}
	return bound
}

// What nodes say to each other: gossip while nothing happens and while nodes restart, what
// they know of who holds what, and the words between peers for each pull of a cold herd.
func TestSimTraffic(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	b := newTable(t, "nodes", "gossip", "at rest B/s", "of it packets", "push/pull", "a restart each 10 s B/s", "directory B", "words B per pull", "requests per pull")
	for _, n := range sizes(t, 6) {
		if n <= realTraffic {
			sayings(t, b, n, false)
		}
		if whole() {
			sayings(t, b, n, true)
		}
	}
}

// realTraffic is up to how many nodes the bytes of real gossip are counted.
const realTraffic = 100

// sayings makes a row of what n nodes say, by gossip or the oracle that counts for it.
func sayings(t *testing.T, b *table, n int, oracle bool) {
	t.Helper()
	const rest, change = 30 * time.Second, 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		w, err := New(Config{Seed: seed(t), Nodes: n, Blobs: 8, Dir: t.TempDir(), Oracle: oracle})
		if err != nil {
			t.Error(err)
		}
		<-time.After(time.Minute)
		each := func(x, y int64, in time.Duration) int64 { return (y - x) / int64(n) / int64(in.Seconds()) }
		before := TrafficOf(w)
		<-time.After(rest)
		still := TrafficOf(w)
		packets, streams := each(before.Sent.PacketBytes, still.Sent.PacketBytes, rest), each(before.Sent.StreamBytes, still.Sent.StreamBytes, rest)
		over := time.After(change)
		for i := range 2 {
			next := time.After(change / 2)
			if err := w.pick(w.ready(), happening+i).restart(3 * time.Second); err != nil {
				t.Error(err)
			}
			<-next
		}
		<-over
		changed := TrafficOf(w)
		moved := each(still.Sent.PacketBytes+still.Sent.StreamBytes, changed.Sent.PacketBytes+changed.Sent.StreamBytes, change)
		if err := w.Herd(max(1, min(8, 2400/n)), 1); err != nil {
			t.Error(err)
		}
		herd := TrafficOf(w)
		pulls, failed := w.Failed()
		if failed != nil {
			t.Error(failed)
		}
		var asks []string
		for _, kind := range slices.Sorted(maps.Keys(herd.Asks)) {
			asks = append(asks, fmt.Sprintf("%s %.2f", kind, float64(herd.Asks[kind]-changed.Asks[kind])/float64(pulls)))
		}
		gossip := "real"
		if oracle {
			gossip = "oracle"
		}
		b.row(n, gossip, packets+streams, packets, streams, moved, DirectoryOf(w), (herd.Words-changed.Words)/int64(pulls), strings.Join(asks, ", "))
		if err := w.End(); err != nil {
			t.Error(err)
		}
	})
}
