// Package ring decides who owns a key: which member of the mesh keeps a blob,
// and which member takes over if the owner leaves.
//
// A [Ring] is an immutable snapshot. It depends only on the set of members, so
// nodes that see the same members agree without talking to each other. The
// caller holds the current ring in an atomic.Pointer[Ring]; a lookup takes no
// lock and allocates nothing. A ring does not know which members are up: the
// caller walks down the list that [Ring.Owners] returns.
//
// A key falls into one of 16381 partitions. A member is a unit, and
// github.com/buraksezer/consistent assigns the partitions to the units by
// consistent hashing with bounded loads: no unit gets more than 1.25 times the
// mean, rounded up. The library is used to build the table, never for a lookup.
// Then partitions move from one member to another until the shares follow the
// members' sizes. If the size of some member is not known, they don't: a member
// has Weight units then.
//
// Start with ring.go (lookups), then members.go (which sets make a ring),
// build.go (the library), fit.go (shares by size) and walk.go (the next owners).
package ring

import (
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Depth is the number of members that Owners lists for a key: the owner and the
// next two.
const Depth = 3

// These constants decide who owns what. They can't be options: two nodes with
// different values would never agree. All of them go into the ring's hash.
const (
	// partitions is prime. It is large enough that each of 1,000 units gets 16:
	// with fewer, rounding the load bound would re-pack the whole ring at a join. Members tell
	// each other numbers of partitions (transfer/directory), up to 16,384: another count needs
	// a way to tell which one is meant.
	partitions = 16381
	// replicas is the number of points that a unit has on the circle. 20 would
	// double the needless moves, 100 would double the time to build.
	replicas = 50
	// load bounds a unit's partitions, as a factor of the mean. Below 1.25,
	// a join moves up to 15 times as many keys as it must.
	load = 1.25
	// algorithm names the other inputs: the library's version places the points
	// (v0.10.0 gives nine of ten partitions to different units), and the walk
	// chooses the next owners. Change this name when you change either.
	algorithm = "consistent v1.0.0, xxhash64, walk 1"
	// fitting names how shares are fitted to sizes. A change needs another way for
	// members to tell that they know it, as Member.Size is one.
	fitting = "fit 1"
)

// A Ring is an immutable snapshot of who owns which key. Its methods are safe
// for concurrent use. Make one with New or Next.
type Ring struct {
	members []Member                  // by ID, at least one
	owned   []int                     // partitions of each member
	hash    uint64                    // see Hash
	owners  [partitions][Depth]uint16 // indices into members; the first min(Depth, len(members)) count
	build   *builder
}

// New builds the ring of the members, given in any order. If they can't make a
// ring, the error wraps [ErrMembers].
//
// New is quadratic in the number of members (without sizes, in the sum of the
// weights): 5 ms for 10, 160 ms for 300, 2 s for 1,000. Never call it while a
// request waits. Use Next for later rings.
func New(members []Member) (*Ring, error) {
	members, err := accept(members)
	if err != nil {
		return nil, err
	}
	return (&builder{}).ring(members)
}

// Next builds the ring of the members from r. The result equals New's, but a
// join or leave takes only 5 ms for each of the member's units, or 18 ms if all
// members together have 1,000. If the members are those of r, Next returns r.
// After an error r is still good.
func (r *Ring) Next(members []Member) (*Ring, error) {
	members, err := accept(members)
	if err != nil {
		return nil, err
	}
	if slices.Equal(members, r.members) {
		return r, nil
	}
	return r.build.ring(members)
}

// Owner returns the owner of the key: a digest's string, or the key of anything
// else that one member keeps, such as a tag.
func (r *Ring) Owner(key string) Member { return r.owner(partition(key)) }

// Owners returns the key's owner, the member that would own it if the owner
// left, and the one after that. Only the first n count: a ring of two members
// has no third.
func (r *Ring) Owners(key string) (owners [Depth]Member, n int) {
	at := &r.owners[partition(key)]
	owners[0] = r.members[at[0]]
	if len(r.members) == 1 {
		return owners, 1
	}
	owners[1] = r.members[at[1]]
	if len(r.members) == 2 {
		return owners, 2
	}
	owners[2] = r.members[at[2]]
	return owners, 3
}

// Members returns the members, by ID.
func (r *Ring) Members() []Member { return slices.Clone(r.members) }

// Hash is equal for two rings exactly if they place all keys alike. It covers
// the members with their weights, the constants and the library's version.
func (r *Ring) Hash() uint64 { return r.hash }

// Share returns the fraction of the keys that the member owns, from 0 to 1. It
// is 0 for an id that is not in the ring.
func (r *Ring) Share(id string) float64 {
	i, ok := slices.BinarySearchFunc(r.members, id, func(m Member, id string) int { return strings.Compare(m.ID, id) })
	if !ok {
		return 0
	}
	return float64(r.owned[i]) / partitions
}

// Partitions returns how many partitions there are, the same number in every ring.
func (r *Ring) Partitions() int { return partitions }

// Partition returns the number of the partition that the key falls into, the same in every ring.
func (r *Ring) Partition(key string) uint16 { return uint16(partition(key)) }

// OwnerOf returns the id of the member that owns the partition of that number, which is below
// Partitions.
func (r *Ring) OwnerOf(partition uint16) string { return r.owner(uint64(partition)).ID }

// partition is the library's own function, so keys are placed as LocateKey would.
func partition(key string) uint64 { return xxhash.Sum64String(key) % partitions }

func (r *Ring) owner(partition uint64) Member { return r.members[r.owners[partition][0]] }
