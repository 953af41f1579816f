package cache

import (
	"context"
	"sync"

	"oci-proxy/transfer/wait"
)

// turns let one goroutine at a time work on a key's files. Others wait for their
// turn without holding a lock. The zero value is ready for use.
type turns[K comparable] struct {
	mu     sync.Mutex          // guards the fields below; never held during I/O
	taken  map[K]chan struct{} // closed at the turn's end
	closed bool
}

// take waits for the key's turn. Call end once the work is done. After close it
// fails with errClosed.
func (t *turns[K]) take(ctx context.Context, k K) (end func(), err error) {
	for {
		before, mine, err := t.try(k)
		if err != nil {
			return nil, err
		}
		if mine != nil {
			return func() { t.end(k, mine) }, nil
		}
		if err := wait.Until(ctx, before, 0); err != nil {
			return nil, err
		}
	}
}

// try takes the turn, or returns the channel that is closed when the turn before
// ends.
func (t *turns[K]) try(k K) (before, mine chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil, errClosed
	}
	if before, ok := t.taken[k]; ok {
		return before, nil, nil
	}
	if t.taken == nil {
		t.taken = map[K]chan struct{}{}
	}
	mine = make(chan struct{})
	t.taken[k] = mine
	return nil, mine, nil
}

// end ends a turn.
func (t *turns[K]) end(k K, mine chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.taken, k)
	close(mine)
}

// close gives out no more turns, and waits until those that run have ended or
// ctx ends.
func (t *turns[K]) close(ctx context.Context) {
	for c := t.refuse(); c != nil; c = t.refuse() {
		if wait.Until(ctx, c, 0) != nil {
			return
		}
	}
}

// refuse gives out no more turns. It returns the channel that is closed when one of
// the running turns ends, nil if there is none.
func (t *turns[K]) refuse() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, c := range t.taken {
		return c
	}
	return nil
}
