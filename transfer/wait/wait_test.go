package wait_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/wait"
)

func TestForWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := wait.For(t.Context(), time.Minute); err != nil || time.Since(began) != time.Minute {
			t.Errorf("waited %v: %v", time.Since(began), err)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		began = time.Now()
		if err := wait.For(ctx, time.Minute); !errors.Is(err, cause) || time.Since(began) != time.Second {
			t.Errorf("a context's end ended the wait after %v: %v", time.Since(began), err)
		}
	})
}

func TestCallsShareAResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := wait.NewLife()
		calls := wait.NewCalls[string, int](life, time.Minute)
		made, results := 0, make(chan bool, 3)
		ask := func(ctx context.Context) {
			v, joined, err := calls.Do(ctx, "a", func(ctx context.Context) (int, error) {
				made++
				return 7, wait.For(ctx, time.Second)
			})
			if v != 7 || err != nil {
				t.Errorf("got %d, %v", v, err)
			}
			results <- joined
		}
		leaves, leave := context.WithCancel(t.Context())
		go func() { // begins the call and leaves: it goes on for the others
			_, joined, err := calls.Do(leaves, "a", func(ctx context.Context) (int, error) {
				made++
				return 7, wait.For(ctx, time.Second)
			})
			if joined || !errors.Is(err, context.Canceled) {
				t.Errorf("the one that left: joined %v, %v", joined, err)
			}
		}()
		synctest.Wait()
		go ask(t.Context())
		go ask(t.Context())
		synctest.Wait()
		leave()
		first, second := <-results, <-results
		if !first || !second || made != 1 {
			t.Errorf("%d calls were made for three callers", made)
		}
		life.Close(t.Context())
		if _, _, err := calls.Do(t.Context(), "a", func(context.Context) (int, error) { return 0, nil }); !errors.Is(err, wait.ErrClosed) {
			t.Errorf("a call after the end: %v", err)
		}
	})
}

func TestCallsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := wait.NewLife()
		defer life.Close(t.Context())
		began := time.Now()
		_, _, err := wait.NewCalls[string, int](life, time.Minute).Do(t.Context(), "a", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("a call that hangs ended after %v: %v", time.Since(began), err)
		}
	})
}

func TestLifeWaitsThenEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := wait.NewLife()
		var cause error
		life.Go(func() {
			<-life.Context().Done()
			cause = context.Cause(life.Context())
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		life.Close(ctx)
		if took := time.Since(began); took != time.Second || !errors.Is(cause, wait.ErrClosed) {
			t.Errorf("closed after %v, the work ended by %v", took, cause)
		}
		if life.Go(func() { t.Error("work began after the end") }) {
			t.Error("work after the end was taken")
		}
	})
}
