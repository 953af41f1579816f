package feed

import (
	"slices"
	"time"
)

const (
	// Soon is the shortest time between two words of a node to the root. A node tells often while
	// it is new in its place, and while less comes to it than to others: till it is placed well
	// it loses what they get.
	Soon = 100 * time.Millisecond
	// Every is the longest time between two words.
	Every = 2 * time.Second
	// share is what each seat adds to the shortest time, so that the root of many nodes hears no
	// more than 4,000 words a second.
	share = 250 * time.Microsecond
	// silent is after how long nothing counts any more that a node told.
	silent = 3 * Every
	// enough is the part of what others get below which a node is slow.
	enough = 0.3
	// worth is how long what a slow node lacks has to take: with less to come, leaving brings little.
	worth = time.Second
	// lack is how many bytes a feeder must have that a slow node has not: on a busy machine
	// nodes get little for a moment, and go on. For one that stands still it is little.
	lack   = 16 << 20
	little = 1 << 20
	// pinch is the part of its own speed below which a feeder holds up a node.
	pinch = 0.7
	// A node to which no more than stillRate bytes a second came for stillFor stands still,
	// whatever others get.
	stillFor  = 5 * Every
	stillRate = 32 << 10
	// maxTries is how many feeders a node leaves because little comes from them: where that is
	// so everywhere, it is the node.
	maxTries = 2
	// maxMoves is how often a node is told to leave, for whatever reason. Then the root feeds it.
	maxMoves = 8
	// maxSwaps is how many nodes that the root feeds give way to another, see swap, while
	// swapFor bytes are to come at least.
	maxSwaps = 2
	swapFor  = 64 << 20
)

// A course is how it goes with a seat, as far as the root was told.
type course struct {
	placed time.Time
	told   time.Time // when its member told last; zero: not since it was placed
	came   int64     // bytes, then
	rate   float64   // bytes a second, between the last two words
	rated  bool      // that was at the place where it is now
	moving time.Time // when it last did not stand still
	slow   bool      // far less comes to it than to others, though its feeder has more
	slowAt *seat     // the feeder that it left for that
	tries  int       // how many it left for that
	leaves bool      // it was told to leave its feeder
	moves  int       // how often it was
}

// begin notes that the seat has another place.
func (c *course) begin(now time.Time) {
	c.placed, c.told, c.moving, c.rated, c.leaves = now, time.Time{}, now, false, false
}

// hear notes how many bytes came. It reports whether that tells a new speed.
func (c *course) hear(came int64, now time.Time) bool {
	took := now.Sub(c.told)
	switch {
	case c.told.IsZero():
		c.came, c.told = came, now
		return false
	case took < Soon/2: // too short to tell, unless it is the last word
		c.came = max(c.came, came)
		return false
	}
	c.rate, c.rated = max(0, float64(came-c.came)/took.Seconds()), true
	if c.came, c.told = came, now; c.rate > stillRate {
		c.moving = now
	}
	return true
}

// leave tells the seat's member to leave its feeder, unless that is the root for good.
func (s *seat) leave() {
	if !s.stays {
		s.leaves = true
		s.moves++
	}
}

// Told hears from a member that its seat of that number has came bytes by now, of those that
// the root can send. It returns whether the member is to leave its feeder and to ask the root
// anew, and else when it is to tell again.
func (t *Tree) Told(id string, number int, came, root int64, now time.Time) (leave bool, next time.Duration) {
	s := t.at(id, number)
	if s == nil {
		return false, Every
	}
	t.seats[0].came = root
	t.pace.words++
	soon := max(Soon, time.Duration(len(t.seats))*share)
	switch {
	case !s.hear(min(max(came, 0), root), now):
		return s.leaves, Soon
	case s.leaves || !t.judge(s, now) && !s.stays:
		return s.leaves, soon
	default:
		return s.leaves, min(max(soon, now.Sub(s.placed)/2), Every)
	}
}

