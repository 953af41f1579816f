package excerpt

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// shelfSize is how many bytes the shelf holds.
	shelfSize = 32 << 20
	// shelfFor is how long a piece stays. The readers of an image begin with the same
	// pieces, on each node.
	shelfFor = time.Minute
	// maxShelved bounds the pieces, however small.
	maxShelved = 1024
)

// A shelf keeps the pieces that came last.
type shelf struct {
	mu    sync.Mutex // guards the fields below; never held during I/O
	kept  *simplelru.LRU[key, shelved]
	bytes int
}

// A shelved piece stays until a time.
type shelved struct {
	*piece
	until time.Time
}

func newShelf() *shelf {
	s := &shelf{}
	s.kept, _ = simplelru.NewLRU(maxShelved, func(_ key, p shelved) { s.bytes -= len(p.bytes) }) // the size is right
	return s
}

// get returns the piece of that key, nil if it is not there.
func (s *shelf) get(k key) *piece {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.kept.Get(k)
	if !ok {
		return nil
	}
	if time.Now().After(p.until) {
		s.kept.Remove(k)
		return nil
	}
	return p.piece
}

// put puts a piece on the shelf. Those that were used least make room.
func (s *shelf) put(k key, p *piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.Remove(k)
	s.kept.Add(k, shelved{p, time.Now().Add(shelfFor)})
	for s.bytes += len(p.bytes); s.bytes > shelfSize; {
		s.kept.RemoveOldest()
	}
}
