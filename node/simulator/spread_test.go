package simulator

import (
	"testing"
	"time"
)

// A layer of 5 GB to all nodes, over links of 10 Gb/s with and without slow ones.
func TestSimSpread(t *testing.T) {
	t.Parallel()
	b := newTable(t, "nodes", "slow", "median", "last fast", "last", "owner sends", "busiest sends", "feeders left", "crosses zones")
	for _, n := range sizes(t, 3, 10, 30, 100) {
		for _, slow := range []float64{0, 0.1} {
			s := Spread{Seed: seed(t), Machines: n, Size: 5_000_000_000, Link: 1.25e9, Slow: slow, SlowLink: 62.5e6, Zones: 3, Plan: OwnerFeedsAll{}}
			r := s.Run()
			b.row(n, slow, r.Median.Round(10*time.Millisecond), r.LastFast.Round(10*time.Millisecond), r.Last.Round(10*time.Millisecond), r.Owner, r.Busiest, r.Left, r.Crossed)
			if want := float64(n - 1); r.Owner < want-0.01 || r.Owner > want+0.01 {
				t.Errorf("the owner of %d sends the layer %.2f times, want %.0f", n, r.Owner, want)
			}
		}
	}
}
