package membership

import (
	"context"
	"slices"
	"time"

	"oci-proxy/ring"
)

// maxFailedRings bounds the rings that are remembered because they can't be built.
const maxFailedRings = 32

// A heardRing is one that others tell of, or an earlier run of this node, not built yet.
type heardRing struct {
	hash    uint64
	members []ring.Member
	end     time.Time
}

// news reports whether a ring that another node tells of is worth building. It is called
// with f.mu held.
func (f *formers) news(hash uint64, end time.Time) bool {
	if f.now != nil && f.now.Hash() == hash {
		return false
	}
	settled := 0
	for _, p := range f.all {
		if p.ring.Hash() == hash {
			return end.Sub(p.end) >= sameLoss
		}
		if p.stood >= stoodFor && !p.end.Before(end) {
			settled++
		}
	}
	return settled < formerRings
}

// hear takes the rings that another node tells of, to be built.
func (f *formers) hear(t *toldRings, now time.Time) {
	if t == nil {
		return
	}
	told := t.decode(now)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = slices.DeleteFunc(f.failed, func(h heardRing) bool { return !now.Before(h.end) })
	for _, h := range told {
		waits := slices.ContainsFunc(f.heard, func(o heardRing) bool { return o.hash == h.hash })
		fails := slices.ContainsFunc(f.failed, func(o heardRing) bool { return o.hash == h.hash && slices.Equal(o.members, h.members) })
		if len(f.heard) < maxHeldRings && !waits && !fails && f.news(h.hash, h.end) {
			f.heard = append(f.heard, h)
		}
	}
	if len(f.heard) > 0 && f.busy == nil {
		f.busy = make(chan struct{})
		select {
		case f.work <- struct{}{}:
		default:
		}
	}
}

// run builds what is heard of until ctx ends, with next as ring.Next, and calls built when there
// is more for a View. Rings of many members take seconds: no View waits for that.
func (f *formers) run(ctx context.Context, next func(*ring.Ring, []ring.Member) (*ring.Ring, error), built func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.work:
			if f.build(ctx, next) {
				built()
			}
		}
	}
}

// build builds the rings that were heard of, each if it still counts when its turn comes and
// when it is there. It reports whether one has been added.
func (f *formers) build(ctx context.Context, next func(*ring.Ring, []ring.Member) (*ring.Ring, error)) (added bool) {
	var last *ring.Ring // rings that follow each other share what builds them, and these not with the one in use
	for ctx.Err() == nil {
		h, r, more := f.first()
		if !more {
			break
		}
		var err error
		if r == nil && len(h.members) > 0 {
			if last == nil {
				last, err = ring.New(h.members[:1])
			}
			if err == nil {
				r, err = next(last, h.members)
			}
			if err == nil {
				last = r
			}
		}
		added = f.take(h, r, err) || added
	}
	return added
}

// first returns the next ring to build, or the ring itself if it is known. What no longer counts
// is dropped.
func (f *formers) first() (h heardRing, known *ring.Ring, more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = slices.DeleteFunc(f.heard, func(h heardRing) bool { return !f.news(h.hash, h.end) })
	if len(f.heard) == 0 {
		if f.busy != nil {
			close(f.busy)
			f.busy = nil
		}
		return h, nil, false
	}
	h = f.heard[0]
	for _, p := range f.all {
		if p.ring.Hash() == h.hash {
			known = p.ring
		}
	}
	return h, known, true
}

// take takes the first of those heard of, as it was built. One that another version tells of,
// which places keys otherwise, is remembered, so that it is not built again and again.
func (f *formers) take(h heardRing, r *ring.Ring, err error) (added bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = slices.Delete(f.heard, 0, 1)
	if err != nil || r == nil || r.Hash() != h.hash {
		f.failed = append(f.failed, h)
		f.failed = f.failed[max(0, len(f.failed)-maxFailedRings):]
		return false
	}
	if added = f.news(h.hash, h.end); added {
		f.add(former{r, stoodFor, h.end})
	}
	return added
}

// await waits until all rings that were heard of are built, or ctx ends. It reports whether there
// was something to wait for.
func (f *formers) await(ctx context.Context) bool {
	f.mu.Lock()
	busy := f.busy
	f.mu.Unlock()
	if busy == nil {
		return false
	}
	select {
	case <-busy:
	case <-ctx.Done():
	}
	return true
}
