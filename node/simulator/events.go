package simulator

import (
	"errors"
	"math/rand/v2"
	"time"
)

// What happens to a cluster. Each of these returns when it is over, and all that was
// pulled meanwhile. Which nodes it happens to, and who pulls what when, is drawn by the
// seed: nodes that hold something, so that it matters in a large cluster too.

// The numbers of draws (World.pick).
const (
	warming   = 1_000_000 // and the blob's number
	loading   = 2_000_000 // and the pull's
	happening = 3_000_000 // and the event's
)

// Herd makes clients of all nodes ask for each of that many blobs at once, which no node has.
func (w *World) Herd(blobs, clients int) error {
	for blob := range blobs {
		for _, h := range w.Living() {
			for range clients {
				w.pull(h, w.from+blob)
			}
		}
		if blob%8 == 7 {
			w.Await()
		}
	}
	w.Await()
	return nil
}

// Warm pulls each blob once, by any node, and waits until second copies are made.
func (w *World) Warm() error {
	for blob := range w.cfg.Blobs {
		w.pull(w.pick(w.ready(), warming+blob), w.from+blob)
		<-time.After(20 * time.Millisecond)
	}
	w.Await()
	return AwaitCopies(w, 2*time.Minute)
}

// load is how many blobs clients pull in a second while something happens.
const load = 20

// under lets something happen while clients pull popular blobs by any node.
func (w *World) under(happen func() error) error {
	done, over := make(chan struct{}), make(chan struct{})
	draw := rand.New(rand.NewPCG(w.cfg.Seed, 4))
	go func() {
		defer close(over)
		for number := loading; ; number++ {
			select {
			case <-done:
				return
			case <-time.After(time.Second / load):
				if h := w.pick(w.ready(), number); h != nil {
					w.pull(h, popular(w, draw))
				}
			}
		}
	}()
	err := happen()
	close(done)
	<-over
	w.Await()
	return err
}

// All pulls each blob by each of the nodes, at most ten of them, or three of many.
func (w *World) All(by []*Host) {
	each := min(len(by), 10)
	if len(by) > 100 {
		each = 3
	}
	for blob := range w.cfg.Blobs {
		for i := range each {
			w.pull(by[(blob*each+i)%len(by)], w.from+blob)
		}
		<-time.After(100 * time.Millisecond)
	}
	w.Await()
}

// waves is in how many steps a cluster grows at most.
const waves = 25

// Join makes the cluster grow to that many nodes under load, and then pulls all by the new
// ones.
func (w *World) Join(to int) error {
	before := len(w.all())
	err := w.under(func() error {
		for step := 1 + (to-before)/waves; len(w.all()) < to; {
			for range min(step, to-len(w.all())) {
				if err := w.begin(); err != nil {
					return err
				}
			}
			<-time.After(time.Second)
		}
		return w.AwaitWhole(time.Minute)
	})
	w.All(w.all()[before:])
	return err
}

// Leave makes one node leave in order under load, and then pulls all by others.
func (w *World) Leave() error {
	err := w.under(func() error {
		err := w.pick(holders(w), happening).leave()
		return errors.Join(err, w.AwaitWhole(time.Minute))
	})
	w.All(w.ready())
	return err
}

// Kill kills one node for good under load, and pulls all by others, at once and after it
// has lost its place.
func (w *World) Kill() error {
	err := w.under(func() error {
		err := w.pick(holders(w), happening).kill()
		<-time.After(20 * time.Second)
		return err
	})
	w.All(w.ready())
	err = errors.Join(err, w.AwaitWhole(4*time.Minute))
	w.All(w.ready())
	return err
}

// Roll restarts one node after the other under load, at most so many, and then pulls all.
func (w *World) Roll(most int) error {
	err := w.under(func() error {
		before := map[*Host]bool{}
		for i := range min(most, len(w.Living())) {
			var left []*Host
			for _, h := range holders(w) {
				if !before[h] {
					left = append(left, h)
				}
			}
			h := w.pick(left, happening+i)
			if h == nil {
				break
			}
			before[h] = true
			if err := h.restart(3 * time.Second); err != nil {
				return err
			}
			if err := w.AwaitWhole(time.Minute); err != nil {
				return err
			}
			<-time.After(2 * time.Second)
		}
		return nil
	})
	w.All(w.ready())
	return err
}

// An Event is something that happens to a node.
type Event int

// What may happen to a node.
const (
	Joins    Event = iota
	Leaves         // in order
	Restarts       // in order, with its disk
	Crashes        // and comes back with its disk
)

// A Moment is one event of many.
type Moment struct {
	What Event
	Down time.Duration // how long a node that crashes stays away
	Gap  time.Duration // until the next event
}

// Moments draws what happens to a cluster of n nodes. It depends on the seed alone.
func Moments(seed uint64, n, events int) (all []Moment) {
	draw := rand.New(rand.NewPCG(seed, 1))
	for now := n; len(all) < events; {
		m := Moment{What: Event(draw.IntN(4)), Down: time.Duration(1+draw.IntN(20)) * time.Second, Gap: time.Duration(500+draw.IntN(6000)) * time.Millisecond}
		switch most, least := n*13/10+1, max(2, n*7/10); {
		case m.What == Joins && now >= most:
			m.What = Leaves
		case m.What == Leaves && now <= least:
			m.What = Joins
		}
		switch m.What {
		case Joins:
			now++
		case Leaves:
			now--
		case Restarts, Crashes:
		}
		all = append(all, m)
	}
	return all
}

// Chaos makes random events happen under load: a node joins, leaves, restarts, or is
// killed and comes back with its disk. Then all is pulled.
func (w *World) Chaos(moments []Moment) error {
	err := w.under(func() error {
		coming := make(chan error, len(moments))
		for i, m := range moments {
			if h := w.pick(holders(w), happening+i); m.What == Joins || h != nil {
				w.happen(h, m, coming)
			} else {
				coming <- nil
			}
			<-time.After(m.Gap)
		}
		var errs []error
		for range moments {
			errs = append(errs, <-coming)
		}
		began := time.Now()
		errs = append(errs, w.AwaitWhole(5*time.Minute))
		w.agreed = time.Since(began)
		return errors.Join(errs...)
	})
	w.All(w.ready())
	return err
}

// happen makes something happen, to h unless a node joins. It sends what came of it to over.
func (w *World) happen(h *Host, m Moment, over chan<- error) {
	switch m.What {
	case Joins:
		over <- w.begin()
	case Leaves:
		go func() { over <- h.leave() }()
	case Restarts:
		go func() { over <- h.restart(3 * time.Second) }()
	case Crashes:
		err := h.kill()
		go func() {
			<-time.After(m.Down)
			over <- errors.Join(err, h.start())
		}()
	}
}
