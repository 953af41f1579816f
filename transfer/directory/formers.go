package directory

import "slices"

// formers lists, for each partition, the owners whose sessions cover it though they do not own it
// any more. Such an owner may not know yet that it is none, or be one again. It has no lock; the
// Outbox guards it.
type formers map[uint16][]*box

// add notes that the box's session covers the partition, which its owner does not own any more.
func (f formers) add(partition uint16, b *box) { f[partition] = append(f[partition], b) }

// take takes out the partition of the box. It reports whether the box's session covers it.
func (f formers) take(partition uint16, b *box) (covered bool) {
	boxes := f[partition]
	i := slices.Index(boxes, b)
	if i < 0 {
		return false
	}
	f.set(partition, slices.Delete(boxes, i, i+1))
	return true
}

// drop takes out all partitions of those boxes.
func (f formers) drop(those map[*box]bool) {
	if len(those) == 0 {
		return
	}
	for p, boxes := range f {
		f.set(p, slices.DeleteFunc(boxes, func(b *box) bool { return those[b] }))
	}
}

func (f formers) set(partition uint16, boxes []*box) {
	if len(boxes) == 0 {
		delete(f, partition)
		return
	}
	f[partition] = boxes
}

// size is how many partitions are listed, each for each of its owners.
func (f formers) size() (n int) {
	for _, boxes := range f {
		n += len(boxes)
	}
	return n
}
