package directory

import (
	"cmp"
	"slices"
)

// stale lists partitions that sessions of owners cover which do not own them any more, in order
// of the partitions. Such an owner may not know yet that it is none, or be one again. It has no
// lock; the Outbox guards it.
type stale []covers

// A covers says that a session of an owner covers a partition.
type covers struct {
	partition uint16
	by        *box
	session   uint64
}

// first returns where what is said of the partition begins.
func (s stale) first(partition uint16) int {
	i, _ := slices.BinarySearchFunc(s, partition, func(c covers, p uint16) int { return cmp.Compare(c.partition, p) })
	return i
}

// of returns what is said of the partition.
func (s stale) of(partition uint16) stale {
	i := s.first(partition)
	end := i
	for end < len(s) && s[end].partition == partition {
		end++
	}
	return s[i:end]
}

// add notes that the box's session covers the partition, which its owner does not own any more.
func (s *stale) add(partition uint16, b *box) {
	*s = slices.Insert(*s, s.first(partition), covers{partition, b, b.session})
}

// take takes out what is said of the partition and the box. It reports whether the box's
// session covers it.
func (s *stale) take(partition uint16, b *box) (covered bool) {
	i := s.first(partition)
	for i < len(*s) && (*s)[i].partition == partition {
		if c := (*s)[i]; c.by != b {
			i++
			continue
		} else if c.session == b.session {
			covered = true
		}
		*s = slices.Delete(*s, i, i+1)
	}
	return covered
}

// drop takes out all that is said of those boxes, or just of their sessions before.
func (s *stale) drop(those map[*box]bool, before bool) {
	if len(*s) > 0 && len(those) > 0 {
		*s = slices.DeleteFunc(*s, func(c covers) bool { return those[c.by] && !(before && c.session == c.by.session) })
	}
}
