package flight

import (
	"context"
	"time"

	"oci-proxy/cache"
)

const (
	// soon is what a reader waits for bytes that a flight is about to bring. To ask for
	// them by themselves takes about as long where the registry is far away.
	soon = time.Second
	// near is how many bytes come soon at first, when nobody knows the speed.
	near = 1 << 20
)

// UnderWay returns the flight that the ticket could board, nil if there is none.
func (f *Flights) UnderWay(t *Ticket) *Flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.boardable(t); e != nil {
		return e.Flight
	}
	return nil
}

// Brings reports whether the flight brings the blob's bytes before end soon. If it seems
// so, it waits for them, a second at most. It reports true, too, if the flight ends
// meanwhile: whoever boards it hears how.
func (fl *Flight) Brings(ctx context.Context, end int64) bool {
	if !fl.seemsNear(end, time.Now()) {
		return false
	}
	within, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	return fl.ingest.Await(within, end) == nil || within.Err() == nil
}

// seemsNear judges by the mean speed that the flight has had. The last bytes of a blob
// need all the others.
func (fl *Flight) seemsNear(end int64, now time.Time) bool {
	size, came := fl.ingest.Size(), fl.ingest.Offset()
	if size >= 0 && end > size-cache.HoldBack {
		end = size
	}
	left := end - came
	if left <= 0 || came == 0 && left <= near {
		return true
	}
	speed := float64(came) / now.Sub(fl.began).Seconds()
	return float64(left) <= speed*soon.Seconds()
}
