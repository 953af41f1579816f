package directory

import (
	"slices"
	"time"
)

// A box is what one owner is to be told. Its session covers what the owner owns, without the
// gains, and what Outbox.former lists.
type box struct {
	boot    uint64
	up      bool
	earlier bool   // it is of a version that knows no coverage: all is told when the ring changes
	session uint64 // in which it is told; 0: none that counts
	next    uint32
	ring    uint64    // hash of the ring when the session began
	all     bool      // it is to be told all, in another session
	gains   []uint16  // partitions that have become its own: it is to be told of them; in order
	due     time.Time // when it is told all, or of the gains
	waits   time.Time // since when it waits for that
	pause   time.Duration
	telling uint64         // the session in which it is being told, 0 if it is not
	begins  bool           // all is told in that
	part    bool           // not all that this node holds was known when it was told
	changes map[Key]string // blobs that came or went, as they were noted
	since   time.Time      // of the first of the changes
}

// owe makes the owner be told all at that time, or earlier if that was due. Until then it is
// told of changes.
func (b *box) owe(due time.Time) {
	if !b.all || due.Before(b.due) {
		b.all, b.due = true, due
	}
}

// lost notes that the session counts no more: the owner is told nothing until it is told all, at
// that time.
func (b *box) lost(due time.Time) {
	b.session, b.all, b.due, b.part, b.changes, b.gains = 0, true, due, false, nil, nil
	b.waits = time.Now()
}

// wait makes an owner that counts on nothing yet, or has gained something, be told at that time: the
// ring has changed, and may change again, and give it more, or take that.
func (b *box) wait(due time.Time) {
	if b.session != 0 && (b.all || len(b.gains) == 0) || b.pause > 0 {
		return
	}
	b.due = due
	if last := b.waits.Add(restFor); last.Before(due) {
		b.due = last
	}
}

// counts reports whether the owner counts on what its session covers. b may be nil.
func (b *box) counts() bool { return b != nil && b.session != 0 && !b.earlier }

// gain notes that a partition has become the owner's, which is told of it at that time.
func (b *box) gain(partition uint16, due time.Time) {
	if b.part { // which is not told of partitions
		b.owe(due)
		return
	}
	if len(b.gains) == 0 {
		b.waits = time.Now()
	}
	i, _ := slices.BinarySearch(b.gains, partition)
	b.gains = slices.Insert(b.gains, i, partition)
}

// lose reports whether the partition was one of the gains, of which the owner was not told. It is
// none any more.
func (b *box) lose(partition uint16) bool {
	i, is := slices.BinarySearch(b.gains, partition)
	if is {
		b.gains = slices.Delete(b.gains, i, i+1)
	}
	return is
}

// allDue reports whether the owner is to be told all now, or what it has gained.
func (b *box) allDue(now time.Time) bool { return (b.all || len(b.gains) > 0) && !now.Before(b.due) }

// left returns how long it is until the owner is to be told something. It reports false if it is not.
func (b *box) left(now time.Time) (left time.Duration, is bool) {
	if b.all || len(b.gains) > 0 {
		left, is = b.due.Sub(now), true
	}
	if len(b.changes) > 0 {
		if gathered := b.since.Add(gatherFor).Sub(now); !is || gathered < left {
			left, is = gathered, true
		}
	}
	return left, is
}
