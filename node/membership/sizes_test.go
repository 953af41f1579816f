package membership

import (
	"context"
	"testing"
	"time"

	"oci-proxy/ring"
)

// cache gives a node a cache of that many GiB, and tells of it as this version does.
func cache(gib int64) func(*Config) {
	return func(c *Config) { c.Weight, c.Size = ring.Units(gib<<30), ring.Size(gib<<30) }
}

// cacheOfEarlier makes a node of a version that tells no size.
func cacheOfEarlier(gib int64) func(*Config) {
	return func(c *Config) { c.Weight = ring.Units(gib << 30) }
}

// byUnits reports whether all nodes have the ring of earlier versions: they know
// only ids and weights.
func (s *sim) byUnits() bool {
	var members []ring.Member
	for _, m := range s.nodes {
		if m.self.State != Draining {
			members = append(members, ring.Member{ID: m.self.ID, Weight: m.self.Weight})
		}
	}
	r, err := memorized(members)
	if err != nil {
		s.Fatal(err)
	}
	return s.all(func(v *View) bool { return v.Ring.Hash() == r.Hash() })()
}

// Members of two versions have one ring at every step of an upgrade, and of a way back.
func TestMembersOfTwoVersionsHaveOneRing(t *testing.T) {
	t.Parallel()
	homes := []string{t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()}
	bubble(t, 1, func(s *sim) {
		gib := []int64{10, 20, 70, 300}
		for i := range gib {
			s.start(i, dir(homes[i]), cacheOfEarlier(gib[i]))
		}
		s.reach(time.Second, "all see all", s.whole)
		for i := range gib {
			if !s.byUnits() {
				s.Fatalf("with %d of 4 upgraded, it is not the ring of the earlier version", i)
			}
			s.restart(i)
			s.pass(3 * time.Second)
			if !s.agree() {
				s.Fatalf("while node %d restarts the rings differ", i)
			}
			s.start(i, dir(homes[i]), cache(gib[i]))
			s.reach(time.Second, "it is back", s.whole)
		}
		sum := 400.0
		for i, m := range s.nodes {
			part := float64(gib[i]) / sum
			for _, o := range s.nodes {
				if share := o.View().Ring.Share(m.self.ID); share < 0.85*part || share > 1.15*part {
					s.Errorf("%d GiB of %.0f have a share of %.3f", gib[i], sum, share)
				}
			}
		}
		// One that goes back takes all back, also while it drains.
		s.start(4, cacheOfEarlier(100))
		s.reach(time.Second, "all see the earlier one", s.whole)
		if !s.byUnits() {
			s.Error("a member of an earlier version has another ring")
		}
		s.nodes[4].Draining(context.Background())
		s.reach(time.Second, "it drains", s.all(isOut(s.nodes[4].self.ID)))
		if !s.agree() || !s.byUnits() {
			s.Error("a draining member of an earlier version has another ring")
		}
		s.nodes[4].Close(context.Background())
		delete(s.nodes, 4)
		s.reach(2*time.Second, "it is gone", func() bool { return s.whole() && !s.byUnits() })
	})
}
