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
	goal   float64 // for how often a byte may come from the registry
	most   float64 // how often it may today
}

func itself(n int) int { return n }

// events is how many random events there are.
func events() int {
	if whole() {
		return 40
	}
	return 8
}

var scenarios = []scenario{
	{"cold herd", itself, true, func(w *World, n int) error { return w.Herd(max(8, min(24, 20000/n)), 2) }, 1, 1},
	{"join n/2 to n", func(n int) int { return (n + 1) / 2 }, false, func(w *World, n int) error { return w.Join(n) }, 1, 1.6},
	{"leave 1", itself, false, func(w *World, _ int) error { return w.Leave() }, 1, 1.2},
	{"kill 1 for good", itself, false, func(w *World, _ int) error { return w.Kill() }, 1.005, 2},
	{"rolling restart", itself, false, func(w *World, n int) error {
		if whole() {
			return w.Roll(10)
		}
		return w.Roll(min(n, 3))
	}, 1, 1.8},
	{"random events", itself, false, func(w *World, _ int) error { return w.Chaos(events()) }, 1.001, 3},
}

// How often the registry sends each byte, whatever happens to the cluster; no pull fails.
func TestSimAmplification(t *testing.T) {
	testkit.SkipShort(t)
	b := newTable(t, "nodes", "gossip", "scenario", "amplification", "of it held by a living node", "goal", "pulls", "one ring after", "virtual time")
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
			blobs = max(40, 2*n)
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
		b.row(n, gossip, s.name, a.Ratio(), a.Living(), s.goal, pulls, w.agreed, time.Since(start).Round(time.Second))
	})
	t.Logf("%s of %d took %v", s.name, n, time.Since(began))
}

// What nodes say to each other: gossip when nothing happens, and the words between peers
// for each pull of a cold herd.
func TestSimTraffic(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	const idle = time.Minute
	b := newTable(t, "nodes", "gossip B/s", "of it packets", "push/pull", "packets/s", "words B per pull", "requests per pull")
	for _, n := range sizes(t, 6) {
		synctest.Test(t, func(t *testing.T) {
			w, err := New(Config{Seed: seed(t), Nodes: n, Blobs: 8, Dir: t.TempDir(), Oracle: n > 100})
			if err != nil {
				t.Error(err)
			}
			<-time.After(30 * time.Second)
			before := w.Traffic()
			<-time.After(idle)
			after := w.Traffic()
			each := func(x, y int64) int64 { return (y - x) / int64(n) / int64(idle.Seconds()) }
			packets, streams := each(before.Sent.PacketBytes, after.Sent.PacketBytes), each(before.Sent.StreamBytes, after.Sent.StreamBytes)
			if err := w.Herd(8, 1); err != nil {
				t.Error(err)
			}
			herd := w.Traffic()
			pulls, failed := w.Failed()
			if failed != nil {
				t.Error(failed)
			}
			var asks []string
			for _, kind := range slices.Sorted(maps.Keys(herd.Asks)) {
				asks = append(asks, fmt.Sprintf("%s %.2f", kind, float64(herd.Asks[kind]-after.Asks[kind])/float64(pulls)))
			}
			b.row(n, packets+streams, packets, streams, float64(each(before.Sent.Packets*1000, after.Sent.Packets*1000))/1000, (herd.Words-after.Words)/int64(pulls), strings.Join(asks, ", "))
			if err := w.End(); err != nil {
				t.Error(err)
			}
		})
	}
}
