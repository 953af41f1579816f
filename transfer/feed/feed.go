// Package feed decides which way a large blob takes over the nodes of a cluster.
//
// The node that gives a blob to all others, its root here, would send it once to each.
// Instead it feeds two of them, and sends the next on to one that is getting the blob, or
// has it by now: that one feeds it. So every node sends a blob twice at most, however many
// want it at once. There are no pieces and no tracker: the root decides alone, since each
// node asks it first, and who finds no good with its feeder comes back to it.
//
// Each node tells the root how far it is, and hears when to tell again and whether to leave
// its feeder: the root alone sees which of two nodes is slow, and which just waits (judge.go).
//
// A [Tree] is what the root knows of one blob; it does no I/O. [Trees] keeps one for each
// blob that spreads.
//
// No node may wait for one that waits for it. The rules that see to it:
//
//   - A seat stands for one download of one node, which has one feeder at a time. The root
//     places a seat only when it is asked by its node, which has left its former feeder.
//   - The root places no seat below itself: it looks at all places that it ever gave.
//   - A node feeds another only by the seat that the root named. When its download gives the
//     seat up, for another tree or for a source outside, those that it feeds are cut off.
//
// So all who wait for each other have seats in one tree, in the order of its root.
package feed

import (
	"slices"
	"time"
)

const (
	// Least is the size of a blob below which the root feeds all itself: sending on costs
	// a round trip.
	Least = 8 << 20
	// fanout is how many a node feeds.
	fanout = 2
	// maxSeats bounds the seats of a tree. Beyond, the root feeds.
	maxSeats = 8192
	// maxAnew is how many seats a member may have of a tree, one after the other. Beyond, the
	// root feeds it.
	maxAnew = 8
	// maxBlamed is how many members one member may make feed no more by saying that they could
	// not feed it.
	maxBlamed = 4
	// maxNot is how many members an asker may not want: those that it names last.
	maxNot = 16
)

// A Feeder is who feeds a seat. The zero value is the root.
type Feeder struct {
	ID   string // the member's
	Seat int    // its number
}

// An Asker is a node that asks the root for the blob.
type Asker struct {
	ID     string // the member's
	Zone   string
	Seat   int                  // the number that it has, 0 for none yet
	Not    []string             // members that could not feed it, or were slow
	Here   bool                 // only the root will do
	Usable func(id string) bool // whether a member can be asked now, as far as the root knows
}

// A Tree is what the root of a blob knows of those that get it. It is for one goroutine at
// a time.
type Tree struct {
	seats  []*seat // by number; 0 is the root's own
	latest map[string]*seat
	swaps  int // of nodes that the root feeds, see swap
	pace   pace
}

// A seat is one download at one node.
type seat struct {
	id, zone string
	number   int
	feeder   *seat   // nil: nobody yet
	feeds    []*seat // those that it feeds, or fed to the end
	leaf     bool    // it is to feed no more
	stays    bool    // the root feeds it to the end
	anew     int     // seats that its member had before
	blamed   int     // feeders that its member said could not feed it
	course
}

// NewTree returns the tree of a root in that zone.
func NewTree(zone string) *Tree {
	return &Tree{seats: []*seat{{zone: zone}}, latest: map[string]*seat{}}
}

// Full reports whether no more seats can be given.
func (t *Tree) Full() bool { return len(t.seats) >= maxSeats }

// Place gives the asker a seat, or keeps the one it has, and says who feeds it. A feeder that
// could not feed it feeds nobody new from now on: it may be the link, but others are there.
// The number is 0 if the root is to feed the asker, and to know no more of it.
func (t *Tree) Place(a Asker, now time.Time) (number int, by Feeder) {
	a.Not = a.Not[max(0, len(a.Not)-maxNot):]
	s := t.seat(a)
	if s == nil {
		return 0, Feeder{}
	}
	if p := s.feeder; p != nil && !s.leaves && s.blamed < maxBlamed && slices.Contains(a.Not, p.id) {
		p.leaf = true
		s.blamed++
	}
	s.release()
	s.feeder = nil
	best := t.seats[0]
	if s.stays = a.Here || s.moves >= maxMoves; !s.stays {
		for _, slow := range []bool{false, true} {
			if by := t.best(s, a, slow); by != nil {
				best = by
				break
			}
		}
	}
	s.feeder = best
	best.feeds = append(best.feeds, s)
	s.begin(now)
	return s.number, Feeder{best.id, best.number}
}

// seat returns the asker's seat, a new one if it has none that the root knows, nil if it had
// too many.
func (t *Tree) seat(a Asker) *seat {
	if s := t.at(a.ID, a.Seat); s != nil {
		return s
	}
	s := &seat{id: a.ID, zone: a.Zone, number: len(t.seats)}
	if former := t.latest[a.ID]; former != nil { // of a download that ended, or goes on beside this one
		former.leaf = true
		former.release()
		s.anew, s.blamed, s.tries = former.anew+1, former.blamed, former.tries
	}
	if s.anew >= maxAnew {
		return nil
	}
	t.seats = append(t.seats, s)
	t.latest[a.ID] = s
	return s
}

// at returns the seat of that number if it is that member's, else nil.
func (t *Tree) at(id string, number int) *seat {
	if number > 0 && number < len(t.seats) && t.seats[number].id == id {
		return t.seats[number]
	}
	return nil
}

// best returns who is to feed s, nil if nobody can. Slow ones are asked for where there are no
// others: s will leave them when there are.
func (t *Tree) best(s *seat, a Asker, slow bool) (best *seat) {
	for _, c := range t.seats {
		switch {
		case c.leaf, c.slow != slow, len(c.feeds) >= fanout, c.id == s.id, slices.Contains(a.Not, c.id):
		case c.number == 0 && s.slow: // the root feeds those that pass it on
		case best != nil && !better(c, best, s.zone), t.below(c, s), c.number != 0 && !a.Usable(c.id):
		default:
			best = c
		}
	}
	return best
}

// better reports whether c, which has the higher number, is to feed a node of that zone
// rather than b. Streams between zones are dear, so a node of the zone comes first. Where
// there is none, one that does not feed another zone yet: its own zone needs it too. Then
// the root, and who is furthest.
func better(c, b *seat, zone string) bool {
	if x, y := class(c, zone), class(b, zone); x != y {
		return x < y
	}
	return b.number != 0 && c.came > b.came
}

// class orders feeders by what a stream from there to the zone costs.
func class(s *seat, zone string) int {
	switch {
	case s.zone == zone:
		return 0
	case !slices.ContainsFunc(s.feeds, func(c *seat) bool { return c.zone != s.zone }):
		return 1
	default:
		return 2
	}
}

// below reports whether c is s, or gets the blob by way of it.
func (*Tree) below(c, s *seat) bool {
	for ; c != nil; c = c.feeder {
		if c == s {
			return true
		}
	}
	return false
}

// release lets the feeder of s feed another in its stead.
func (s *seat) release() {
	if p := s.feeder; p != nil {
		p.feeds = slices.DeleteFunc(p.feeds, func(c *seat) bool { return c == s })
	}
}
