package wait

import (
	"sync"
	"time"
)

// A Limit calls a function once when a time has passed, counted as Within counts it. Its methods
// may be called from any goroutine. As with a time.Timer, the function may run just after Stop.
type Limit struct {
	timer *time.Timer
	do    func()

	mu    sync.Mutex // guards the fields below
	left  int        // steps
	step  time.Duration
	until time.Time // when it is over, however many steps are left
}

// NewLimit returns a Limit that does not run yet.
func NewLimit(do func()) *Limit {
	l := &Limit{do: do}
	l.timer = time.AfterFunc(time.Hour, l.fire)
	l.timer.Stop()
	return l
}

// Reset begins anew: the time is d from now on.
func (l *Limit) Reset(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = stepsOf(d)
	l.step, l.until = d/time.Duration(l.left), time.Now().Add(longest*d)
	l.timer.Reset(l.step)
}

// Stop ends it.
func (l *Limit) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = 0
	l.timer.Stop()
}

// fire ends a step, and begins the next or calls the function.
func (l *Limit) fire() {
	l.mu.Lock()
	if l.left--; l.left > 0 && time.Now().Before(l.until) {
		l.timer.Reset(l.step)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	l.do()
}

// stepsOf returns in how many steps d is waited for.
func stepsOf(d time.Duration) int {
	if d < shortWait {
		return 1
	}
	return naps
}
