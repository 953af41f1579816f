// Package feed decides which way a large blob takes over the nodes of a cluster.
//
// The node that gives a blob to all others, its root here, would send it once to each.
// Instead it feeds two of them, and sends the next on to one that is getting the blob, or
// has it by now: that one feeds it. So every node sends a blob twice at most, however many
// want it at once. There are no pieces and no tracker: the root decides alone, since each
// node asks it first, and who finds no good with its feeder comes back to it.
//
// A [Tree] is what the root knows of one blob; it does no I/O. [Trees] keeps one for each
// blob that spreads. [Leave] says when a node leaves a slow feeder.
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

import "time"

const (
	// Least is the size of a blob below which the root feeds all itself: sending on costs
	// a round trip.
	Least = 8 << 20
	// fanout is how many a node feeds.
	fanout = 2
	// Every is how often a node tells the root how far it is, and looks whether it is worse
	// off than others.
	Every = 2 * time.Second
	// rateFor is how long a rate that a node told counts.
	rateFor = 3 * Every
	// enough is the part of the speed of the best below which a feeder is slow.
	enough = 0.3
	// lag is how many bytes the root must be ahead for that.
	lag = 128 << 20
	// maxSeats bounds the seats of a tree. Beyond, the root feeds.
	maxSeats = 8192
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
	Not    []string             // members that could not feed it
	Here   bool                 // only the root will do
	Usable func(id string) bool // whether a member can be asked now, as far as the root knows
}

// A Tree is what the root of a blob knows of those that get it. It is for one goroutine at
// a time.
type Tree struct {
	seats  []*seat // by number; 0 is the root's own
	latest map[string]*seat
}

// A seat is one download at one node.
type seat struct {
	id, zone string
	number   int
	feeder   *seat // nil: the root's
	fed      int   // how many it feeds, or fed to the end
	away     int   // how many of those are in other zones
	leaf     bool  // it is to feed no more
	counts   bool  // it is among those that its feeder feeds
	came     int64 // bytes, when it last told
	told     time.Time
	rate     float64 // bytes a second, then
}

// NewTree returns the tree of a root in that zone.
func NewTree(zone string) *Tree {
	return &Tree{seats: []*seat{{zone: zone}}, latest: map[string]*seat{}}
}

// Full reports whether no more seats can be given.
func (t *Tree) Full() bool { return len(t.seats) >= maxSeats }

// Place gives the asker a seat, or keeps the one it has, and says who feeds it. Members that
// could not feed it feed nobody new from now on: it may be the link, but others are there.
func (t *Tree) Place(a Asker) (number int, by Feeder) {
	for _, id := range a.Not {
		if s := t.latest[id]; s != nil {
			s.leaf = true
		}
	}
	s := t.seat(a)
	t.detach(s)
	best := t.seats[0]
	if !a.Here {
		best = t.best(s, a.Usable)
	}
	t.attach(s, best)
	return s.number, Feeder{best.id, best.number}
}

// seat returns the asker's seat, a new one if it has none that the root knows.
func (t *Tree) seat(a Asker) *seat {
	if a.Seat > 0 && a.Seat < len(t.seats) && t.seats[a.Seat].id == a.ID {
		return t.seats[a.Seat]
	}
	if former := t.latest[a.ID]; former != nil { // of a download that ended, or goes on beside this one
		former.leaf = true
		t.release(former)
	}
	s := &seat{id: a.ID, zone: a.Zone, number: len(t.seats)}
	t.seats = append(t.seats, s)
	t.latest[a.ID] = s
	return s
}

// best returns who is to feed s: the root if nobody else can.
func (t *Tree) best(s *seat, usable func(string) bool) *seat {
	var best *seat
	for _, c := range t.seats {
		switch {
		case c.leaf, c.fed >= fanout, c.id == s.id, best != nil && !better(c, best, s.zone), t.below(c, s), c.number != 0 && !usable(c.id):
			continue
		}
		best = c
	}
	if best == nil {
		return t.seats[0]
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
	case s.away == 0:
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

// attach places s.
func (*Tree) attach(s, by *seat) {
	s.feeder, s.counts = by, true
	by.fed++
	if by.zone != s.zone {
		by.away++
	}
}

// detach takes s from its place.
func (t *Tree) detach(s *seat) {
	t.release(s)
	s.feeder = nil
}

// release lets the feeder of s feed another in its stead.
func (*Tree) release(s *seat) {
	if !s.counts {
		return
	}
	s.counts = false
	s.feeder.fed--
	if s.feeder.zone != s.zone {
		s.feeder.away--
	}
}

// Told hears how many bytes the seat of that number, of that member, has by now. It returns
// the speed in bytes a second of the fastest that told of late, 0 if nobody did.
func (t *Tree) Told(id string, number int, came int64, now time.Time) (best float64) {
	if number > 0 && number < len(t.seats) && t.seats[number].id == id {
		s := t.seats[number]
		if took := now.Sub(s.told); !s.told.IsZero() && took > 0 {
			s.rate = max(0, float64(came-s.came)/took.Seconds())
		}
		s.came, s.told = max(came, 0), now
	}
	for _, s := range t.seats {
		if now.Sub(s.told) <= rateFor {
			best = max(best, s.rate)
		}
	}
	return best
}

// Leave reports whether a node leaves its feeder: rate is its own speed, best that of the
// fastest, in bytes a second, and behind by how many bytes the root is ahead of it.
func Leave(rate, best float64, behind int64) bool { return rate < enough*best && behind > lag }
