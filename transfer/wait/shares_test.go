package wait_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/wait"
)

// A lent counts how often it was closed.
type lent struct{ closed atomic.Int32 }

func (l *lent) Close() error {
	l.closed.Add(1)
	return nil
}

// slowly returns a call that takes a second, and counts how often it is made.
func slowly(of *lent, made *atomic.Int32) func(context.Context) (*lent, error) {
	return func(ctx context.Context) (*lent, error) {
		made.Add(1)
		return of, wait.For(ctx, time.Second)
	}
}

func TestASharedValueIsClosedByTheLastToLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := wait.NewLife()
		shares := wait.NewShares[string, *lent](life, time.Minute)
		var value lent
		var made atomic.Int32
		leaves := make(chan func(), 3)
		for range 3 {
			go func() {
				v, _, leave, err := shares.Do(t.Context(), "a", slowly(&value, &made))
				if v != &value || err != nil {
					t.Errorf("got %p, %v", v, err)
				}
				leaves <- leave
			}()
		}
		for range 3 {
			if value.closed.Load() != 0 {
				t.Error("closed while somebody uses it")
			}
			leave := <-leaves
			leave()
			leave() // a second time does no harm
		}
		if made.Load() != 1 || value.closed.Load() != 1 {
			t.Errorf("%d calls, closed %d times", made.Load(), value.closed.Load())
		}
		life.Close(t.Context())
		if _, _, _, err := shares.Do(t.Context(), "a", slowly(&value, &made)); !errors.Is(err, wait.ErrClosed) {
			t.Errorf("a call after the end: %v", err)
		}
	})
}

func TestASharedValueThatNobodyWaitedForIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := wait.NewLife()
		shares := wait.NewShares[string, *lent](life, time.Minute)
		var value lent
		var made atomic.Int32
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, _, _, err := shares.Do(ctx, "a", slowly(&value, &made)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("the one that left:", err)
		}
		life.Close(t.Context())
		if value.closed.Load() != 1 {
			t.Errorf("closed %d times", value.closed.Load())
		}
		failed := errors.New("failed")
		again := wait.NewLife()
		defer again.Close(t.Context())
		_, _, _, err := wait.NewShares[string, *lent](again, time.Minute).Do(t.Context(), "a", func(context.Context) (*lent, error) { return nil, failed })
		if !errors.Is(err, failed) {
			t.Error("a call that fails:", err)
		}
	})
}
