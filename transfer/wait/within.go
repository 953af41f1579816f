package wait

import (
	"context"
	"time"
)

const (
	// naps is how many waits Within makes of one that is not short.
	naps = 10
	// shortWait is what is waited for in one go.
	shortWait = 500 * time.Millisecond
	// longest is how many times as long as asked for Within lasts, but for its last wait.
	longest = 3
)

// Within returns a context that ends with cause when d has passed, in steps: each begins
// when the one before has been noticed. So a process that the machine hardly ever lets run
// does not take what waits for it unread for what has not come. It lasts 3 times d at most,
// and as long as that process takes to wake up. Call end.
func Within(ctx context.Context, d time.Duration, cause error) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		until, steps := time.Now().Add(longest*d), time.Duration(stepsOf(d))
		for i := time.Duration(0); i < steps && time.Now().Before(until); i++ {
			if For(ctx, d/steps) != nil {
				return
			}
		}
		cancel(cause)
	}()
	return ctx, func() { cancel(nil) }
}
