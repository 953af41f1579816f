// Package wait holds the ways in which goroutines wait for each other: a pause
// that a context can end ([For]), work that lives as long as its owner
// ([Life]), and one call for all who want its result ([Calls]).
package wait

import (
	"context"
	"time"
)

// For waits for d. If ctx ends first, it returns the cause.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
