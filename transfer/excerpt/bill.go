package excerpt

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
)

// What is got by itself. The sum of all that is asked by ranges is bounded by a share
// of the blob, so nobody's way of reading costs the registry more than that share
// beside the whole.
const (
	// small is the size up to which a blob is always got whole: it arrives as soon, and
	// can be verified.
	small = 1 << 20
	// mostOf is the share of a blob that is got by ranges before it is got whole: a half.
	mostOf = 2
	// most is how many bytes one request may ask for by ranges.
	most = 64 << 20
	// billFor is how long after the last range they are added up.
	billFor = 10 * time.Minute
	// maxBills bounds the blobs whose ranges are added up. One that is forgotten too
	// early begins at 0.
	maxBills = 4096
	// maxMute bounds the registries that are remembered for ignoring Range.
	maxMute = 1024
)

// A bill is what was asked by ranges of one blob lately, and what came.
type bill struct {
	size  int64 // as the registry tells it, -1: not known
	spent int64 // bytes
	notes []note
	until time.Time
}

// bills are those of all blobs, and the registries that serve no ranges.
type bills struct {
	mu   sync.Mutex // guards the fields below; never held during I/O
	of   *simplelru.LRU[oci.Content, bill]
	mute *simplelru.LRU[string, time.Time] // until when a registry is not asked for ranges
}

func newBills() *bills {
	of, _ := simplelru.NewLRU[oci.Content, bill](maxBills, nil) // the sizes are right
	mute, _ := simplelru.NewLRU[string, time.Time](maxMute, nil)
	return &bills{of: of, mute: mute}
}

// at returns the bill of a blob. The caller holds mu.
func (b *bills) at(c oci.Content) bill {
	if one, ok := b.of.Get(c); ok && time.Now().Before(one.until) {
		return one
	}
	return bill{size: -1}
}

// put notes a bill. The caller holds mu.
func (b *bills) put(c oci.Content, one bill) {
	one.until = time.Now().Add(billFor)
	b.of.Add(c, one)
}

// learn notes a blob's size.
func (b *bills) learn(c oci.Content, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.at(c)
	one.size = size
	b.put(c, one)
}

// size returns the size that was learnt, -1 if none was.
func (b *bills) size(c oci.Content) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at(c).size
}

// take puts n bytes more on the bill of a blob of that size. It reports false, and
// notes nothing, if the whole is to be got instead.
func (b *bills) take(c oci.Content, size, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until, ok := b.mute.Get(c.Registry); ok && time.Now().Before(until) {
		return false
	}
	one := b.at(c)
	if size <= small || n > most || n > size/mostOf-one.spent && n > 0 {
		return false
	}
	one.spent += n
	b.put(c, one)
	return true
}

// giveBack takes n bytes off a bill that were not asked for after all.
func (b *bills) giveBack(c oci.Content, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one, ok := b.of.Peek(c); ok {
		one.spent = max(one.spent-n, 0)
		b.of.Add(c, one)
	}
}

// silence notes that a registry answers ranges with the whole.
func (b *bills) silence(registry string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mute.Add(registry, time.Now().Add(billFor))
}

// A budget is a number of bytes that may be held at a time.
type budget struct {
	mu   sync.Mutex // guards the field below; never held during I/O
	free int64
}

// take takes n bytes and reports whether there were as many.
func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.free {
		return false
	}
	b.free -= n
	return true
}

// giveBack gives n bytes back.
func (b *budget) giveBack(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
}
