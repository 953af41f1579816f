package cache

import (
	"slices"
	"time"
)

// idleBatch is how many blobs are evicted at a time at most because nobody asked for them, so
// that the rest of the caretaker's work is not put off for long.
const idleBatch = 1000

// expireIdle evicts blobs that nobody asked for as long as their registry's MaxIdle says.
func (c *caretaker) expireIdle(d *disk) {
	if c.maxIdle == nil {
		return
	}
	victims := room{c.index}.expire(time.Now(), c.maxIdle, idleBatch)
	if len(victims) == 0 {
		return
	}
	err := c.remover.removeFiles(&d.root, victims)
	c.remover.noteFailure(err)
	if err == nil {
		c.log.Info("blobs evicted that nobody asked for within max_idle", "blobs", len(victims))
	}
}

// expire evicts at most so many blobs that were last used longer ago than maxIdle says of
// their share's registry; 0: never. The caller removes their files.
func (r room) expire(now time.Time, maxIdle func(registry string) time.Duration, most int) (out []int32) {
	for sh, registry := range r.shares() {
		idle := maxIdle(registry)
		if idle <= 0 || len(out) >= most {
			continue
		}
		out = append(out, r.x.expire(uint16(sh), now.Add(-idle), most-len(out))...)
	}
	return out
}

// shares returns the names of the shares, by number.
func (r room) shares() (names []string) {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	for _, sh := range r.x.shares.all {
		names = append(names, sh.name)
	}
	return names
}

// expire is room.expire for one share: what was last used before since.
func (x *index) expire(sh uint16, since time.Time, most int) []int32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := x.table.before(sh, uint32(since.Unix()), most)
	for _, i := range out {
		x.shares.all[sh].evictions[Idle]++
		x.remove(i, evicted)
	}
	return out
}

// before returns at most so many idle blobs of a share that were last used before then. An
// order of use ends the search: only those that are older than any use are not in order of
// time.
func (t *table) before(sh uint16, since uint32, most int) (out []int32) {
	for _, o := range []order{t.ordersOf(sh).spare, t.ordersOf(sh).own} {
		for i := o.tail; i != none && len(out) < most; i = t.at(i).prev {
			e := t.at(i)
			if e.last < since {
				out = append(out, i)
			} else if e.used > firstUse {
				break
			}
		}
	}
	return slices.Clip(out)
}
