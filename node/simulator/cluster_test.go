package simulator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/testkit"
)

// A scenario is something that happens to a cluster of n nodes.
type scenario struct {
	name   string
	from   func(n int) int // how many nodes it begins with
	cold   bool            // no blob has been pulled before
	happen func(w *World, n int) error
	most   float64 // how often a byte may come from the registry
}

func itself(n int) int { return n }

// some is how many of something there are among n nodes: few in the gate's short form, else
// as many as can be simulated of a cluster of that size.
func some(n, few, least, most int) int {
	if !whole() {
		return few
	}
	return max(least, min(most, 40*most/n))
}

var scenarios = []scenario{
	{"cold herd", itself, true, func(w *World, n int) error { return w.Herd(max(2, min(24, 2400/n)), 2) }, 1},
	{"join n/2 to n", func(n int) int { return (n + 1) / 2 }, false, func(w *World, n int) error { return w.Join(n) }, 1},
	{"leave 1", itself, false, func(w *World, _ int) error { return w.Leave() }, 1},
	{"kill 1 for good", itself, false, func(w *World, _ int) error { return w.Kill() }, 1.005},
	{"rolling restart", itself, false, func(w *World, n int) error { return w.Roll(some(n, 3, 3, 10)) }, 1},
	{"random events", itself, false, func(w *World, n int) error {
		return w.Chaos(Moments(w.cfg.Seed, n, some(n, 8, 8, 40)))
	}, 1.001},
	{"starved nodes", itself, true, func(w *World, _ int) error { return w.Starve() }, 1},
}

// How often the registry sends each byte, whatever happens to the cluster; no pull fails.
func TestSimAmplification(t *testing.T) {
	testkit.SkipShort(t)
	b := newTable(t, "nodes", "gossip", "scenario", "amplification", "of it held by a living node", "bound", "pulls", "one ring after", "virtual time")
	for _, n := range sizes(t, 6) {
		for _, s := range scenarios {
			t.Run(fmt.Sprintf("%d nodes, %s", n, s.name), func(t *testing.T) { s.run(t, b, n) })
		}
	}
}

// run simulates the scenario with n nodes.
func (s *scenario) run(t *testing.T, b *table, n int) {
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		blobs := 24
		if whole() {
			blobs = 60
		}
		w, err := New(Config{Seed: seed(t), Nodes: s.from(n), Blobs: blobs, Dir: t.TempDir(), Oracle: n > gossiping})
		defer func() {
			if err := w.End(); err != nil {
				t.Error(err)
			}
		}()
		if err == nil && !s.cold {
			err = w.Warm()
		}
		if err == nil {
			err = s.happen(w, n)
		}
		if err != nil {
			t.Errorf("%s of %d: %v", s.name, n, err)
		}
		a, gossip := w.registry.Amplification(), "real"
		if n > gossiping {
			gossip = "oracle"
		}
		pulls, failed := w.Failed()
		if failed != nil {
			t.Errorf("%s of %d: pulls failed: %v", s.name, n, failed)
		}
		if a.Ratio() > s.most {
			t.Errorf("%s of %d: each byte came %.3f times, want %.3f at most", s.name, n, a.Ratio(), s.most)
		}
		b.row(n, gossip, s.name, a.Ratio(), a.Living(), s.most, pulls, w.agreed, time.Since(start).Round(time.Second))
	})
	t.Logf("%s of %d took %v", s.name, n, time.Since(began))
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
		before := w.Traffic()
		<-time.After(rest)
		still := w.Traffic()
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
		changed := w.Traffic()
		moved := each(still.Sent.PacketBytes+still.Sent.StreamBytes, changed.Sent.PacketBytes+changed.Sent.StreamBytes, change)
		if err := w.Herd(max(1, min(8, 2400/n)), 1); err != nil {
			t.Error(err)
		}
		herd := w.Traffic()
		pulls, failed := w.Failed()
		if failed != nil {
			t.Error(failed)
		}
		var asks []string
		for _, kind := range slices.Sorted(maps.Keys(herd.Asks)) {
			asks = append(asks, fmt.Sprintf("%s %.2f", kind, float64(herd.Asks[kind]-changed.Asks[kind])/float64(pulls)))
		}
		gossip, directory := "real", "–"
		if oracle {
			gossip = "oracle"
		}
		if bytes, ok := w.Directory(); ok {
			directory = fmt.Sprint(bytes)
		}
		b.row(n, gossip, packets+streams, packets, streams, moved, directory, (herd.Words-changed.Words)/int64(pulls), strings.Join(asks, ", "))
		if err := w.End(); err != nil {
			t.Error(err)
		}
	})
}
