package simulator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A Plan decides who feeds whom. Machines are numbered; 0 is the owner of the layer.
type Plan interface {
	// Place says who feeds a machine from now on. not are those that it left.
	Place(machine int, zone string, not []int, now time.Duration) (feeder int)
	// Told hears how many bytes a machine has by now, and how many the owner. It returns whether
	// the machine is to leave its feeder, and else when it is to tell again.
	Told(machine int, came, owner int64, now time.Duration) (leave bool, next time.Duration)
}

// A Spread is a layer that all machines but the owner ask for at about the same time.
type Spread struct {
	Seed     uint64
	Machines int
	Size     int64   // bytes of the layer
	Link     float64 // bytes a second of a machine's link, each way
	Slow     float64 // the part of the machines whose link is slow
	SlowLink float64
	Zones    int // that machines lie in, in turn
	Plan     Plan
}

// The times of a Spread.
const (
	arrivals = 200 * time.Millisecond // in which all ask
	asking   = time.Millisecond       // until the owner's answer is there
	grid     = 25 * time.Millisecond  // words are told at multiples of it, so that there are few moments
)

// Spreading is how a Spread went.
type Spreading struct {
	Median, LastFast, Last time.Duration // of all, of those with a fast link, of all
	Owner, Busiest         float64       // how often the owner, and who sent most, sent the layer
	Left                   int           // feeders that were left
	Told                   int           // words to the owner
	Crossed                float64       // how often the layer crossed between zones
}

// A taker is a machine that gets the layer.
type taker struct {
	next time.Duration // when it asks or tells
	asks bool          // it asks
	not  []int
	done time.Duration
	slow bool
}

// Run lets the layer spread.
func (s *Spread) Run() Spreading {
	f, takers := s.begin()
	out := Spreading{}
	for left, changed := s.Machines-1, true; left > 0; {
		if changed {
			f.flow()
		}
		next := f.until()
		for i := 1; i < s.Machines; i++ {
			if takers[i].done == 0 {
				next = min(next, takers[i].next-f.now)
			}
		}
		changed = f.pass(max(next, 0))
		for i := 1; i < s.Machines; i++ {
			t := &takers[i]
			switch {
			case t.done > 0:
			case f.machines[i].came >= f.size:
				t.done = f.now
				f.connect(i, none)
				s.Plan.Told(i, s.Size, s.Size, f.now)
				left, changed = left-1, true
			case t.next <= f.now:
				changed = s.turn(f, i, t, &out) || changed
			}
		}
	}
	s.judge(f, takers, &out)
	return out
}

// begin makes the machines. The owner's link is a fast one.
func (s *Spread) begin() (*fluid, []taker) {
	draw := rand.New(rand.NewPCG(s.Seed, 3))
	f := &fluid{size: float64(s.Size), machines: make([]machine, s.Machines)}
	takers := make([]taker, s.Machines)
	slow := draw.Perm(s.Machines - 1)[:int(s.Slow*float64(s.Machines))]
	for i := range f.machines {
		f.machines[i] = machine{up: s.Link, down: s.Link, feeder: none, zone: fmt.Sprint("zone-", i%max(1, s.Zones))}
		takers[i] = taker{next: time.Duration(draw.Int64N(int64(arrivals))), asks: true}
		if slices.Contains(slow, i-1) {
			takers[i].slow = true
			f.machines[i].up, f.machines[i].down = s.SlowLink, s.SlowLink
		}
	}
	f.machines[0].came = f.size
	return f, takers
}

// turn is what a machine does now: it asks the owner, or tells it how far it is. It reports
// whether that changes who feeds whom. A machine tells first when its stream begins.
func (s *Spread) turn(f *fluid, i int, t *taker, out *Spreading) bool {
	one := &f.machines[i]
	if t.asks {
		f.connect(i, s.Plan.Place(i, one.zone, t.not, f.now))
		t.asks, t.next = false, f.now+asking
		return true
	}
	leave, pause := s.Plan.Told(i, int64(one.came), s.Size, f.now)
	t.next = (f.now + pause + grid - 1).Truncate(grid)
	out.Told++
	if !leave {
		return false
	}
	out.Left++
	t.not = append(t.not, one.feeder)
	f.connect(i, none)
	t.asks, t.next = true, f.now+asking
	return true
}

// judge tells how it went.
func (s *Spread) judge(f *fluid, takers []taker, out *Spreading) {
	var all []time.Duration
	for i := range takers[1:] {
		t := &takers[i+1]
		all = append(all, t.done)
		out.Last = max(out.Last, t.done)
		if !t.slow {
			out.LastFast = max(out.LastFast, t.done)
		}
	}
	slices.Sort(all)
	out.Median = all[len(all)/2]
	for i := range f.machines {
		out.Busiest = max(out.Busiest, f.machines[i].sent/f.size)
	}
	out.Owner, out.Crossed = f.machines[0].sent/f.size, f.crossed/f.size
}
