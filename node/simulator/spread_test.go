package simulator

import (
	"testing"
	"time"
)

// A layer of 5 GB to all nodes, over links of 10 Gb/s with and without slow ones. With slow ones the
// times are not bounded: by some seeds a node that is fast itself finds slow feeders only.
func TestSimSpread(t *testing.T) {
	t.Parallel()
	b := newTable(t, "nodes", "slow", "median", "last fast", "last", "owner sends", "busiest sends", "feeders left", "crosses zones")
	for _, n := range sizes(t, 3, 10, 30, 100) {
		for _, slow := range []float64{0, 0.1} {
			s := Spread{Seed: seed(t), Machines: n, Size: 5_000_000_000, Link: 1.25e9, Slow: slow, SlowLink: 62.5e6, Zones: 3, Plan: newTree("zone-0")}
			r := s.Run()
			b.row(n, slow, r.Median.Round(10*time.Millisecond), r.LastFast.Round(10*time.Millisecond), r.Last.Round(10*time.Millisecond), r.Owner, r.Busiest, r.Left, r.Crossed)
			if r.Owner > 2.1 {
				t.Errorf("the owner of %d sends the layer %.2f times, want 2.1 at most", n, r.Owner)
			}
			if slow == 0 && (r.Median > 8500*time.Millisecond || r.LastFast > 13*time.Second) {
				t.Errorf("half of %d nodes have the layer after %s, all after %s; want 8.5 s and 13 s at most", n, r.Median, r.LastFast)
			}
		}
	}
}
