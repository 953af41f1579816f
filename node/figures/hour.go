package figures

import (
	"encoding/json"
	"slices"
	"time"
)

// Minutes is how many minutes an Hour has.
const Minutes = 60

// maxOfMinute bounds a number of a minute, so that no sum over the hour of all nodes overflows.
const maxOfMinute = 1 << 46

// A Column is one number of a minute.
type Column int

// The columns of a minute. Their order is outward: members tell each other minutes as lists.
const (
	Requests      Column = iota // of pulls that were answered
	HitSent                     // bytes sent to clients from the node's own disk
	PeerHitSent                 // bytes sent to clients from another node's disk
	MissSent                    // bytes sent to clients from upstream
	UpstreamBytes               // bytes of blobs received from upstream
	first                       // the first of the numbers of FirstBytes
	columns       = first + Column(len(FirstBytes)) + 1
)

// FirstBytes bound the times to the first byte that are counted together. What takes longer
// than the last is counted after it.
var FirstBytes = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// A Minute is what happened within one.
type Minute [columns]int64

// Answered counts a pull whose first byte took that long.
func (m *Minute) Answered(took time.Duration) {
	m[Requests]++
	i, _ := slices.BinarySearch(FirstBytes[:], took)
	m[first+Column(i)]++
}

// First returns within how long the first byte came of that part of the pulls, 0 to 1, as well
// as the bounds tell. It reports false if there were none.
func (m *Minute) First(part float64) (time.Duration, bool) {
	var all int64
	for _, n := range m[first:] {
		all += n
	}
	if all == 0 {
		return 0, false
	}
	wanted, below := part*float64(all), int64(0)
	for i, n := range m[first:] {
		if n > 0 && float64(below+n) >= wanted {
			return between(i, (wanted-float64(below))/float64(n)), true
		}
		below += n
	}
	return FirstBytes[len(FirstBytes)-1], true
}

// between is a time within the bounds of a number of FirstBytes.
func between(i int, part float64) time.Duration {
	if i == len(FirstBytes) {
		return FirstBytes[i-1]
	}
	low := time.Duration(0)
	if i > 0 {
		low = FirstBytes[i-1]
	}
	return low + time.Duration(part*float64(FirstBytes[i]-low))
}

// Add adds another minute.
func (m *Minute) Add(o *Minute) {
	for c := range m {
		m[c] += o[c]
	}
}

// An Hour is what happened within each of 60 minutes.
type Hour struct {
	End     int64 // the last minute, in minutes since 1970
	Minutes [Minutes]Minute
}

// HourAt is an empty hour that ends with the minute of now.
func HourAt(now time.Time) *Hour { return &Hour{End: now.Unix() / 60} }

// At returns the minute of that time, which becomes the last if it is later, and nil if it is
// before the hour.
func (h *Hour) At(now time.Time) *Minute {
	minute := now.Unix() / 60
	if ahead := minute - h.End; ahead > 0 {
		copy(h.Minutes[:], h.Minutes[min(ahead, Minutes):])
		clear(h.Minutes[Minutes-min(ahead, Minutes):])
		h.End = minute
	}
	return h.of(minute)
}

// of is the minute of that number, nil if it is not of the hour.
func (h *Hour) of(minute int64) *Minute {
	if i := Minutes - 1 - (h.End - minute); i >= 0 && i < Minutes {
		return &h.Minutes[i]
	}
	return nil
}

// Add adds what another node tells. Minutes that are not of this hour are left out.
func (h *Hour) Add(o *Hour) {
	for i := range o.Minutes {
		if to := h.of(o.End - int64(Minutes-1-i)); to != nil {
			to.Add(&o.Minutes[i])
		}
	}
}

// Sum is the whole hour.
func (h *Hour) Sum() (sum Minute) {
	for i := range h.Minutes {
		sum.Add(&h.Minutes[i])
	}
	return sum
}

// A toldHour is an Hour as members tell it: without the zeros at either end.
type toldHour struct {
	End     int64     `json:"end"`
	Minutes [][]int64 `json:"minutes"` // the last is that of End
}

// MarshalJSON writes the hour as {"end": …, "minutes": [[…], …]}. Minutes before the first in
// which something happened are left out, and zeros at the end of a minute.
func (h *Hour) MarshalJSON() ([]byte, error) {
	told := toldHour{End: h.End, Minutes: [][]int64{}}
	for i := range h.Minutes {
		m := h.Minutes[i][:]
		for len(m) > 0 && m[len(m)-1] == 0 {
			m = m[:len(m)-1]
		}
		if len(m) > 0 || len(told.Minutes) > 0 {
			told.Minutes = append(told.Minutes, m)
		}
	}
	return json.Marshal(told)
}

// UnmarshalJSON reads such an hour. Columns that it does not know are a later version's and
// are ignored; what is out of bounds is an error.
func (h *Hour) UnmarshalJSON(raw []byte) error {
	var told toldHour
	if err := json.Unmarshal(raw, &told); err != nil {
		return err
	}
	if len(told.Minutes) > Minutes || !sane(told.End) {
		return errBounds
	}
	*h = Hour{End: told.End}
	for i, from := range told.Minutes {
		for _, n := range from {
			if n < 0 || n > maxOfMinute {
				return errBounds
			}
		}
		copy(h.Minutes[Minutes-len(told.Minutes)+i][:], from)
	}
	return nil
}
