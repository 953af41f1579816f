package cluster

import (
	"slices"
	"sync"
	"time"

	"oci-proxy/cache"
)

const (
	// maxFresh bounds the blobs that have just come and wait for a second copy; the oldest
	// go. They are looked at again when the ring changes.
	maxFresh = 4096
	// maxBacklog bounds the blobs that are looked at after a change of the ring: those used
	// last.
	maxBacklog = 1 << 16
	// maxPerhaps bounds, of the blobs that are looked at when a member is lost, those of which no
	// other holder was ever seen.
	maxPerhaps = 1 << 12
)

// A waiting list is the blobs that may need a second copy: those that have just come, the
// newest first, then what is held, what was used last first. Those that have lost it are
// a list of their own.
type waiting struct {
	after time.Duration // how long a blob waits at least, because others may be getting it

	mu      sync.Mutex // guards the fields below
	fresh   []arrival  // the oldest first
	backlog []cache.Held
	alone   []cache.Held  // those that have lost it, in reverse
	more    chan struct{} // holds a value when there is more
	rush    chan struct{} // holds a value when there is more that is urgent
}

// An arrival is a blob that came at that time.
type arrival struct {
	blob cache.Held
	at   time.Time
}

func newWaiting(after time.Duration) *waiting {
	return &waiting{after: after, more: make(chan struct{}, 1), rush: make(chan struct{}, 1)}
}

// add adds a blob that has just come. It reports whether another had to go for it.
func (w *waiting) add(b cache.Held, now time.Time) (lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if lost = len(w.fresh) >= maxFresh; lost {
		w.fresh = slices.Delete(w.fresh, 0, 1)
	}
	w.fresh = append(w.fresh, arrival{b, now})
	wake(w.more)
	return lost
}

// look replaces what is left of the blobs that were to be looked at. They come in the
// order in which they are to be.
func (w *waiting) look(blobs []cache.Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.backlog = reversed(blobs)
	wake(w.more)
}

// hurry replaces what is left of the blobs that have lost their second copy, as look does.
func (w *waiting) hurry(blobs []cache.Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alone = reversed(blobs)
	wake(w.rush)
}

// reversed returns the first of the blobs, the first one last.
func reversed(blobs []cache.Held) []cache.Held {
	blobs = slices.Clone(blobs[:min(len(blobs), maxBacklog)])
	slices.Reverse(blobs)
	return blobs
}

// wake says that there is more.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// urgent takes the blob that has lost its second copy and whose turn it is.
func (w *waiting) urgent() (b cache.Held, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.alone)
	if n == 0 {
		return b, false
	}
	b, w.alone = w.alone[n-1], w.alone[:n-1]
	if n > 1 {
		wake(w.rush) // another may see to the next
	}
	return b, true
}

// next takes the blob whose turn it is. If there is none it returns for how long at most
// there will be none; 0: until more comes.
func (w *waiting) next(now time.Time) (b cache.Held, ok bool, idle time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	due := now.Add(-w.after)
	for i, one := range slices.Backward(w.fresh) {
		if !one.at.After(due) {
			w.fresh = slices.Delete(w.fresh, i, i+1)
			return one.blob, true, 0
		}
	}
	if n := len(w.backlog); n > 0 {
		b, w.backlog = w.backlog[n-1], w.backlog[:n-1]
		return b, true, 0
	}
	if len(w.fresh) > 0 {
		idle = w.fresh[0].at.Sub(due)
	}
	return b, false, idle
}

// takeFresh takes all blobs that have just come, the newest first.
func (w *waiting) takeFresh() (blobs []cache.Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range slices.Backward(w.fresh) {
		blobs = append(blobs, one.blob)
	}
	w.fresh = nil
	return blobs
}

// size returns how many blobs wait.
func (w *waiting) size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(len(w.fresh) + len(w.backlog) + len(w.alone))
}
