package wait

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrClosed ends the work of a Life that was closed, and refuses new work.
var ErrClosed = errors.New("the node is shutting down")

// A Life bounds the work that an owner has under way. Work runs in goroutines
// that outlive the requests that began it and end with the owner. A goroutine whose work has
// ended waits a moment for more: its stack has grown by then, which takes as long as a
// small download's other work.
type Life struct {
	ctx  context.Context
	stop context.CancelCauseFunc
	more chan func() // work for goroutines that wait for it

	mu         sync.Mutex // guards the fields below; never held during I/O
	closed     bool
	work       sync.WaitGroup
	goroutines sync.WaitGroup
}

// idle is how long a goroutine waits for more work.
const idle = time.Second

// NewLife returns a Life. Close it.
func NewLife() *Life {
	ctx, stop := context.WithCancelCause(context.Background())
	return &Life{ctx: ctx, stop: stop, more: make(chan func())}
}

// Context ends, with ErrClosed as its cause, when the Life does.
func (l *Life) Context() context.Context { return l.ctx }

// Go runs fn in a goroutine that Close waits for. It reports false, and runs
// nothing, if Close was called before.
func (l *Life) Go(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.work.Add(1)
	select {
	case l.more <- fn:
	default:
		l.goroutines.Go(func() { l.run(fn) })
	}
	return true
}

// run does the work, and more that comes soon.
func (l *Life) run(fn func()) {
	soon := time.NewTimer(idle)
	defer soon.Stop()
	for {
		l.do(fn)
		soon.Reset(idle)
		select {
		case fn = <-l.more:
		case <-soon.C:
			return
		case <-l.ctx.Done():
			return
		}
	}
}

// do does the work.
func (l *Life) do(fn func()) {
	defer l.work.Done()
	fn()
}

// Close refuses new work, waits until all work has ended or ctx ends, and then
// ends what is left. It returns once no work runs.
func (l *Life) Close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		l.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	l.stop(ErrClosed)
	<-ended
	l.goroutines.Wait()
}
