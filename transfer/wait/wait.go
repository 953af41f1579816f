// Package wait holds the ways in which goroutines wait for each other: a pause
// that a context can end ([For]), work that lives as long as its owner
// ([Life]), one call for all who want its result ([Calls]) or use it ([Shares]), fair
// turns at what only so many can use ([Turns]), and bytes that work shares ([Budget]).
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

// Until waits until c is closed or brings something and, if d is not 0, for d at
// most. If ctx ends first, it returns the cause.
func Until(ctx context.Context, c <-chan struct{}, d time.Duration) error {
	var timeout <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-c:
	case <-timeout:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
