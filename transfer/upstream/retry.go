package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// The causes of contexts that this package ends. The caller did not end them.
var (
	errLate = errors.New("no time left for the registry")
	errTry  = errors.New("no time left for this try")
)

// inTime returns a context that ends after Within unless keep is called before.
// stop ends it.
func inTime(ctx context.Context) (_ context.Context, keep func() bool, stop context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(Within, func() { cancel(errLate) })
	return ctx, timer.Stop, func() {
		timer.Stop()
		cancel(nil)
	}
}

// persist calls try until it succeeds, another try makes no sense, or b is used up.
// home is the registry's. Errors are *oci.Error.
func persist[T any](ctx context.Context, home *home, b *budget, try func(context.Context) (T, error)) (T, error) {
	start, n, wrong := time.Now(), 0, 0
	for {
		v, err := try(ctx)
		if err == nil {
			return v, nil
		}
		f, ok := errors.AsType[*failure](err)
		if !ok {
			f = home.fail(oci.Unavailable, never, home.host, "the request failed")
			f.Err = err
		}
		if !f.held { // else nothing was asked
			n++
		}
		pause, ok := f.pause(n, time.Since(start))
		if f.again == once {
			wrong++
			pause, ok = 0, wrong < 2
		}
		if !ok || b.spent() || oci.Hurried(ctx) || wait.For(ctx, pause) != nil || ctx.Err() != nil {
			if ctx.Err() == nil || isLate(context.Cause(ctx)) {
				home.failed(ctx, f.cause)
			}
			return v, f.cause
		}
		home.meter.Retried()
	}
}

// A budget bounds what one answer may cost the registry: maxRequests, those not
// counted that lead to a challenge which is met. It belongs to one goroutine.
type budget struct {
	requests, challenges int
	kept                 int  // requests that are not to be used yet
	knocked              bool // a pass was shown that nothing asked for
}

// newBudget returns the budget of one answer.
func newBudget() *budget { return &budget{requests: maxRequests, challenges: maxRequests} }

// take takes one request off.
func (b *budget) take() { b.requests-- }

// refund gives the request back that led to a challenge, unless there were too many.
func (b *budget) refund() bool {
	if b.challenges == 0 {
		return false
	}
	b.challenges--
	b.requests++
	return true
}

// another adds what the request of another account costs, which begins anew. The caller
// bounds how often.
func (b *budget) another() { b.requests, b.challenges, b.knocked = b.requests+1, b.challenges+1, false }

// spent reports whether no request is left.
func (b *budget) spent() bool { return b.requests <= b.kept }

// pause returns how long to wait before another try, and whether there is to be
// one, after n tries that took so long together.
func (f *failure) pause(n int, spent time.Duration) (time.Duration, bool) {
	tries, budget := 0, retryBudget
	if f.age > spent {
		return 0, false // it was out of reach before this request
	}
	switch f.again {
	case shortly:
		tries, budget = unreachableTries, unreachableBudget
	case patiently:
		tries = maxTries
	}
	if n >= tries {
		return 0, false
	}
	pause := 250 * time.Millisecond
	if n == 2 {
		pause = time.Second
	} else if n > 2 {
		pause = 2 * time.Second
	}
	// One fault may hit many requests at once. Jitter spreads their next tries.
	pause = time.Duration(float64(pause) * (0.75 + rand.Float64()/2))
	if f.RetryAfter > 0 {
		pause = f.RetryAfter
	}
	return pause, pause <= longestRetryAfter && spent+pause < budget
}
