package simulator

import (
	"math"
	"slices"
	"time"
)

// A machine is a node in a fluid: what it has of the layer flows on at rates that its links
// allow.
type machine struct {
	up, down float64 // bytes a second that its link carries out and in
	zone     string
	feeder   int     // from whom the layer comes, none if from nobody
	feeds    []int   // to whom it goes
	came     float64 // bytes
	rate     float64 // bytes a second that come
	sent     float64 // bytes, to all together
}

// none stands for no machine.
const none = -1

// A fluid is a layer on its way over the machines, of which the first has it all. A stream
// is as fast as the links allow that it shares with others, fairly: max-min. Who is fed by a
// machine that is still getting the layer gets no more than that one has (cut-through).
type fluid struct {
	size     float64
	now      time.Duration
	machines []machine
	crossed  float64 // bytes from one zone to another
}

// connect makes a machine get the layer from another one; none: from nobody.
func (f *fluid) connect(m, from int) {
	one := &f.machines[m]
	if old := one.feeder; old != none {
		f.machines[old].feeds = slices.DeleteFunc(f.machines[old].feeds, func(i int) bool { return i == m })
	}
	if one.feeder = from; from != none {
		f.machines[from].feeds = append(f.machines[from].feeds, m)
	}
}

// slack is how many bytes do not count.
const slack = 1.0

// flow sets all rates, from the first machine on down the tree.
func (f *fluid) flow() {
	for i := range f.machines {
		f.machines[i].rate = 0
	}
	for todo := f.roots(); len(todo) > 0; todo = todo[1:] {
		from := &f.machines[todo[0]]
		share(from.up, from.feeds, func(m int) float64 {
			if from.came-f.machines[m].came <= slack {
				return min(f.machines[m].down, from.rate)
			}
			return f.machines[m].down
		}, func(m int, rate float64) { f.machines[m].rate = rate })
		todo = append(todo, from.feeds...)
	}
}

// roots lists the machines that feed others and are fed by none.
func (f *fluid) roots() (all []int) {
	for i := range f.machines {
		if f.machines[i].feeder == none && len(f.machines[i].feeds) > 0 {
			all = append(all, i)
		}
	}
	return all
}

// share shares a link among streams: each has the same, unless it can take only less.
func share(link float64, streams []int, most func(int) float64, set func(int, float64)) {
	streams = slices.Clone(streams)
	slices.SortFunc(streams, func(a, b int) int {
		switch x, y := most(a), most(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return a - b
	})
	for i, m := range streams {
		rate := min(most(m), link/float64(len(streams)-i))
		set(m, rate)
		link -= rate
	}
}

// until is how long the rates stay as they are.
func (f *fluid) until() time.Duration {
	least := math.Inf(1)
	for i := range f.machines {
		one := &f.machines[i]
		if one.rate <= 0 {
			continue
		}
		least = min(least, (f.size-one.came)/one.rate)
		if from := &f.machines[one.feeder]; one.rate > from.rate && from.came-one.came > slack {
			least = min(least, (from.came-one.came)/(one.rate-from.rate))
		}
	}
	if least > (24 * time.Hour).Seconds() {
		return 24 * time.Hour
	}
	return time.Duration(math.Ceil(least * float64(time.Second)))
}

// pass lets time pass. It reports whether rates may change: a machine has it all, or all
// that its feeder has.
func (f *fluid) pass(d time.Duration) (changed bool) {
	f.now += d
	for i := range f.machines {
		one := &f.machines[i]
		if one.rate <= 0 {
			continue
		}
		from := &f.machines[one.feeder]
		n := min(one.rate*d.Seconds(), f.size-one.came)
		one.came += n
		from.sent += n
		if from.zone != one.zone {
			f.crossed += n
		}
	}
	for i := range f.machines {
		one := &f.machines[i]
		if one.feeder == none {
			continue
		}
		from := &f.machines[one.feeder]
		changed = changed || f.size-one.came <= slack || one.rate > from.rate && from.came-one.came <= slack
		if one.came = min(one.came, from.came); f.size-one.came <= slack { // rounding
			one.came = f.size
		}
	}
	return changed
}
