package simulator

import (
	"testing"
	"time"
)

// What must hold of a layer of 5 GB over links of 10 Gb/s, a tenth of which are slow.
const (
	wantMedian = 8500 * time.Millisecond
	wantFast   = 13 * time.Second
	wantOwner  = 2.1
)

// layer is how the layer spreads over n nodes, of which that part is slow.
func layer(seed uint64, n int, slow float64) *Spread {
	return &Spread{Seed: seed, Machines: n, Size: 5_000_000_000, Link: 1.25e9, Slow: slow, SlowLink: 62.5e6, Zones: 3, Plan: newTree("zone-0")}
}

// check fails the test if the figures are not those that must hold.
func (r *Spreading) check(t *testing.T, seed uint64, n int) {
	t.Helper()
	if r.Median > wantMedian || r.LastFast > wantFast || r.Owner > wantOwner {
		t.Errorf("seed %d: half of %d nodes have the layer after %s, all fast ones after %s, the owner sends it %.2f times; want %s, %s and %.1f at most",
			seed, n, r.Median, r.LastFast, r.Owner, wantMedian, wantFast, wantOwner)
	}
}

// A layer of 5 GB to all nodes, over links of 10 Gb/s with and without slow ones.
func TestSimSpread(t *testing.T) {
	t.Parallel()
	b := newTable(t, "nodes", "slow", "median", "last fast", "last", "owner sends", "busiest sends", "feeders left", "words", "crosses zones")
	for _, n := range sizes(t, 3, 10, 30, 100) {
		for _, slow := range []float64{0, 0.1} {
			r := layer(seed(t), n, slow).Run()
			b.row(n, slow, r.Median.Round(10*time.Millisecond), r.LastFast.Round(10*time.Millisecond), r.Last.Round(10*time.Millisecond), r.Owner, r.Busiest, r.Left, r.Told, r.Crossed)
			r.check(t, seed(t), n)
			if slow == 0 && r.Left > 0 {
				t.Errorf("%d feeders were left though none is slow", r.Left)
			}
		}
	}
}

// It holds whoever is slow, and whoever asks first. Some seeds make the owner feed slow nodes only.
func TestSimSpreadByManySeeds(t *testing.T) {
	t.Parallel()
	b := newTable(t, "nodes", "seeds", "worst median", "worst last fast", "owner sends", "busiest sends", "feeders left, most")
	for _, n := range sizes(t, 30, 100) {
		seeds, worst := min(50, 5000/n), Spreading{}
		for i := range seeds {
			at := seed(t) + uint64(i)
			r := layer(at, n, 0.1).Run()
			r.check(t, at, n)
			worst.Median, worst.LastFast, worst.Left = max(worst.Median, r.Median), max(worst.LastFast, r.LastFast), max(worst.Left, r.Left)
			worst.Owner, worst.Busiest = max(worst.Owner, r.Owner), max(worst.Busiest, r.Busiest)
		}
		b.row(n, seeds, worst.Median.Round(10*time.Millisecond), worst.LastFast.Round(10*time.Millisecond), worst.Owner, worst.Busiest, worst.Left)
	}
}
