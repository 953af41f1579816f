package cache

import "time"

// A mark is how far a follower is. The stream guards it.
type mark struct {
	pos      int64 // what it reads next
	patience time.Duration
	behind   bool // it reads from another source, and only waits for the verdict
}

// A crowd is the followers of an ingest. The stream guards it.
type crowd struct {
	marks    map[*mark]struct{}
	moved    signal // fires when a follower read on, came or left
	expected bool   // do not wait for a follower: one came, or none will
}

// add adds a follower and returns its mark.
func (c *crowd) add() *mark {
	m := &mark{patience: patience}
	c.marks[m] = struct{}{}
	c.expected = true
	c.moved.fire()
	return m
}

// remove removes a follower.
func (c *crowd) remove(m *mark) {
	delete(c.marks, m)
	c.moved.fire()
}

// leaveBehind makes the writer go on without a follower.
func (c *crowd) leaveBehind(m *mark) {
	m.behind = true
	c.moved.fire()
}

// survey returns how far the fastest follower has read, and the followers that
// have not read up to end.
func (c *crowd) survey(end int64) (fastest int64, laggards []*mark) {
	fastest = -1
	for m := range c.marks {
		if m.behind {
			continue
		}
		fastest = max(fastest, m.pos)
		if m.pos < end {
			laggards = append(laggards, m)
		}
	}
	return fastest, laggards
}
