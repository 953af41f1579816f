package wait

import (
	"context"
	"io"
	"sync"
	"time"
)

// Shares make one call for each key at a time, as [Calls] do, of a value that has to
// be closed. All callers use the one value; the last to leave it closes it.
type Shares[K comparable, V io.Closer] struct {
	life   *Life
	within time.Duration

	mu     sync.Mutex // guards the fields below and of every share; never held during I/O
	active map[K]*share[V]
}

// A share is a call and its value, which is set before done is closed.
type share[V io.Closer] struct {
	done  chan struct{}
	value V
	err   error
	ended bool // the call has
	users int  // callers that wait for the value or use it
}

// NewShares returns Shares of that Life. Each call may take at most within.
func NewShares[K comparable, V io.Closer](life *Life, within time.Duration) *Shares[K, V] {
	return &Shares[K, V]{life: life, within: within, active: map[K]*share[V]{}}
}

// Do returns what fn returns for key, or joins the call that runs for it. joined
// reports the latter. fn's context has the values of the first caller's. Without an error, leave has to be called once the value is of
// no more use. ctx bounds only the caller's own wait; its cause is then the error.
// After the Life was closed the error is ErrClosed.
func (s *Shares[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error)) (v V, joined bool, leave func(), err error) {
	one, joined := s.join(ctx, key, fn)
	if one == nil {
		return v, false, nil, ErrClosed
	}
	select {
	case <-one.done:
		err = one.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		s.leave(one)
		return v, joined, nil, err
	}
	return one.value, joined, sync.OnceFunc(func() { s.leave(one) }), nil
}

// join returns the call that runs for key, or begins one. It returns nil once the
// Life was closed.
func (s *Shares[K, V]) join(values context.Context, key K, fn func(context.Context) (V, error)) (one *share[V], joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, joined = s.active[key]; joined {
		one.users++
		return one, true
	}
	one = &share[V]{done: make(chan struct{}), users: 1}
	if !s.life.Go(func() { s.run(values, one, key, fn) }) {
		return nil, false
	}
	s.active[key] = one
	return one, false
}

// run makes the call, and forgets it before its callers hear of the result.
func (s *Shares[K, V]) run(values context.Context, one *share[V], key K, fn func(context.Context) (V, error)) {
	defer close(one.done)
	ctx, cancel := context.WithTimeout(borrowed{s.life.Context(), values}, s.within)
	defer cancel()
	one.value, one.err = fn(ctx)
	s.mu.Lock()
	delete(s.active, key)
	one.ended = true
	unused := one.users == 0
	s.mu.Unlock()
	if unused {
		one.close()
	}
}

// leave says that one caller is done with the call.
func (s *Shares[K, V]) leave(one *share[V]) {
	s.mu.Lock()
	one.users--
	unused := one.users == 0 && one.ended
	s.mu.Unlock()
	if unused {
		one.close()
	}
}

// close closes the value, if there is one.
func (one *share[V]) close() {
	if one.err == nil {
		_ = one.value.Close() // nobody uses it any more
	}
}
