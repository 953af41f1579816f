package flight

import (
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

// An Outlook is what a flight under way promises.
type Outlook struct {
	Size int64 // of the blob in bytes, -1: not known
	Soon bool  // the bytes asked about are here, or will be within a second as it seems
}

// Outlook returns what the flight that the ticket could board promises about the bytes
// before end, nil if there is no such flight.
func (f *Flights) Outlook(t *Ticket, end int64) *Outlook {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.boardable(t)
	if e == nil {
		return nil
	}
	return &Outlook{Size: e.ingest.Size(), Soon: e.soon(end, time.Now())}
}

// soon reports whether the flight brings the bytes before end soon, at the mean speed
// it has had. The last bytes of a blob need all the others.
func (fl *Flight) soon(end int64, now time.Time) bool {
	size, came := fl.ingest.Size(), fl.ingest.Offset()
	if size >= 0 && end > size-cache.HoldBack {
		end = size
	}
	left := end - came
	if left <= cache.HoldBack || came == 0 && left <= near {
		return true
	}
	speed := float64(came) / now.Sub(fl.began).Seconds()
	return float64(left) <= speed*soon.Seconds()
}
