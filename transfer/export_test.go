package transfer

import (
	"slices"
	"time"

	"oci-proxy/transfer/oci"
)

// Grant notes that ref's registry vouched for it at a time, for tests that need an old
// grant.
func (f *Fetcher) Grant(ref oci.Ref, as oci.Resource, at time.Time) {
	f.grants.Grant(f.request(ref), as, at)
}

// GrantedAt returns when ref's registry last vouched for it.
func (f *Fetcher) GrantedAt(ref oci.Ref, as oci.Resource) time.Time {
	return f.grants.At(f.request(ref), as)
}

// Aboard is for tests that wait until so many requests wait for a blob.
func (f *Fetcher) Aboard(ref oci.Ref) int { return f.flights.Aboard(ref.Content()) }

// The deadlines, for the test of their order.
const (
	Stall        = stall
	SizeWithin   = sizeWithin
	AnswerWithin = answerWithin
	Promised     = promised
)

// Insist makes what is handed back be offered so often, a moment apart.
func (f *Fetcher) Insist(times int) {
	f.handBack.pauses = slices.Repeat([]time.Duration{10 * time.Millisecond}, times)
}

// MemoryUsed is how many bytes of memory answers on their way hold.
func (f *Fetcher) MemoryUsed() int64 {
	used, _ := f.memory.Used()
	return used
}
