package simulator

import (
	"errors"
	"math/rand/v2"
	"time"
)

// What happens to a cluster. Each of these returns when it is over, and all that was
// pulled meanwhile.

// Herd makes clients of all nodes ask for each of that many blobs at once, which no node has.
func (w *World) Herd(blobs, clients int) error {
	for blob := range blobs {
		for _, h := range w.Living() {
			for range clients {
				w.pull(h, blob)
			}
		}
		if blob%8 == 7 {
			w.Await()
		}
	}
	w.Await()
	return nil
}

// Warm pulls each blob once, by any node.
func (w *World) Warm() error {
	for blob := range w.cfg.Blobs {
		w.pull(w.any(w.rand), blob)
		<-time.After(20 * time.Millisecond)
	}
	w.Await()
	return nil
}

// load is how many blobs clients pull in a second while something happens.
const load = 20

// under lets something happen while clients pull popular blobs by any node.
func (w *World) under(happen func() error) error {
	done, over := make(chan struct{}), make(chan struct{})
	draw := rand.New(rand.NewPCG(w.cfg.Seed, 4))
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Second / load):
				if h := w.any(draw); h != nil {
					w.pull(h, w.registry.popular(draw))
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

// All pulls each blob by each of the nodes, at most ten of them.
func (w *World) All(by []*Host) {
	for blob := range w.cfg.Blobs {
		for i := range min(len(by), 10) {
			w.pull(by[(blob+i)%len(by)], blob)
		}
		<-time.After(100 * time.Millisecond)
	}
	w.Await()
}

// Join makes the cluster grow to that many nodes under load, and then pulls all by the new
// ones.
func (w *World) Join(to int) error {
	before := len(w.all())
	err := w.under(func() error {
		for len(w.all()) < to {
			if err := w.begin(); err != nil {
				return err
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
		err := w.any(w.rand).leave()
		return errors.Join(err, w.AwaitWhole(time.Minute))
	})
	w.All(w.ready())
	return err
}

// Kill kills one node for good under load, and pulls all by others, at once and after it
// has lost its place.
func (w *World) Kill() error {
	err := w.under(func() error {
		err := w.any(w.rand).kill()
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
		for _, h := range w.Living()[:min(most, len(w.Living()))] {
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

// Chaos makes that many random events happen under load: a node joins, leaves, restarts,
// or is killed and comes back with its disk. Then all is pulled.
func (w *World) Chaos(events int) error {
	err := w.under(func() error {
		coming := make(chan error, events)
		for range events {
			if h := w.any(w.rand); h == nil {
				coming <- nil
			} else {
				w.event(h, coming)
			}
			<-time.After(time.Duration(500+w.rand.IntN(6000)) * time.Millisecond)
		}
		var errs []error
		for range events {
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

// event makes something happen, to h unless a node joins. It sends what came of it to over.
func (w *World) event(h *Host, over chan<- error) {
	ready := len(w.ready())
	switch what := w.rand.IntN(4); {
	case what == 0 && ready < w.cfg.Nodes*13/10+1, ready <= max(2, w.cfg.Nodes*7/10):
		over <- w.begin()
	case what <= 1:
		go func() { over <- h.leave() }()
	case what == 2:
		go func() { over <- h.restart(3 * time.Second) }()
	default:
		down := time.Duration(1+w.rand.IntN(20)) * time.Second
		err := h.kill()
		go func() {
			<-time.After(down)
			over <- errors.Join(err, h.start())
		}()
	}
}
