package cache

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// manyBlobs is more than the index is asked for at a time.
const manyBlobs = 2*placeBatch + 100

// inOrder lists the names of a share's idle blobs, those last used first: this node's, then
// the others.
func inOrder(x *index) (own, spare []name) {
	walk := func(o order) (all []name) {
		for i := o.head; i != none; i = x.table.at(i).next {
			all = append(all, x.table.name(i))
		}
		return all
	}
	o := x.table.ordersOf(0)
	return walk(o.own), walk(o.spare)
}

// Placing many blobs anew keeps each one's place in the order of use, also of those that are
// used while that goes on.
func TestPlacingManyKeepsTheOrderOfUse(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	x := newIndex(0, nil)
	x.endListing()
	s := &Stock{shard: &shard{index: x}}
	for i := range manyBlobs {
		x.append(found{testName(i), "a", 100, time.Now(), false})
	}
	is := map[digest.Digest]bool{}
	for range 3 {
		for i := range manyBlobs {
			is[testName(i).digest()] = r.IntN(2) == 0
		}
		for range 100 {
			x.use(testName(r.IntN(manyBlobs)), time.Now())
		}
		s.Place(func(_ string, d digest.Digest) bool { return is[d] })
		var own, spare []name
		for _, h := range (stockroom{x}).held((stockroom{x}).uses()) {
			n, _ := nameOf(h.Digest) // it is one
			if is[h.Digest] {
				spare = append(spare, n)
			} else {
				own = append(own, n)
			}
		}
		gotOwn, gotSpare := inOrder(x)
		if !slices.Equal(gotOwn, own) || !slices.Equal(gotSpare, spare) || len(own)+len(spare) != manyBlobs {
			t.Fatalf("%d and %d blobs, or another order; want %d and %d", len(gotOwn), len(gotSpare), len(own), len(spare))
		}
		all := x.shares.total
		if all.idle.blobs != manyBlobs || all.spare.blobs != int64(len(spare)) || all.spare.bytes != 100*int64(len(spare)) {
			t.Fatalf("%+v", all)
		}
	}
}

// The way to a blob's place in the order of use is made in parts. What is used, evicted or
// placed in between does not lead astray.
func TestOthersUseTheIndexWhileBlobsArePlaced(t *testing.T) {
	t.Parallel()
	x := newIndex(0, nil)
	x.endListing()
	for i := range manyBlobs { // the first is the last used
		x.append(found{testName(i), "a", 100, time.Now(), false})
	}
	s := &Stock{shard: &shard{index: x}}
	last := testName(manyBlobs - 1).digest()
	s.Place(func(_ string, d digest.Digest) bool { return d != last }) // its way to the others is the longest
	i, _ := x.table.find(testName(manyBlobs - 1))
	way := &shifts{after: none, left: []shift{{prefix: testName(manyBlobs - 1).key.prefix(), slot: i, spare: true}}}
	parts := 0
	for ; len(way.left) > 0; parts++ {
		(stockroom{x}).shift(way)
		if len(way.left) > 0 && parts == 0 { // the blob reached goes, and another comes in its slot
			n := x.nameOf(way.after)
			x.acquire(n)
			x.expel(way.after)
			x.removed(way.after)
			x.leave(way.after, time.Now())
			x.append(found{n, "a", 100, time.Now(), false})
		}
	}
	own, spare := inOrder(x)
	if parts < 3 || len(own) != 1 || len(spare) != manyBlobs-1 || spare[manyBlobs-2] != testName(manyBlobs-1) {
		t.Errorf("%d parts; %d and %d blobs", parts, len(own), len(spare))
	}
}

func TestBlobsListsThoseLastUsedFirst(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	for i := range manyBlobs {
		s.shard.index.append(found{testName(i), "a", int64(i), time.Now(), false})
	}
	all := s.Blobs()
	if len(all) != manyBlobs {
		t.Fatalf("%d blobs, want %d", len(all), manyBlobs)
	}
	for i, h := range all {
		if h.Digest != testName(i).digest() || h.Size != int64(i) || h.Registry != "a" {
			t.Fatalf("%d: %+v", i, h)
		}
	}
	if some := s.Newest(10); !slices.Equal(some, all[:10]) {
		t.Errorf("%+v", some)
	}
	if entries := s.Stock().Entries(); len(entries) != manyBlobs {
		t.Errorf("%d entries", len(entries))
	}
}
