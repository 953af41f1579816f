package cluster

import "sync"

// Callers are the members whose offers this node is taking. They live, whatever gossip says:
// a node that hardly ever gets a processor takes others for dead. The zero value has none.
type callers struct {
	mu  sync.Mutex // guards the field below
	now map[string]int
}

// enter notes that a member is asking, until leave is called.
func (c *callers) enter(id string) (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		c.now = map[string]int{}
	}
	c.now[id]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.now[id]--; c.now[id] == 0 {
			delete(c.now, id)
		}
	}
}

// has reports whether the member is asking.
func (c *callers) has(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now[id] > 0
}
