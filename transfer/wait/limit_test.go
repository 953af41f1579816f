package wait

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestALimitEnds(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{0, time.Millisecond, 300 * time.Millisecond, time.Second, 8 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			called := make(chan time.Time, 2)
			l := NewLimit(func() { called <- time.Now() })
			time.Sleep(time.Minute) // in the bubble's time
			start := time.Now()
			l.Reset(d)
			if took := (<-called).Sub(start); took != d {
				t.Errorf("it took %v, want %v", took, d)
			}
			l.Reset(d)
			l.Reset(d + time.Minute)
			time.Sleep(d + time.Second) // in the bubble's time
			l.Stop()
			time.Sleep(time.Hour) // in the bubble's time
			select {
			case <-called:
				t.Error("it was called though it was stopped, or begun anew")
			default:
			}
		})
	}
}

// A process that is not run notices each step late, and the next step begins then.
func TestALimitWaitsForALateProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		called := 0
		l := NewLimit(func() { called++ })
		l.Reset(time.Second)
		l.timer.Stop() // the test notices the steps
		for step := 1; called == 0; step++ {
			time.Sleep(500 * time.Millisecond) // in the bubble's time
			l.fire()
			l.timer.Stop()
			if early := step < 6; early == (called == 1) {
				t.Fatalf("step %d: called %d times, want once, 3 times as late as asked for", step, called)
			}
		}
	})
}
