package peer

import (
	"bytes"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// width is how far a request may lag behind the newest of its sender: as many
	// as can overtake one that waits for its connection.
	width = 1 << 14
	// pageWidth is how many numbers a page of a window is for, and pages how many pages there are:
	// of those that the newest number lies in, and of width numbers before.
	pageWidth = 1 << 11
	pages     = width/pageWidth + 1
	// maxSenders bounds how many senders' numbers are kept (2.4 KiB each at most, and a seventh
	// of that of one that sends little).
	maxSenders = 4096
)

// A window knows which of the latest numbers of one boot of a sender were seen.
type window struct {
	nonce []byte
	top   uint64
	seen  [pages]*[pageWidth / 64]uint64 // nil: none of the page's
}

// take notes n and reports whether it is new. A number too old to be known counts
// as seen.
func (w *window) take(n uint64) bool {
	if n > w.top {
		for page := max(w.top/pageWidth, n/pageWidth-min(n/pageWidth, pages)); page < n/pageWidth; {
			page++
			w.seen[page%pages] = nil // it was that of numbers older than width
		}
		w.top = n
	}
	if w.top-n >= width {
		return false
	}
	page := &w.seen[n/pageWidth%pages]
	if *page == nil {
		*page = new([pageWidth / 64]uint64)
	}
	word, bit := &(*page)[n%pageWidth/64], uint64(1)<<(n%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// replays keeps the windows of all senders.
type replays struct {
	member roster

	mu      sync.Mutex                      // guards the fields below; never held during I/O
	windows *simplelru.LRU[string, *window] // by sender's id
}

// newReplays knows no sender.
func newReplays(member roster) *replays {
	windows, err := simplelru.NewLRU[string, *window](maxSenders, nil)
	if err != nil { // only for a size that is not positive
		panic(err)
	}
	return &replays{member: member, windows: windows}
}

// take reports whether the number is new for that boot of the sender. The caller
// has checked the request's signature. The window of a sender that left is kept as
// long as there is room: what it sent could be sent again when it is back.
func (r *replays) take(m Member, number uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.windows.Get(m.ID)
	if !ok && !r.room() {
		return false
	}
	if !ok || !bytes.Equal(w.nonce, m.Nonce) {
		w = &window{nonce: bytes.Clone(m.Nonce)}
		r.windows.Add(m.ID, w)
	}
	return w.take(number)
}

// room makes room for one more sender: it forgets the one that is gone and has
// sent nothing for longest. It never forgets a member's window, which would let
// that member's requests be sent again.
func (r *replays) room() bool {
	if r.windows.Len() < maxSenders {
		return true
	}
	for _, id := range r.windows.Keys() {
		w, _ := r.windows.Peek(id)
		if m, ok := r.member(id); !ok || !bytes.Equal(m.Nonce, w.nonce) {
			return r.windows.Remove(id)
		}
	}
	return false
}
