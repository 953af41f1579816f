package cache

import "testing"

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

// A replica takes only room that nothing else needs, after a restart too.
func TestReplicaGoesFirstUntilItIsRead(t *testing.T) {
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
			}
			keep(t, s, next)
			if held(s, replica) != readAgain || held(s, old) == readAgain || !held(s, own) || !held(s, next) {
				t.Errorf("restarted %v, read again %v: replica %v, old %v, own %v, next %v", restarted, readAgain,
					held(s, replica), held(s, old), held(s, own), held(s, next))
			}
		}
	}
}
