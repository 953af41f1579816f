package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"oci-proxy/transfer/oci"
)

// How long a registry is given. An error must reach the caller within 40 s,
// that of a refused dial within 10 s.
const (
	headerCap     = 38 * time.Second // for all tries, tokens and redirects included
	tryCap        = 20 * time.Second // for one try of what is small
	patience      = 30 * time.Second // no try begins later
	shortPatience = 8 * time.Second  // the same where nobody listens
	maxTries      = 4
	shortTries    = 2
	maxWait       = 10 * time.Second // the longest Retry-After that is waited out
)

// Causes of contexts that end: ours, not the caller's.
var (
	errLate = errors.New("no time left for the registry")
	errTry  = errors.New("no time left for this try")
)

// inTime returns a context that ends after headerCap unless keep is called
// before. stop ends it.
func inTime(ctx context.Context) (_ context.Context, keep func() bool, stop context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(headerCap, func() { cancel(errLate) })
	return ctx, timer.Stop, func() {
		timer.Stop()
		cancel(nil)
	}
}

// persist tries until try succeeds or another try makes no sense. Its errors
// are *transfer.Error.
func persist[T any](ctx context.Context, r *registry, try func(context.Context) (T, error)) (T, error) {
	start, wrong := time.Now(), 0
	for n := 1; ; n++ {
		v, err := try(ctx)
		if err == nil {
			return v, nil
		}
		f, ok := errors.AsType[*failure](err)
		if !ok {
			f = r.fail(oci.Unavailable, never, r.host, "the request failed")
			f.Err = err
		}
		wait, ok := f.wait(n, time.Since(start))
		if f.again == once {
			wrong++
			wait, ok = 0, wrong < 2
		}
		if !ok || !rest(ctx, wait) {
			return v, f.cause
		}
	}
}

// wait returns how long to wait before another try after n of them, and
// whether there is to be one, spent after the first began.
func (f *failure) wait(n int, spent time.Duration) (time.Duration, bool) {
	tries, budget := 0, patience
	switch f.again {
	case shortly:
		tries, budget = shortTries, shortPatience
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
	// Jitter parts those whom one fault brought together.
	pause = time.Duration(float64(pause) * (0.75 + rand.Float64()/2))
	if f.RetryAfter > 0 {
		pause = f.RetryAfter
	}
	return pause, pause <= maxWait && spent+pause < budget
}

// rest waits, and reports false if ctx ended meanwhile.
func rest(ctx context.Context, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
