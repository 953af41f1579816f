package cache

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// keepReplica brings in a blob that is another node's to keep.
func keepReplica(t *testing.T, s *Store, b sample) {
	t.Helper()
	in := begin(t, s, b)
	in.Replica()
	in.SetSize(int64(len(b.content)))
	if err := write(in, b, len(b.content)); err != nil {
		t.Fatal(err)
	}
	in.stream.expectNobody() // nobody will
	if err := in.Commit(); err != nil || !in.Stored() {
		t.Fatal(err, in.Stored())
	}
}

// held reports whether the shard has a blob, without using it.
func held(s *Store, b sample) bool {
	_, ok := s.Stat(b.digest)
	return ok
}

// A replica takes only room that nothing of this node's needs, whoever reads it.
func TestReplicaGoesFirst(t *testing.T) {
	t.Parallel()
	const size = 100_000
	for _, restarted := range []bool{false, true} {
		for _, readAgain := range []bool{false, true} {
			opts := Options{Bound: 3 * size}
			s := start(t, t.TempDir(), opts)
			old, replica, own, next := newSample(60, size), newSample(61, size), newSample(62, size), newSample(63, size)
			keep(t, s, old)
			keepReplica(t, s, replica)
			keep(t, s, own)
			if readAgain {
				want(t, s, replica)
			}
			if restarted {
				s = restart(t, s, opts)
				if err := s.Listed(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.Stock().Place(func(_ string, d digest.Digest) bool { return d == replica.digest })
			}
			keep(t, s, next)
			if held(s, replica) || !held(s, old) || !held(s, own) || !held(s, next) {
				t.Errorf("restarted %v, read again %v: replica %v, old %v, own %v, next %v", restarted, readAgain,
					held(s, replica), held(s, old), held(s, own), held(s, next))
			}
		}
	}
}

// A replica for which something of this node's would have to go is not kept. Another
// replica goes, the one that was used before.
func TestReplicaMakesRoomOnlyOfReplicas(t *testing.T) {
	t.Parallel()
	const size = 100_000
	s := start(t, t.TempDir(), Options{Bound: 3 * size})
	own, read, unread, late := newSample(60, size), newSample(61, size), newSample(62, size), newSample(63, size)
	keep(t, s, own)
	keepReplica(t, s, read)
	keepReplica(t, s, unread)
	want(t, s, read)
	if !s.HasRoomBeside(registry, 2*size) || s.HasRoomBeside(registry, 2*size+10) {
		t.Error("the room beside what is the node's own is not that of two replicas")
	}
	keepReplica(t, s, late)
	if !held(s, own) || !held(s, read) || held(s, unread) || !held(s, late) {
		t.Errorf("own %v, read %v, unread %v, late %v", held(s, own), held(s, read), held(s, unread), held(s, late))
	}
	full := start(t, t.TempDir(), Options{Bound: size})
	keep(t, full, own)
	if full.HasRoomBeside(registry, 1) {
		t.Error("there is room for a byte")
	}
	in := begin(t, full, late)
	in.Replica()
	in.SetSize(size)
	if in.Keeping() {
		t.Error("there is room for a replica")
	}
	in.Abort(nil)
	if !held(full, own) {
		t.Error("a replica pushed out what is the node's own")
	}
}

// What is another node's to keep may change. All keep their order of use.
func TestPlaceKeepsTheOrderOfUse(t *testing.T) {
	t.Parallel()
	const size, n = 1000, 8
	s := start(t, t.TempDir(), Options{Bound: n * size})
	var all []sample
	for i := range n {
		b := newSample(uint64(60+i), size)
		all = append(all, b)
		if i%3 == 0 {
			keepReplica(t, s, b)
		} else {
			keep(t, s, b)
		}
	}
	reader, err := s.Open(all[7].digest) // and so in no order
	if err != nil {
		t.Fatal(err)
	}
	spare := func(i int) bool { return i%2 == 1 }
	s.Stock().Place(func(of string, d digest.Digest) bool {
		if of != registry {
			t.Errorf("it is of %q", of)
		}
		return spare(slices.IndexFunc(all, func(b sample) bool { return b.digest == d }))
	})
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	// Replicas that nobody read come first, the newest of them before the others.
	for k, gone := range []int{3, 1, 5, 7, 6, 0, 2, 4} {
		keep(t, s, newSample(uint64(80+k), size))
		if held(s, all[gone]) {
			t.Fatalf("the blob that went as number %d is not %d: %v", k, gone, func() (left []int) {
				for i, b := range all {
					if held(s, b) {
						left = append(left, i)
					}
				}
				return left
			}())
		}
	}
}
