package node

import (
	"context"
	"sync"
	"time"

	"oci-proxy/node/membership"
)

const (
	// fanTime is how long the other members may take to answer, so that the whole
	// answer is there within a second.
	fanTime = 900 * time.Millisecond
	// fanWidth is how many are asked at a time.
	fanWidth = 128
)

// An answered member is one that was asked, and what came of it.
type answered[T any] struct {
	member *membership.Member
	value  T
	err    error
}

// fan asks all other members of the view that are up, within fanTime. Those
// that are not up are in the answer too, with an error.
func fan[T any](ctx context.Context, v *membership.View, ask func(ctx context.Context, m *membership.Member) (T, error)) []answered[T] {
	ctx, cancel := context.WithTimeout(ctx, fanTime)
	defer cancel()
	var out []*answered[T]
	var wg sync.WaitGroup
	width := make(chan struct{}, fanWidth)
	for i := range v.Members {
		m := &v.Members[i]
		if m.ID == v.Self.ID {
			continue
		}
		one := &answered[T]{member: m}
		out = append(out, one)
		if !m.Alive() {
			one.err = errDown
			continue
		}
		wg.Go(func() {
			select {
			case width <- struct{}{}:
				defer func() { <-width }()
			case <-ctx.Done():
				one.err = ctx.Err()
				return
			}
			one.value, one.err = ask(ctx, m)
		})
	}
	wg.Wait()
	all := make([]answered[T], len(out))
	for i, one := range out {
		all[i] = *one
	}
	return all
}
