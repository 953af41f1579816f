package archive

import (
	"sync"
	"time"
)

// A breaker says whether the bucket is used. One that failed is out of use until it answers a
// probe. The first one comes after a rest, and each that fails doubles the next rest.
type breaker struct {
	mu       sync.Mutex // guards the fields below; never held during I/O
	out      bool       // not in use
	slow     bool       // it was last put out of use for a slow download: only a good one shows that it is well
	failures int        // in a row
	until    time.Time  // the rest's end
	probing  bool
	why      string
}

// inUse reports whether the bucket is used.
func (b *breaker) inUse() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.out
}

// failed puts the bucket out of use.
func (b *breaker) failed(why string, slow bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.out { // many requests may fail of one cause
		b.rest(why)
		b.slow = slow
	}
}

// answered notes that the bucket answered in time.
func (b *breaker) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out = false
	if !b.slow {
		b.failures = 0
	}
}

// delivered notes a download, or an upload, that went well.
func (b *breaker) delivered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out, b.slow, b.failures = false, false, 0
}

// due reports whether the bucket is to be probed now, by the caller, who says tried in the
// end. wait is how long it is to be left alone otherwise.
func (b *breaker) due() (wait time.Duration, now bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait = time.Until(b.until); !b.out || wait > 0 {
		return max(wait, 0), false
	}
	now, b.probing = !b.probing, true
	return time.Second, now
}

// tried ends a probe. why is "" if it went well.
func (b *breaker) tried(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	if why != "" {
		b.rest(why)
	}
}

// rest begins a rest. The caller holds mu.
func (b *breaker) rest(why string) {
	b.out, b.why = true, why
	b.until = time.Now().Add(min(firstRest<<min(b.failures, 10), longestRest))
	b.failures++
}

// wrong is why the bucket is out of use, "" while it is in use, and when nobody has tried it
// for long.
func (b *breaker) wrong() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.out || time.Since(b.until) > longestRest {
		return ""
	}
	return b.why
}
