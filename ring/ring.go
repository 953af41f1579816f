// Package ring says who owns a key: which member of the mesh keeps a blob, and
// who would keep it without that member.
//
// A [Ring] is an immutable snapshot, made from the set of members and from
// nothing else: nodes that see the same members agree without talking. It is
// swapped by one pointer (an atomic.Pointer[Ring] of the caller's) and asked
// without lock or allocation. Who is up or down is not in it: the caller goes
// down the list that [Ring.Owners] gives.
//
// Keys fall into 16381 partitions. Each member stands for Weight units, and
// github.com/buraksezer/consistent assigns the partitions to the units by
// consistent hashing with bounded loads: no unit gets more than 1.25 times the
// mean, rounded up. The library makes the table; no request ever asks it.
//
// Start with ring.go (what a Ring tells), then members.go (which sets make a
// ring), build.go (the library) and walk.go (who comes next).
package ring

import (
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Depth is how many members a key has: its owner and the two next.
const Depth = 3

// These rule who owns what. They are no options: two nodes with different
// values would never agree. Hence all of them are in the ring's hash.
const (
	// partitions is prime, and large enough that a unit has 16 of them where
	// there are 1,000: with fewer, rounding the bound of the load re-packs the
	// whole ring when a member joins.
	partitions = 16381
	// replicas is how many points of the circle a unit has. 20 make twice the
	// needless moves, 100 double the time it takes to build.
	replicas = 50
	// load bounds a unit's partitions, as a factor of the mean. Below 1.25,
	// a join moves up to 15 times what it must.
	load = 1.25
	// algorithm names what else decides: the library's version places the
	// points (v0.10.0 gives nine of ten partitions to others), the walk
	// chooses the next owners. Whoever changes either gives it another name.
	algorithm = "consistent v1.0.0, xxhash64, walk 1"
)

// A Ring is an immutable snapshot of who owns which key. All its methods may
// be called at the same time. Only New and Next make one.
type Ring struct {
	now *table
	// former is the ring before this one, without that one's former: a chain
	// would keep every ring since the start in memory.
	former *table
	build  *builder
}

// A table is what a ring knows of one set of members. It never changes, so
// the ring after it may share it.
type table struct {
	members []Member                  // by ID, at least one
	owned   []int                     // partitions of each member
	hash    uint64                    // of all that decides
	owners  [partitions][Depth]uint16 // indices in members; as many of them count as there are members
}

// New makes a ring of the members, in whatever order they come. The error
// wraps [ErrMembers] where they make no ring.
//
// It is quadratic in the sum of the weights: 5 ms for 10, 160 ms for 300, 2 s
// for 1,000. Never call it on a request's path, and use Next for the rings
// that follow.
func New(members []Member) (*Ring, error) {
	members, err := accept(members)
	if err != nil {
		return nil, err
	}
	return (&builder{}).ring(nil, members)
}

// Next makes the ring of the members that remembers r as the one before (see
// Former and Changed), and only r. It places all keys as New's does, but a
// join or leave takes 5 ms for each of the member's units, 18 ms where all
// members together have 1,000. With r's own members it is r. After an error r
// is as good as before.
func (r *Ring) Next(members []Member) (*Ring, error) {
	members, err := accept(members)
	if err != nil {
		return nil, err
	}
	if slices.Equal(members, r.now.members) {
		return r, nil
	}
	return r.build.ring(r.now, members)
}

// Owner tells who owns the key: a digest's string, or what else is to be in
// one place, such as a tag's key.
func (r *Ring) Owner(key string) Member {
	t := r.now
	return t.members[t.owners[partition(key)][0]]
}

// Owners tells the key's owner, who would own it without the owner, and who
// without both. Only the first n count: a ring of two has no third.
func (r *Ring) Owners(key string) (owners [Depth]Member, n int) {
	t := r.now
	at := &t.owners[partition(key)]
	owners[0] = t.members[at[0]]
	if len(t.members) == 1 {
		return owners, 1
	}
	owners[1] = t.members[at[1]]
	if len(t.members) == 2 {
		return owners, 2
	}
	owners[2] = t.members[at[2]]
	return owners, 3
}

// Former tells who owned the key in the ring before, if that is another than
// now. That member may have left since.
func (r *Ring) Former(key string) (Member, bool) {
	if r.former == nil {
		return Member{}, false
	}
	p := partition(key)
	was := r.former.owner(p)
	if was.ID == r.now.owner(p).ID {
		return Member{}, false
	}
	return was, true
}

// Hash tells rings apart that place keys differently: it covers the members
// with their weights, the parameters and the library's version.
func (r *Ring) Hash() uint64 { return r.now.hash }

// Members are the ring's members, by ID.
func (r *Ring) Members() []Member { return slices.Clone(r.now.members) }

// Share is the part of the keys that the member owns, from 0 (also of whoever
// is no member) to 1.
func (r *Ring) Share(id string) float64 {
	i, ok := r.now.find(id)
	if !ok {
		return 0
	}
	return float64(r.now.owned[i]) / partitions
}

// partition is the library's own: keys are placed as LocateKey would.
func partition(key string) uint64 { return xxhash.Sum64String(key) % partitions }

func (t *table) owner(partition uint64) Member { return t.members[t.owners[partition][0]] }

func (t *table) find(id string) (int, bool) {
	return slices.BinarySearchFunc(t.members, id, func(m Member, id string) int {
		return strings.Compare(m.ID, id)
	})
}
