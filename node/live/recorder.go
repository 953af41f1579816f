package live

import (
	"sync"
	"time"

	"oci-proxy/node/figures"
)

// A recorder keeps the last hour.
type recorder struct {
	mu   sync.Mutex // guards the fields below; never held during I/O
	hour *figures.Hour
	sent figures.Minute // since start, as last seen
}

func newRecorder() *recorder { return &recorder{hour: figures.HourAt(time.Now())} }

// answered counts a pull that was answered.
func (r *recorder) answered(now time.Time, first time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.hour.At(now); m != nil { // a clock may go back
		m.Answered(first)
	}
}

// record counts what was sent since it was last called. sent is what was sent since start.
func (r *recorder) record(now time.Time, sent figures.Minute) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(now, sent)
}

// add is record for a caller that holds mu.
func (r *recorder) add(now time.Time, sent figures.Minute) {
	m := r.hour.At(now)
	if m == nil {
		return // it counts in the next minute
	}
	for c := range sent {
		m[c] += max(0, sent[c]-r.sent[c])
	}
	r.sent = sent
}

// now returns the hour, with what was sent until now.
func (r *recorder) now(now time.Time, sent figures.Minute) *figures.Hour {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(now, sent)
	h := *r.hour
	h.At(now)
	return &h
}
