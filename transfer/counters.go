package transfer

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Counters are what one registry's clients were served.
type Counters struct {
	Hits, Misses        atomic.Int64 // requests
	HitBytes, MissBytes atomic.Int64 // bytes sent to clients
}

// counters are the counters of each registry that has delivered something.
type counters struct {
	mu         sync.Mutex
	byRegistry map[string]*Counters
}

// of returns a registry's counters.
func (c *counters) of(registry string) *Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	one, ok := c.byRegistry[registry]
	if !ok {
		if c.byRegistry == nil {
			c.byRegistry = map[string]*Counters{}
		}
		one = new(Counters)
		c.byRegistry[registry] = one
	}
	return one
}

// count counts a request.
func (c *counters) count(registry string, from Origin) {
	if from == Hit {
		c.of(registry).Hits.Add(1)
	} else {
		c.of(registry).Misses.Add(1)
	}
}

// Sent counts bytes that went to a client.
func (f *Fetcher) Sent(registry string, from Origin, n int64) {
	if from == Hit {
		f.counters.of(registry).HitBytes.Add(n)
	} else {
		f.counters.of(registry).MissBytes.Add(n)
	}
}

// Counters returns the live counters of each registry that has delivered something.
func (f *Fetcher) Counters() map[string]*Counters {
	f.counters.mu.Lock()
	defer f.counters.mu.Unlock()
	return maps.Clone(f.counters.byRegistry)
}
