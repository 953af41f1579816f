package wait

import (
	"context"
	"time"
)

// naps is how many waits Within makes of one.
const naps = 10

// Within returns a context that ends with cause when d has passed, in steps: each begins
// when the one before has been noticed. So a process that the machine hardly ever lets run
// does not take what waits for it unread for what has not come. Call end.
func Within(ctx context.Context, d time.Duration, cause error) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for range naps {
			if For(ctx, d/naps) != nil {
				return
			}
		}
		cancel(cause)
	}()
	return ctx, func() { cancel(nil) }
}