// judge decides whether s is to leave its feeder. What counts is the stream between the two:
// if the feeder has more and does well itself, and far less comes to s than to others, one of
// them is slow. If the feeder does no better, it waits as s does, and whoever holds both up is
// found further up. judge reports whether s has what it can get, as far as is known.
func (t *Tree) judge(s *seat, now time.Time) (settled bool) {
	p, still, least := s.feeder, now.Sub(s.moving) >= stillFor, int64(lack)
	if still {
		least = little
	}
	switch {
	case p.slow && s.rate <= p.rate && (!s.slow || s.tries < maxTries):
		if s.slow {
			s.tries++
		}
		s.leave()
	case !still && !t.behind(s, now):
		s.well()
		t.swap(s)
		return true
	case p.leaf || t.lost(p, now):
		s.slow = false
		s.leave()
	case t.waits(p, now) || p.came-s.came < least:
	case s.stays: // the root is the last that feeds it
		s.slow = true
		return true
	default:
		s.slow = true
		if slices.ContainsFunc(p.feeds, func(c *seat) bool { return c != s && c.rated && !c.slow && !t.behind(c, now) }) {
			return true // its feeder does well by another
		}
		if s.tries >= maxTries && !still {
			s.slowAt = nil // all can't be slow
			return true
		}
		s.slowAt = p
		s.tries++
		s.leave()
	}
	return false
}

// well notes that s gets what others do. If it did not at another feeder, that one is slow.
func (s *seat) well() {
	if at := s.slowAt; at != nil && at != s.feeder && at.number != 0 {
		at.leaf = true
	}
	s.slow, s.slowAt = false, nil
}

// behind reports whether far less comes to s than to others: to many, to those that its feeder
// feeds, or to the feeder itself.
func (t *Tree) behind(s *seat, now time.Time) bool {
	most := t.others(now)
	if s.feeder.number != 0 {
		most = max(most, s.feeder.rate)
	}
	for _, c := range s.feeder.feeds {
		if c.rated && now.Sub(c.told) <= silent {
			most = max(most, c.rate)
		}
	}
	return s.rate < enough*most && float64(t.seats[0].came-s.came) > s.rate*worth.Seconds()
}

// part reports whether p is a seat that has not all the root can send.
func (t *Tree) part(p *seat) bool { return p.number != 0 && p.came < t.seats[0].came }

// waits reports whether p may be waiting for its own feeder.
func (t *Tree) waits(p *seat, now time.Time) bool {
	return t.part(p) && (!p.rated || t.behind(p, now))
}

// lost reports whether nothing is heard any more of p, which had not all.
func (t *Tree) lost(p *seat, now time.Time) bool {
	return t.part(p) && now.Sub(p.placed) > silent && now.Sub(p.told) > silent
}

// A pace is the speed that others get, as it was when it was last looked at.
type pace struct {
	speed float64
	at    time.Time
	words int // that have come since
}

// others is the speed that others get: that of the third fastest where there are many, so that one
// or two members which tell what is not true change little. It is looked at anew when a
// sixteenth of the seats have told something, so that a word costs the same in a tree of any size.
func (t *Tree) others(now time.Time) float64 {
	if p := t.pace; p.words >= len(t.seats)/16 || now.Sub(p.at) >= Soon {
		t.pace = pace{speed: t.third(now), at: now}
	}
	return t.pace.speed
}

// third is the speed of the third fastest of many seats, of the fastest of few.
func (t *Tree) third(now time.Time) float64 {
	var top [3]float64
	n := 0
	for _, s := range t.seats[1:] {
		if !s.rated || now.Sub(s.told) > silent {
			continue
		}
		n++
		rate := s.rate
		for i := range top {
			top[i], rate = max(top[i], rate), min(top[i], rate)
		}
	}
	return top[min(n/8, len(top)-1)]
}

// swap puts s in the place of its feeder if the root feeds that one, and all that the root
// feeds do equally well, but hold up those that they feed. Either the root's link is faster than
// any other, or it feeds slow nodes only, and nobody shows how fast the others are.
func (t *Tree) swap(s *seat) {
	p, root := s.feeder, t.seats[0]
	if p.feeder != root || p.leaves || p.stays || t.swaps >= maxSwaps || root.came-s.came < swapFor {
		return
	}
	for _, c := range root.feeds {
		if !c.holdsUp() || min(c.rate, p.rate) < enough*max(c.rate, p.rate) {
			return
		}
	}
	t.swaps++
	p.release()
	p.slow = true
	p.leave()
	s.leave()
}

// holdsUp reports whether the seat holds up all that it feeds, as far as is known.
func (s *seat) holdsUp() bool {
	known := false
	for _, c := range s.feeds {
		if c.rated && (c.rate >= pinch*s.rate || s.came-c.came < little) {
			return false
		}
		known = known || c.rated
	}
	return known && s.rated
}
