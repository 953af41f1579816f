package directory

import "slices"

// stale lists, for each partition, the owners whose sessions cover it though they do not own it
// any more. Such an owner may not know yet that it is none, or be one again. It has no lock; the
// Outbox guards it.
type stale map[uint16][]*box

// add notes that the box's session covers the partition, which its owner does not own any more.
func (s stale) add(partition uint16, b *box) { s[partition] = append(s[partition], b) }

// take takes out the partition of the box. It reports whether the box's session covers it.
func (s stale) take(partition uint16, b *box) (covered bool) {
	boxes := s[partition]
	i := slices.Index(boxes, b)
	if i < 0 {
		return false
	}
	s.set(partition, slices.Delete(boxes, i, i+1))
	return true
}

// drop takes out all partitions of those boxes.
func (s stale) drop(those map[*box]bool) {
	if len(those) == 0 {
		return
	}
	for p, boxes := range s {
		s.set(p, slices.DeleteFunc(boxes, func(b *box) bool { return those[b] }))
	}
}

func (s stale) set(partition uint16, boxes []*box) {
	if len(boxes) == 0 {
		delete(s, partition)
		return
	}
	s[partition] = boxes
}

// size is how many partitions are listed, each for each of its owners.
func (s stale) size() (n int) {
	for _, boxes := range s {
		n += len(boxes)
	}
	return n
}
