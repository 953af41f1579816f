package wait_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/wait"
)

// claim returns a claim of n bytes.
func claim(t *testing.T, b *wait.Budget, n int64) *wait.Claim {
	t.Helper()
	c := b.Claim()
	if err := c.Grow(t.Context(), n); err != nil {
		t.Fatalf("claiming %d bytes: %v", n, err)
	}
	return c
}

// held fails the test unless so much is held and so many wait.
func held(t *testing.T, b *wait.Budget, bytes int64, waiting int) {
	t.Helper()
	if u, w := b.Used(); u != bytes || w != waiting {
		t.Fatalf("%d bytes are held and %d claims wait, want %d and %d", u, w, bytes, waiting)
	}
}

func TestBudgetTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := wait.NewBudget(100, 10, time.Minute)
		first, second := claim(t, b, 50), claim(t, b, 50) // the second one is favoured
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				c := b.Claim()
				if err := c.Grow(t.Context(), 30); err != nil {
					t.Error(err)
				}
				order <- i
				time.Sleep(time.Second) // in the bubble
				c.Release()
			}()
			synctest.Wait()
		}
		held(t, b, 100, 3)
		first.Release()
		synctest.Wait()
		held(t, b, 80, 2) // the first of them is favoured now, and the next has to wait for it
		second.Release()
		for i := range 3 {
			if got := <-order; got != i {
				t.Errorf("turn %d was claim %d's", i, got)
			}
		}
		synctest.Wait()
		time.Sleep(time.Minute) // in the bubble
		held(t, b, 0, 0)
	})
}

func TestBudgetGrowsPastOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := wait.NewBudget(100, 50, time.Minute)
		ended := make(chan error, 10)
		for range 10 { // each holds a little and wants all that it may have
			go func() {
				c := b.Claim()
				defer c.Release()
				for range 50 {
					if err := c.Grow(t.Context(), 1); err != nil {
						ended <- err
						return
					}
					time.Sleep(time.Millisecond) // in the bubble
				}
				ended <- nil
			}()
		}
		for range 10 {
			if err := <-ended; err != nil {
				t.Errorf("a claim that waits for others that wait: %v", err)
			}
		}
		synctest.Wait()
		held(t, b, 0, 0)
	})
}

func TestBudgetWaitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := wait.NewBudget(100, 1, time.Minute)
		first, second := claim(t, b, 50), claim(t, b, 50)
		began := time.Now()
		crowd := make(chan error, 1)
		time.AfterFunc(time.Second, func() { crowd <- b.Claim().Grow(t.Context(), 1) })
		if err := b.Claim().Grow(t.Context(), 1); !errors.Is(err, wait.ErrFull) || time.Since(began) != time.Minute {
			t.Errorf("waited %v: %v", time.Since(began), err)
		}
		if err := <-crowd; !errors.Is(err, wait.ErrFull) {
			t.Errorf("one more than may wait: %v", err)
		}
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if err := b.Claim().Grow(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("one that left: %v", err)
		}
		if err := b.Claim().Grow(t.Context(), b.Largest()+1); !errors.Is(err, wait.ErrTooLarge) {
			t.Errorf("one that is too large: %v", err)
		}
		first.Shrink(20)
		held(t, b, 70, 0)
		first.Shrink(30) // it holds less already
		first.Release()
		first.Release()
		second.Release()
		held(t, b, 0, 0)
	})
}

// crowd is how many claims may wait in FuzzBudget.
const crowd = 20

// FuzzBudget lets claims of any size come, grow, give up and go, and holds the budget to its sums.
func FuzzBudget(f *testing.F) {
	f.Add(uint64(1), uint8(3))
	f.Add(uint64(2), uint8(40))
	f.Fuzz(func(t *testing.T, seed uint64, workers uint8) {
		synctest.Test(t, func(t *testing.T) {
			const most = 1000
			b := wait.NewBudget(most, crowd, time.Second)
			var all sync.WaitGroup
			for i := range uint64(workers%64) + 1 {
				all.Go(func() { work(t, b, rand.New(rand.NewPCG(seed, i)), most) })
			}
			all.Wait()
			held(t, b, 0, 0)
			claim(t, b, most/2).Release()
		})
	})
}

// work makes claims of any size, in any order, some of which give up.
func work(t *testing.T, b *wait.Budget, r *rand.Rand, most int64) {
	for range 20 {
		c := b.Claim()
		var holds int64
		for range r.IntN(4) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(1500))*time.Millisecond)
			n := r.Int64N(most)
			err := c.Grow(ctx, n)
			cancel()
			if err == nil {
				holds += n
			}
			if holds > b.Largest() {
				t.Errorf("a claim holds %d bytes", holds)
			}
			if used, waiting := b.Used(); used < holds || used > most || waiting > crowd {
				t.Errorf("%d bytes are held, %d of them by one claim, and %d wait", used, holds, waiting)
			}
			time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond) // in the bubble
		}
		if r.IntN(2) == 0 {
			c.Shrink(r.Int64N(most))
		}
		c.Release()
	}
}
