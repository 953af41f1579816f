package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"oci-proxy/node/membership"
)

// fanWidth is how many members are asked at a time.
const fanWidth = 128

// errDown is why a member was not asked.
var errDown = errors.New("it is down")

// An answered member is one that was asked, and what came of it.
type answered[T any] struct {
	member *membership.Member
	value  T
	err    error
}

// fan asks all other members of the view that can be reached, within fanTime.
// Those that cannot are in the result too, with an error.
func fan[T any](ctx context.Context, v *membership.View, ask func(ctx context.Context, m *membership.Member) (T, error)) []answered[T] {
	return fanWithin(ctx, v, fanTime, ask)
}

// fanWithin is fan with another time.
func fanWithin[T any](ctx context.Context, v *membership.View, within time.Duration, ask func(ctx context.Context, m *membership.Member) (T, error)) []answered[T] {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	out := make([]answered[T], 0, len(v.Members))
	for i := range v.Members {
		if m := &v.Members[i]; m.ID != v.Self.ID {
			out = append(out, answered[T]{member: m})
		}
	}
	var wg sync.WaitGroup
	width := make(chan struct{}, fanWidth)
	for i := range out {
		one := &out[i]
		if !one.member.Alive() {
			one.err = errDown
			continue
		}
		wg.Go(func() {
			select {
			case width <- struct{}{}:
				defer func() { <-width }()
				one.value, one.err = ask(ctx, one.member)
			case <-ctx.Done():
				one.err = ctx.Err()
			}
		})
	}
	wg.Wait()
	return out
}
