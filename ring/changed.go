package ring

// A Change is what became of the ring before.
type Change struct {
	Joined  []Member // by ID
	Left    []Member // by ID, with the weights they had
	Resized []Member // by ID, with the weights they have now
	Moved   float64  // the part of the keys that has another owner, from 0 to 1
}

// Changed tells how r differs from the ring before; nothing has changed in a
// ring that has none before it.
func (r *Ring) Changed() Change {
	var c Change
	if r.former == nil {
		return c
	}
	for _, m := range r.now.members {
		if i, ok := r.former.find(m.ID); !ok {
			c.Joined = append(c.Joined, m)
		} else if r.former.members[i].Weight != m.Weight {
			c.Resized = append(c.Resized, m)
		}
	}
	for _, m := range r.former.members {
		if _, ok := r.now.find(m.ID); !ok {
			c.Left = append(c.Left, m)
		}
	}
	moved := 0
	for p := range uint64(partitions) {
		if r.former.owner(p).ID != r.now.owner(p).ID {
			moved++
		}
	}
	c.Moved = float64(moved) / partitions
	return c
}
