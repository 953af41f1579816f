package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Limits of what New and Next take.
const (
	MaxMembers = 2000 // they take 10 s to build; twice as many would take 40
	MaxWeight  = 32   // units
	MaxID      = 128  // bytes
)

// maxUnits is how many units all members together have at most, unless there
// are more members. Beyond it, a join moves more than 1.3 times what it must,
// and a table takes seconds.
const maxUnits = 800

// unitBytes is the disk that a unit stands for. It is absolute, so that every
// node knows its own weight without knowing the others'.
const unitBytes = 100 << 30

// ErrMembers is wrapped where the members make no ring, by an error that says
// why.
var ErrMembers = errors.New("members make no ring")

// A Member is a node as the ring sees it.
type Member struct {
	// ID is unique in the mesh and stays the node's own for good: 1 to MaxID
	// bytes of visible ASCII, without '#'.
	ID string
	// Weight is the member's part of the keys, in units from 1 to MaxWeight
	// (see Units).
	Weight int
}

// Units is the weight of a node with that many bytes of disk for its shard:
// one unit for each 100 GiB, rounded, at least 1 and at most MaxWeight.
func Units(bytes int64) int {
	bytes = min(max(bytes, unitBytes), MaxWeight*unitBytes) // before adding, which might overflow
	return int((bytes + unitBytes/2) / unitBytes)
}

// accept copies the members, ordered by ID, if they make a ring. Here is
// stopped what would make the library panic or hang: it doubles the points of
// a member that is there twice, and dies when one of the two leaves.
func accept(members []Member) ([]Member, error) {
	if len(members) == 0 {
		return nil, fmt.Errorf("%w: there are none", ErrMembers)
	}
	if len(members) > MaxMembers {
		return nil, fmt.Errorf("%w: %d are more than %d", ErrMembers, len(members), MaxMembers)
	}
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	for i, m := range members {
		if err := m.check(); err != nil {
			return nil, err
		}
		if i > 0 && m.ID == members[i-1].ID {
			return nil, fmt.Errorf("%w: %q is there twice", ErrMembers, m.ID)
		}
	}
	return members, nil
}

func (m Member) check() error {
	switch {
	case m.ID == "":
		return fmt.Errorf("%w: one has no id", ErrMembers)
	case len(m.ID) > MaxID:
		return fmt.Errorf("%w: an id has %d bytes, more than %d", ErrMembers, len(m.ID), MaxID)
	case strings.ContainsFunc(m.ID, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == separator }):
		return fmt.Errorf("%w: the id %q has other than visible ASCII, or a %q", ErrMembers, m.ID, separator)
	case m.Weight < 1 || m.Weight > MaxWeight:
		return fmt.Errorf("%w: %q has %d units, not 1 to %d", ErrMembers, m.ID, m.Weight, MaxWeight)
	}
	return nil
}

// separator stands between a member's id and the number of its unit. No id
// has it, so no member's unit is named as another's.
const separator = '#'

// A unit is a part of a member: what the library takes for one of its members,
// since it knows no weights.
type unit struct {
	name   string
	member int // its index in the table
}

// String is the name by which the library places the unit.
func (u unit) String() string { return u.name }

// split makes the members' units.
func split(members []Member) []unit {
	var units []unit
	halvings := halve(members)
	for i, m := range members {
		for n := range scaled(m.Weight, halvings) {
			units = append(units, unit{fmt.Sprintf("%s%c%d", m.ID, separator, n), i})
		}
	}
	return units
}

// halve tells how often all weights must be halved until the units are at most
// maxUnits, if they can be. Large disks make many units: a mesh beyond 80 TB
// keeps the proportions with fewer, but for its smallest members, which keep
// one. The one join that crosses the limit moves half the keys. To scale a
// little at each join would move more in sum, and each time a member restarts.
func halve(members []Member) int {
	halvings := 0
	for ; MaxWeight>>halvings > 1; halvings++ {
		sum := 0
		for _, m := range members {
			sum += scaled(m.Weight, halvings)
		}
		if sum <= maxUnits {
			break
		}
	}
	return halvings
}

// scaled is the weight after some halvings, rounded up: everybody keeps a unit.
func scaled(weight, halvings int) int { return (weight-1)>>halvings + 1 }

// sign hashes all that decides who owns what. Each string goes in behind its
// length, so that no two sets look alike.
func sign(members []Member) uint64 {
	var b []byte
	str := func(s string) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	str(algorithm)
	for _, v := range []uint64{partitions, replicas, math.Float64bits(load), maxUnits, Depth} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, m := range members {
		str(m.ID)
		b = binary.LittleEndian.AppendUint32(b, uint32(m.Weight))
	}
	return xxhash.Sum64(b)
}
