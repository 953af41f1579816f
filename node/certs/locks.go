package certs

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// holds are the locks that this node holds or waits for. One goroutine of it does at a time.
type holds struct {
	mu    sync.Mutex // guards the field below
	names map[string]*hold
}

// A hold is one lock.
type hold struct {
	has   bool          // the keeper has lent it
	end   func()        // ends saying that it is needed, and waits for that
	freed chan struct{} // closed when it is free
}

// take waits until no other goroutine of this node has the lock.
func (h *holds) take(ctx context.Context, name string) error {
	for {
		freed, ok := h.try(name)
		if ok {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// try takes the lock if nobody of this node has it; else freed is closed when it is free.
func (h *holds) try(name string) (freed <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if one := h.names[name]; one != nil {
		return one.freed, false
	}
	if h.names == nil {
		h.names = map[string]*hold{}
	}
	h.names[name] = &hold{end: func() {}, freed: make(chan struct{})}
	return nil, true
}

// lent notes that the keeper has lent the lock. end ends saying that it is needed.
func (h *holds) lent(name string, end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if one := h.names[name]; one != nil {
		one.has, one.end = true, end
	}
}

// free gives the lock to the next goroutine.
func (h *holds) free(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if one := h.names[name]; one != nil {
		close(one.freed)
		delete(h.names, name)
	}
}

// done ends saying that the lock is needed.
func (h *holds) done(name string) {
	h.mu.Lock()
	one := h.names[name]
	h.mu.Unlock()
	if one != nil {
		one.end()
	}
}

// list lists the locks that the keeper has lent.
func (h *holds) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(h.names)) {
		if h.names[name].has {
			names = append(names, name)
		}
	}
	return names
}

// lock waits until the keeper lends the lock.
func (k *keeper) lock(ctx context.Context, name string) error {
	for answered := time.Now(); ; {
		lent, err := k.lend(ctx, name)
		switch {
		case lent:
			k.hold(name)
			return nil
		case err == nil:
			answered = time.Now()
		case time.Since(answered) > patience:
			return err
		}
		if err := wait.For(ctx, stepTime); err != nil {
			return err
		}
	}
}

// tryLock is lock that does not wait.
func (k *keeper) tryLock(ctx context.Context, name string) (bool, error) {
	if _, ok := k.held.try(name); !ok {
		return false, nil
	}
	lent, err := k.lend(ctx, name)
	if !lent {
		k.held.free(name)
		return false, err
	}
	k.hold(name)
	return true, nil
}

// hold says that the lock is needed, until it is given back.
func (k *keeper) hold(name string) {
	ctx, end := context.WithCancel(k.life.Context())
	ended := make(chan struct{})
	said := k.life.Go(func() {
		defer close(ended)
		for wait.For(ctx, renewTime) == nil {
			if _, err := k.lend(ctx, name); err != nil {
				k.log.DebugContext(ctx, "lock not renewed", "error", err)
			}
		}
	})
	k.held.lent(name, func() {
		end()
		if said {
			<-ended
		}
	})
}

// unlock gives a lock back, also when ctx has ended: first to the keeper, then to this node's
// goroutines.
func (k *keeper) unlock(ctx context.Context, name string) error {
	defer k.held.free(name)
	k.held.done(name)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	return k.back(ctx, name)
}
