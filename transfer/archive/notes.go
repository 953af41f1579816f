package archive

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// What is remembered at most. Clients make up digests and registries.
const (
	maxNotes  = 8192
	maxSpeeds = 256
)

// A note is what is known of an object.
type note struct {
	wrong bool // its bytes are not those of its name
	until time.Time
}

// notes remember which objects the bucket has, and which of them are wrong.
type notes struct {
	mu  sync.Mutex // guards lru; never held during I/O
	lru *simplelru.LRU[string, note]
}

func newNotes() *notes {
	lru, _ := simplelru.NewLRU[string, note](maxNotes, nil) // the size is right
	return &notes{lru: lru}
}

// hadFor is for how long an object is taken to be there that was. The bucket's own rules may
// remove it.
const hadFor = time.Hour

// has notes that the bucket has the object.
func (n *notes) has(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lru.Add(key, note{until: time.Now().Add(hadFor)})
}

// lied notes that the object has wrong bytes.
func (n *notes) lied(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lru.Add(key, note{wrong: true, until: time.Now().Add(wrongFor)})
}

// lacks notes that the bucket does not have the object.
func (n *notes) lacks(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old, ok := n.lru.Peek(key); ok && !old.wrong {
		n.lru.Remove(key)
	}
}

// of returns what is known of an object: that it is there, or that it is wrong.
func (n *notes) of(key string) (there, wrong bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	one, ok := n.lru.Get(key)
	if !ok || time.Now().After(one.until) {
		return false, false
	}
	return !one.wrong, one.wrong
}

// A standing is how a registry does, to compare the bucket with.
type standing struct {
	rate float64 // bytes a second of its blobs, a moving average; 0: not known
	down bool    // it failed when it was last asked
}

// standings remember how registries do.
type standings struct {
	mu  sync.Mutex // guards lru; never held during I/O
	lru *simplelru.LRU[string, standing]
}

func newStandings() *standings {
	lru, _ := simplelru.NewLRU[string, standing](maxSpeeds, nil) // the size is right
	return &standings{lru: lru}
}

// of returns what is known of a registry.
func (s *standings) of(registry string) standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, _ := s.lru.Get(registry)
	return one
}

// asked notes whether a registry answered.
func (s *standings) asked(registry string, answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, _ := s.lru.Get(registry)
	one.down = !answered
	s.lru.Add(registry, one)
}

const (
	// weight is how much the newest measurement counts in a moving average.
	weight = 0.3
	// leastMeasured is how many bytes tell a speed.
	leastMeasured = 64 << 10
)

// sent notes that a registry sent n bytes in that time. Fewer than leastMeasured tell nothing.
func (s *standings) sent(registry string, n int64, in time.Duration) {
	if n < leastMeasured {
		return
	}
	rate := float64(n) / max(in.Seconds(), 1e-6)
	s.mu.Lock()
	defer s.mu.Unlock()
	one, _ := s.lru.Get(registry)
	if one.rate > 0 {
		rate = one.rate + weight*(rate-one.rate)
	}
	one.rate = rate
	s.lru.Add(registry, one)
}
