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

// A point is one of a unit's positions on the circle of hashes.
type point struct {
	at   uint64
	unit int // its index among the units
}

// circle returns the points of all units in order, where the library has them.
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
		// By chance this happens in one of 10^9 meshes, but ids can be chosen so
		// that it does. The library would panic once one of the two leaves.
		if a, b := points[i], points[i+1]; a.at == b.at {
			return nil, fmt.Errorf("%w: %q and %q have the same place on the circle", ErrMembers, units[a.unit].name, units[b.unit].name)
		}
	}
	return points, nil
}

// fill gives each partition the owner that the library assigned, and the next
// two: the member that takes over when the owner leaves, and the one that takes
// over when both have left.
//
// The library's GetClosestN does not say that: it names the same successor for
// all partitions of an owner, which among 100 members is wrong in 99 of 100
// cases. The library takes the partitions one by one and gives each to the first
// unit clockwise that has room left. So the walk counts each unit's partitions
// as the library does, with the room that there will be without the owner.
// Ignoring full units would make up to three more guesses in a hundred wrong.
// The count ignores that the owner's earlier partitions will take some of the
// room, which makes one or two in a hundred wrong (TestFigures).
func (r *Ring) fill(units []unit, points []point, assigned []int) {
	weights := make([]int, len(r.members))
	for _, u := range units {
		weights[u.member]++
	}
	w := walk{units: units, points: points, taken: make([]int, len(units))}
	if sized(r.members) {
		w.fit = newFit(r.members, assigned)
	}
	for p, u := range assigned {
		owner := units[u].member
		w.room = limit(len(units) - weights[owner])
		if w.fit != nil {
			r.owners[p] = w.fitted(p, owner, min(Depth, len(r.members)))
		} else {
			r.owners[p] = w.from(p, owner, min(Depth, len(r.members)))
		}
		r.owned[r.owners[p][0]]++
		w.taken[u]++
	}
}

// limit returns the library's bound on the partitions of a unit.
func limit(units int) int { return int(math.Ceil(float64(partitions) / float64(units) * load)) }

// A walk goes clockwise on the circle.
type walk struct {
	units  []unit
	points []point
	taken  []int // the partitions that each unit has so far
	room   int   // the partitions that a unit may have
	fit    *fit  // nil: the shares don't follow sizes
}

// fitted does what from does where shares follow sizes: whoever comes next on the circle
// may let the partition go. chosen is the member that the library chose.
func (w *walk) fitted(partition, chosen, want int) (found [Depth]uint16) {
	found[0] = uint16(w.fit.owner[partition])
	for n := 1; n < want; n++ {
		next := chosen
		if slices.Contains(found[:n], uint16(chosen)) {
			next = int(w.next(w.start(partition), found[:n]))
		}
		found[n] = uint16(w.fit.instead(partition, next, found[:n]))
	}
	return found
}

// next returns the first member from that point on that is not among found, and has room
// if possible.
func (w *walk) next(start int, found []uint16) uint16 {
	for _, full := range []bool{false, true} {
		for i := range w.points {
			u := w.points[(start+i)%len(w.points)].unit
			m := uint16(w.units[u].member)
			if (full || w.taken[u] < w.room) && !slices.Contains(found, m) {
				return m
			}
		}
	}
	return found[0] // never: more members are wanted than found
}

// from walks from the partition's place. It returns the owner and the next
// members, want in all.
func (w *walk) from(partition, owner, want int) (found [Depth]uint16) {
	found[0] = uint16(owner)
	n := 1
	start := w.start(partition)
	// If too few members have room, the second round accepts full ones.
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

// start returns the index of the first point at or after the partition's place.
func (w *walk) start(partition int) int {
	at := xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, uint64(partition)))
	i, _ := slices.BinarySearchFunc(w.points, at, func(p point, at uint64) int { return cmp.Compare(p.at, at) })
	return i
}
