package simulator

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"

	"oci-proxy/ring"
	"oci-proxy/transfer/testkit"
)

// world runs what is asked of a cluster of its own, in a bubble.
func world(t *testing.T, cfg Config, ask func(w *World) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Seed, cfg.Dir, cfg.Oracle = seed(t), t.TempDir(), cfg.Nodes > gossiping
		w, err := New(cfg)
		defer func() {
			if err := w.End(); err != nil {
				t.Error(err)
			}
		}()
		if err == nil {
			err = ask(w)
		}
		if _, failed := w.Failed(); err != nil || failed != nil {
			t.Errorf("%d nodes: %v; pulls that failed: %v", cfg.Nodes, err, failed)
		}
	})
}

// A newcomer knows the others sooner than gossip tells them of it. What they hold does not come
// from the registry again for those that pull it by the newcomer at once.
func TestSimNewcomer(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	b := newTable(t, "nodes", "pulls", "bytes from the registry")
	for _, n := range sizes(t, 30) {
		world(t, Config{Nodes: n - 1, Blobs: 24}, func(w *World) error {
			if err := w.Warm(); err != nil {
				return err
			}
			before := w.registry.Amplification()
			if err := w.begin(); err != nil {
				return err
			}
			h := w.all()[n-1]
			h.node.Load().cluster.AwaitOthers(context.Background())
			for blob := range w.cfg.Blobs {
				w.pull(h, blob)
			}
			w.Await()
			again := w.registry.Amplification().Sent - before.Sent
			b.row(n, w.cfg.Blobs, again)
			if again > 0 {
				t.Errorf("%d bytes come again by the newest of %d nodes", again, n)
			}
			return nil
		})
	}
}

// What it costs that the owner of a blob is killed while all others get it from it.
func TestSimOwnerKilled(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	b := newTable(t, "nodes", "kills", "KiB more for one", "bound")
	const most = 128 << 10
	for _, n := range sizes(t, 4) {
		kills := some(n, 3, 3, 20)
		world(t, Config{Nodes: n, Blobs: kills, Size: 200 << 10}, func(w *World) error {
			more, err := KillOwners(w, kills)
			b.row(n, kills, float64(more)/1024, float64(most)/1024)
			if more > most {
				t.Errorf("the owner of a blob among %d nodes is killed, and %d bytes of it come again; want %d at most", n, more, most)
			}
			return err
		})
	}
}

// How often nodes send a blob that all want at once.
func TestSimHot(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	b := newTable(t, "nodes", "blob", "owner sends", "another sends", "bounds")
	for _, n := range sizes(t, 6) {
		if n > 100 {
			continue // the bytes are true: see TestSimSpread
		}
		world(t, Config{Nodes: n, Blobs: 2, Size: 9 << 20, True: true}, func(w *World) error {
			for blob, what := range []string{"new", "held by its owner"} {
				owner, other := Hot(w, blob, blob == 1)
				b.row(n, what, owner, other, "2.1, 3")
				if owner > 2.1 || other > 3 {
					t.Errorf("of %d nodes that want a blob (%s), the owner sends it %.2f times and another %.2f, want 2.1 and 3 at most", n, what, owner, other)
				}
			}
			return nil
		})
	}
}

// Disks of a tenth of what is pulled, together, have nearly as many hits as one such disk.
func TestSimHits(t *testing.T) {
	t.Parallel()
	if !whole() {
		t.Skip("TestReplicasCostNoHits in cache is the short form")
	}
	const blobs, size, pulls = 4000, 4 << 10, 12_000
	b := newTable(t, "nodes", "hit ratio", "of one node as large", "part of it", "bound")
	hits := func(n int) (ratio float64) {
		world(t, Config{Nodes: n, Blobs: blobs, Size: size, Bound: blobs * size / 10 / int64(n)}, func(w *World) error {
			ratio = Hits(w, pulls)
			return nil
		})
		return ratio
	}
	one := hits(1)
	for _, n := range sizes(t) {
		if n > 10 {
			continue // a disk would have room for a few blobs only
		}
		all := hits(n)
		b.row(n, all, one, all/one, 0.985)
		if all/one < 0.985 {
			t.Errorf("%d nodes have %.4f of the hits of one, want 0.985", n, all/one)
		}
	}
}

// Shares of disks of 10, 20 and 70 GiB, and what a node that joins moves.
func TestSimShares(t *testing.T) {
	t.Parallel()
	b := newTable(t, "nodes", "share off by", "bound", "a join moves", "of what it needs", "one of an older version: share off by")
	for _, n := range sizes(t, 3, 30) {
		members := make([]ring.Member, n+1)
		for i := range members {
			bytes := []int64{10 << 30, 20 << 30, 70 << 30}[i%3]
			members[i] = ring.Member{ID: fmt.Sprintf("%016x%016x", seed(t), i), Weight: ring.Units(bytes), Size: ring.Size(bytes)}
		}
		r, err := ring.New(members[:n])
		if err != nil {
			t.Fatal(err)
		}
		more, err := r.Next(members)
		if err != nil {
			t.Fatal(err)
		}
		moved, keys := 0, 20_000
		for k := range keys {
			if key := fmt.Sprint("key ", k); r.Owner(key).ID != more.Owner(key).ID {
				moved++
			}
		}
		need := more.Share(members[n].ID)
		off := offBy(r, func(m ring.Member) float64 { return float64(m.Size) })
		old := append([]ring.Member(nil), members[:n]...)
		for i := range old {
			old[i].Size = 0 // one that tells none makes all place by weight
		}
		mixed, err := ring.New(old)
		if err != nil {
			t.Fatal(err)
		}
		b.row(n, off, 0.15, float64(moved)/float64(keys), float64(moved)/float64(keys)/need, offBy(mixed, func(m ring.Member) float64 { return float64(m.Weight) }))
		if off > 0.15 {
			t.Errorf("a share of %d nodes is off by %.3f, want 0.15 at most", n, off)
		}
	}
}

// offBy is by what part the share of some member differs most from what is due to it.
func offBy(r *ring.Ring, due func(ring.Member) float64) (most float64) {
	sum := 0.0
	for _, m := range r.Members() {
		sum += due(m)
	}
	for _, m := range r.Members() {
		most = max(most, math.Abs(r.Share(m.ID)*sum/due(m)-1))
	}
	return most
}
