package ring

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// A point is one of a unit's places on the circle of hashes.
type point struct {
	at   uint64
	unit int // its index
}

// circle is all the units' points in order, where the library has them.
func circle(units []unit) ([]point, error) {
	points := make([]point, 0, len(units)*replicas)
	var key []byte
	for i, u := range units {
		for n := range replicas {
			key = strconv.AppendInt(key[:0], int64(n), 10)
			key = append(append(key, ':'), u.name...)
			points = append(points, point{xxhash.Sum64(key), i})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.at, b.at) })
	for i := range points[1:] {
		// By chance in one of 10^9 meshes, but ids can be made for it. The
		// library would panic once one of the two leaves.
		if a, b := points[i], points[i+1]; a.at == b.at {
			return nil, fmt.Errorf("%w: %q and %q meet on the circle", ErrMembers, units[a.unit].name, units[b.unit].name)
		}
	}
	return points, nil
}

// fill gives each partition its owner, as the library assigned it, and the two
// next: the member that takes it over when the owner leaves, and the one that
// does when both have.
//
// The library's GetClosestN is not that: it names the same successor for all
// partitions of an owner, and among 100 members in 99 of 100 cases the wrong
// one. The library takes the partitions one after the other; each goes to the
// first unit clockwise that has room left. So the walk counts each unit's
// partitions as the library does, and looks for room as there will be without
// the owner; to overlook who is full would make up to three more guesses in a
// hundred wrong. That the owner's earlier partitions take some of the room is
// not in the count, and costs one or two (TestFigures).
func (t *table) fill(units []unit, points []point, assigned []int) {
	weights := make([]int, len(t.members))
	for _, u := range units {
		weights[u.member]++
	}
	w := walk{units: units, points: points, taken: make([]int, len(units))}
	for p, u := range assigned {
		owner := units[u].member
		w.room = limit(len(units) - weights[owner])
		t.owners[p] = w.from(p, owner, min(Depth, len(t.members)))
		t.owned[owner]++
		w.taken[u]++
	}
}

// limit is the library's bound of a unit's partitions.
func limit(units int) int { return int(math.Ceil(float64(partitions) / float64(units) * load)) }

// A walk goes clockwise on the circle.
type walk struct {
	units  []unit
	points []point
	taken  []int // partitions that each unit has so far
	room   int   // how many it may have
}

// from starts at the partition's place and tells the owner and who comes next,
// want members in all.
func (w *walk) from(partition, owner, want int) (found [Depth]uint16) {
	found[0] = uint16(owner)
	n := 1
	start := w.start(partition)
	// Where too few have room, the second time around all are welcome.
	for _, full := range []bool{false, true} {
		for i := 0; i < len(w.points) && n < want; i++ {
			u := w.points[(start+i)%len(w.points)].unit
			m := uint16(w.units[u].member)
			if (full || w.taken[u] < w.room) && !slices.Contains(found[:n], m) {
				found[n] = m
				n++
			}
		}
	}
	return found
}

// start is the first point at or behind the partition's place.
func (w *walk) start(partition int) int {
	at := xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, uint64(partition)))
	i, _ := slices.BinarySearchFunc(w.points, at, func(p point, at uint64) int { return cmp.Compare(p.at, at) })
	return i
}
