package wait

import (
	"context"
	"sync"
	"time"
)

// Calls makes one call for each key at a time. Whoever asks while the call runs
// gets its result. A call belongs to the Life, not to the caller that began it:
// it goes on when every caller has left.
type Calls[K comparable, V any] struct {
	life   *Life
	within time.Duration

	mu     sync.Mutex // guards the fields below; never held during I/O
	active map[K]*call[V]
}

// A call is one that runs. Its value and err are set before done is closed.
type call[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// NewCalls returns Calls of that Life. Each call may take at most within.
func NewCalls[K comparable, V any](life *Life, within time.Duration) *Calls[K, V] {
	return &Calls[K, V]{life: life, within: within, active: map[K]*call[V]{}}
}

// Do returns what fn returns for key, or joins the call that runs for it.
// joined reports the latter. fn's context has the values of the first caller's. ctx bounds only the caller's own wait; its cause is
// then the error. After the Life was closed the error is ErrClosed.
func (c *Calls[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error)) (v V, joined bool, err error) {
	one, joined := c.join(ctx, key, fn)
	if one == nil {
		return v, false, ErrClosed
	}
	select {
	case <-one.done:
		return one.value, joined, one.err
	case <-ctx.Done():
		return v, joined, context.Cause(ctx)
	}
}

// join returns the call that runs for key, or begins one. It returns nil once
// the Life was closed.
func (c *Calls[K, V]) join(values context.Context, key K, fn func(context.Context) (V, error)) (one *call[V], joined bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one, joined = c.active[key]; joined {
		return one, true
	}
	one = &call[V]{done: make(chan struct{})}
	if !c.life.Go(func() { c.run(values, one, key, fn) }) {
		return nil, false
	}
	c.active[key] = one
	return one, false
}

// run makes the call, and forgets it before its callers hear of the result.
func (c *Calls[K, V]) run(values context.Context, one *call[V], key K, fn func(context.Context) (V, error)) {
	defer close(one.done)
	ctx, cancel := context.WithTimeout(borrowed{c.life.Context(), values}, c.within)
	defer cancel()
	one.value, one.err = fn(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, key)
}

// A borrowed context ends as one context does, and has the values of another.
type borrowed struct {
	context.Context
	values context.Context
}

// Value implements context.Context.
func (b borrowed) Value(key any) any {
	if v := b.Context.Value(key); v != nil {
		return v
	}
	return b.values.Value(key)
}
