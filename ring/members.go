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

// The limits of New and Next.
const (
	MaxMembers = 2000    // building them takes 10 s; twice as many would take 40 s
	MaxWeight  = 32      // units
	MaxID      = 128     // bytes
	MaxSize    = 1 << 24 // a PiB
)

// maxUnits bounds the units of all members together, unless there are more
// members than that. Beyond it, a join moves more than 1.3 times the keys that
// it must, and building a ring takes seconds.
const maxUnits = 800

// unitBytes is the disk space that a unit stands for. It is absolute, so a node
// knows its own weight without knowing the others.
const unitBytes = 100 << 30

// ErrMembers means that the members can't make a ring. The error that wraps it
// says why.
var ErrMembers = errors.New("the members can't make a ring")

// A Member is a node as the ring sees it.
type Member struct {
	// ID is unique in the mesh and never changes: 1 to MaxID bytes of visible
	// ASCII, without '#'.
	ID string
	// Weight sets the member's share of the keys, in units from 1 to MaxWeight, if
	// a member's size is not known. See Units.
	Weight int
	// Size is what the member's cache may take, from 1 to MaxSize, or 0 if that is
	// not known. If all members have one, their shares follow it. See Size.
	Size int
}

// sizeBytes is the disk space that 1 stands for in a member's size.
const sizeBytes = 64 << 20

// unboundedBytes is what a cache without a bound counts as.
const unboundedBytes = 100 << 30

// Size returns the size of a node whose cache may take that many bytes; 0: it has no
// bound, and counts as 100 GiB.
func Size(bytes int64) int {
	if bytes <= 0 {
		bytes = unboundedBytes
	}
	return int(max((min(bytes, MaxSize*sizeBytes)+sizeBytes/2)/sizeBytes, 1))
}

// sized reports whether the shares follow the sizes: all members have one.
func sized(members []Member) bool {
	return !slices.ContainsFunc(members, func(m Member) bool { return m.Size == 0 })
}

// Units returns the weight of a node whose cache may take that many bytes: one
// unit for each 100 GiB, rounded, from 1 to MaxWeight.
func Units(bytes int64) int {
	bytes = min(max(bytes, unitBytes), MaxWeight*unitBytes) // before adding, which might overflow
	return int((bytes + unitBytes/2) / unitBytes)
}

// accept returns a copy of the members, ordered by ID, if they make a ring. It
// stops what would make the library panic or hang: of a member listed twice, the
// library doubles the points, and panics when one of the two leaves.
func accept(members []Member) ([]Member, error) {
	if len(members) == 0 {
		return nil, fmt.Errorf("%w: there are no members", ErrMembers)
	}
	if len(members) > MaxMembers {
		return nil, fmt.Errorf("%w: there are %d, more than %d", ErrMembers, len(members), MaxMembers)
	}
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	for i, m := range members {
		if err := m.check(); err != nil {
			return nil, err
		}
		if i > 0 && m.ID == members[i-1].ID {
			return nil, fmt.Errorf("%w: %q is listed twice", ErrMembers, m.ID)
		}
	}
	return members, nil
}

func (m Member) check() error {
	switch {
	case m.ID == "":
		return fmt.Errorf("%w: a member has no id", ErrMembers)
	case len(m.ID) > MaxID:
		return fmt.Errorf("%w: an id has %d bytes, more than %d", ErrMembers, len(m.ID), MaxID)
	case strings.ContainsFunc(m.ID, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == separator }):
		return fmt.Errorf("%w: the id %q must be visible ASCII without %q", ErrMembers, m.ID, separator)
	case m.Weight < 1 || m.Weight > MaxWeight:
		return fmt.Errorf("%w: %q has a weight of %d; it must be 1 to %d", ErrMembers, m.ID, m.Weight, MaxWeight)
	case m.Size < 0 || m.Size > MaxSize:
		return fmt.Errorf("%w: %q has a size of %d; it must be 0 to %d", ErrMembers, m.ID, m.Size, MaxSize)
	}
	return nil
}

// separator stands between a member's id and the number of its unit. No id
// contains it, so units of different members have different names.
const separator = '#'

// A unit is a part of a member. The library knows no weights, so to the library
// each unit is a member.
type unit struct {
	name   string
	member int // its index in the table
}

// String returns the name by which the library places the unit.
func (u unit) String() string { return u.name }

// split returns the members' units: one each if the shares follow the sizes.
func split(members []Member) []unit {
	var units []unit
	one, halvings := sized(members), halve(members)
	for i, m := range members {
		weight := scaled(m.Weight, halvings)
		if one {
			weight = 1
		}
		for n := range weight {
			units = append(units, unit{fmt.Sprintf("%s%c%d", m.ID, separator, n), i})
		}
	}
	return units
}

// halve returns how often all weights must be halved until there are at most
// maxUnits units, if that is possible. A mesh beyond 80 TB keeps its proportions
// with fewer units, except that its smallest members keep one unit each. The one
// join that crosses the limit moves half the keys. Scaling a little at each join
// would move more in sum, and would do so each time a member restarts.
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

// scaled returns the weight after the halvings, rounded up: every member keeps
// at least one unit.
func scaled(weight, halvings int) int { return (weight-1)>>halvings + 1 }

// sign hashes everything that decides who owns what. Each string is preceded by
// its length, so two different sets never look alike.
func sign(members []Member) uint64 {
	var b []byte
	str := func(s string) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	str(algorithm)
	bySize := sized(members)
	if bySize {
		str(fitting)
	}
	for _, v := range []uint64{partitions, replicas, math.Float64bits(load), maxUnits, Depth} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, m := range members {
		str(m.ID)
		share := m.Weight
		if bySize {
			share = m.Size
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(share))
	}
	return xxhash.Sum64(b)
}
