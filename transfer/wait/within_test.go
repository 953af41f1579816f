package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWithinEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late, start := errors.New("late"), time.Now()
		ctx, end := Within(t.Context(), time.Second, late)
		<-ctx.Done()
		if took := time.Since(start); took != time.Second || !errors.Is(context.Cause(ctx), late) {
			t.Errorf("%v, %v", took, context.Cause(ctx))
		}
		end()
		ctx, end = Within(t.Context(), time.Second, late)
		end()
		if <-ctx.Done(); !errors.Is(context.Cause(ctx), context.Canceled) {
			t.Error(context.Cause(ctx))
		}
	})
}
