package wait

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed ends the work of a Life that was closed, and refuses new work.
var ErrClosed = errors.New("the node is shutting down")

// A Life bounds the work that an owner has under way. Work runs in goroutines
// that outlive the requests that began it and end with the owner.
type Life struct {
	ctx  context.Context
	stop context.CancelCauseFunc

	mu     sync.Mutex // guards the fields below; never held during I/O
	closed bool
	wg     sync.WaitGroup
}

// NewLife returns a Life. Close it.
func NewLife() *Life {
	ctx, stop := context.WithCancelCause(context.Background())
	return &Life{ctx: ctx, stop: stop}
}

// Context ends, with ErrClosed as its cause, when the Life does.
func (l *Life) Context() context.Context { return l.ctx }

// Go runs fn in a goroutine that Close waits for. It reports false, and runs
// nothing, if Close was called before.
func (l *Life) Go(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.wg.Go(fn)
	}
	return !l.closed
}

// Close refuses new work, waits until all work has ended or ctx ends, and then
// ends what is left. It returns once no work runs.
func (l *Life) Close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	l.stop(ErrClosed)
	<-ended
}
