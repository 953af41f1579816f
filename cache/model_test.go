package cache

import (
	"slices"
	"testing"
	"time"
)

// A model is an index that is simple rather than fast.
type model struct {
	bounds map[string]int64 // "" is the store's
	blobs  []*modelBlob     // least recently used first
}

type modelBlob struct {
	i        int
	registry string
	size     int64
	pins     int
	expelled bool // and still read
}

func (m *model) find(i int) *modelBlob {
	for _, b := range m.blobs {
		if b.i == i && !b.expelled {
			return b
		}
	}
	return nil
}

// used returns the bytes that count for a registry, "" for all.
func (m *model) used(registry string) (n, idle int64) {
	for _, b := range m.blobs {
		if registry == "" || b.registry == registry {
			n += b.size
			if b.pins == 0 {
				idle += b.size
			}
		}
	}
	return n, idle
}

// reserve returns the blobs to evict for n bytes of a registry, in order.
func (m *model) reserve(registry string, n int64) (out []int, ok bool) {
	for _, r := range []string{registry, ""} {
		if bound := m.bounds[r]; bound > 0 {
			if used, idle := m.used(r); used-idle+n > bound {
				return nil, false
			}
		}
	}
	for _, r := range []string{registry, ""} {
		bound := m.bounds[r]
		for used, _ := m.used(r); bound > 0 && used+n > bound; used, _ = m.used(r) {
			at := slices.IndexFunc(m.blobs, func(b *modelBlob) bool { return b.pins == 0 && (r == "" || b.registry == r) })
			out = append(out, m.blobs[at].i)
			m.blobs = slices.Delete(m.blobs, at, at+1)
		}
	}
	return out, true
}

// recent makes b the most recently used.
func (m *model) recent(b *modelBlob) {
	m.blobs = append(slices.DeleteFunc(m.blobs, func(c *modelBlob) bool { return c == b }), b)
}

// A pair is an index and its model in step.
type pair struct {
	*testing.T
	x     *index
	m     *model
	slots map[*modelBlob]int32 // of pinned blobs
}

func (p *pair) insert(i int, registry string, size int64) {
	victims, err := roomOf(p.x).reserve(registry, size)
	want, ok := p.m.reserve(registry, size)
	if ok != (err == nil) || len(victims) != len(want) {
		p.Fatalf("reserve %d: %v, %d victims; model: %v, %v", size, err, len(victims), ok, want)
	}
	for k, v := range victims {
		if p.x.nameOf(v) != testName(want[k]) {
			p.Fatalf("victim %d is not the model's", k)
		}
		p.x.removed(v)
	}
	if !ok {
		return
	}
	if err := roomOf(p.x).settle(registry, size); err != nil {
		p.Fatal("settle:", err)
	}
	slot, ok := p.x.insert(testName(i), registry, size, time.Unix(0, 0), false, 0)
	if ok != (p.m.find(i) == nil) {
		p.Fatal("insert of", i, ok)
	}
	if !ok {
		roomOf(p.x).release(registry, size)
		return
	}
	p.x.leave(slot, time.Unix(0, 0))
	p.m.blobs = append(p.m.blobs, &modelBlob{i: i, registry: registry, size: size})
}

func (p *pair) acquire(i int) {
	slot, e, _, ok := p.x.acquire(testName(i))
	b := p.m.find(i)
	if ok != (b != nil) || ok && e.size != b.size {
		p.Fatal("acquire of", i, ok)
	}
	if ok {
		b.pins++
		p.slots[b] = slot
	}
}

func (p *pair) leave(b *modelBlob) {
	p.x.leave(p.slots[b], time.Unix(0, 0))
	if b.pins--; b.pins > 0 {
		return
	}
	delete(p.slots, b)
	if b.expelled {
		p.m.blobs = slices.DeleteFunc(p.m.blobs, func(c *modelBlob) bool { return c == b })
	} else {
		p.m.recent(b)
	}
}

func (p *pair) expel(b *modelBlob) {
	if p.x.expel(p.slots[b]) == b.expelled {
		p.Fatal("expelled twice, or not")
	}
	if !b.expelled {
		p.x.removed(p.slots[b])
		b.expelled = true
	}
}

func (p *pair) use(i int) {
	held, _ := p.x.use(testName(i), time.Unix(0, 0))
	b := p.m.find(i)
	if held != (b != nil) {
		p.Fatal("use of", i, held)
	}
	if held && b.pins == 0 {
		p.m.recent(b)
	}
}

// check compares the sums of index and model.
func (p *pair) check() {
	x := p.x
	for i := range x.shares.all {
		sh := &x.shares.all[i]
		used, idle := p.m.used(sh.name)
		if sh.space.used.bytes != used || sh.space.idle.bytes != idle || sh.space.reserved != 0 || sh.space.pending != 0 || sh.space.leaving.bytes != 0 {
			p.Fatalf("share %s: %+v; model: used %d, idle %d", sh.name, sh.space, used, idle)
		}
		if b := sh.space.bound; b > 0 && used > b {
			p.Fatal("share exceeds its bound")
		}
	}
	used, idle := p.m.used("")
	if x.shares.total.used.bytes != used || x.shares.total.idle.bytes != idle || x.shares.total.reserved != 0 || x.shares.total.bound > 0 && used > x.shares.total.bound {
		p.Fatalf("room %+v; model: used %d, idle %d", x.shares.total, used, idle)
	}
}
