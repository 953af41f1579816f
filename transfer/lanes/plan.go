package lanes

import (
	"context"
	"slices"
	"time"

	"oci-proxy/transfer/oci"
)

// A plan is which legs a download has, and which lane takes which. Its caller sees to it
// that one goroutine at a time uses it.
type plan struct {
	size  int64  // of the blob, in bytes
	next  int64  // where the next leg begins
	lanes int    // how many there are at most
	legs  []*leg // in order, from the byte that is read next on; there are none after a gap
	room  *store
	pace  pace
	moved int       // how often bytes were taken over
	proof time.Time // when the latest leg was asked for that has come whole
}

// take gives a lane something to bring: what nobody brings, else what comes next, else
// what is late. nil: there is nothing now.
func (p *plan) take(ctx context.Context, l *lane, now time.Time) *leg {
	g := p.free()
	if g == nil {
		g = p.fresh(ctx)
	}
	if g == nil {
		g = p.rescue(now, true)
	}
	if g != nil {
		if l.way != nil && g.Length > wayLeg {
			p.cut(g, wayLeg)
		}
		g.own(l, now)
	}
	return g
}

// free returns the first leg that nobody brings, nil if there is none.
func (p *plan) free() *leg {
	for _, g := range p.legs {
		if g.owner == nil && !g.complete() {
			return g
		}
	}
	return nil
}

// fresh returns a new leg, nil if the blob ends, if as many as may be wait to be read, or
// if there is no memory for it.
func (p *plan) fresh(ctx context.Context) *leg {
	rest := p.size - p.next
	if rest <= 0 || len(p.legs) >= 2*p.lanes {
		return nil
	}
	n := min(p.length(), rest)
	if !p.room.take(ctx, n) {
		if n = min(minLeg, rest); !p.room.take(ctx, n) {
			return nil
		}
	}
	g := &leg{Span: oci.Span{Offset: p.next, Length: n}}
	p.legs = append(p.legs, g)
	p.next += n
	return g
}

// length is how many bytes the next leg is to have. The lanes and two more legs fit into
// the memory. Towards the end legs get shorter, so that the lanes are done at the same time.
func (p *plan) length() int64 {
	usual := min(p.pace.length(), whole(memory/2/int64(p.lanes+2)))
	return min(usual, max(whole((p.size-p.next)/int64(p.lanes)), whole(usual/4)))
}

// rescue takes the first leg that is late from the lane that brings it, and returns what
// is left of it, nil if none is late. If no lane is idle, only a leg counts as late of
// which it is certain that the others' way is free: one was asked for and came after this
// one had fallen silent. A pause of the whole network costs no connection then.
func (p *plan) rescue(now time.Time, idle bool) *leg {
	for _, g := range p.legs {
		if g.late(&p.pace, now) && (idle || p.proof.After(g.silent())) {
			g.stop()
			p.moved++
			rest := p.split(g)
			rest.moves, rest.failures = g.moves+1, g.failures
			return rest
		}
	}
	return nil
}

// split ends a leg at the byte reached, and returns a new one for the rest, which nobody
// brings.
func (p *plan) split(g *leg) *leg {
	rest := &leg{Span: oci.Span{Offset: g.Offset + g.got, Length: g.Length - g.got}, moves: g.moves}
	g.Length, g.owner = g.got, nil
	at := slices.Index(p.legs, g)
	if g.got == 0 {
		p.legs[at] = rest
		return rest
	}
	p.legs = slices.Insert(p.legs, at+1, rest)
	return rest
}

// cut leaves n bytes to a leg of which nothing has come, and returns a new one for the rest.
func (p *plan) cut(g *leg, n int64) {
	rest := &leg{Span: oci.Span{Offset: g.Offset + n, Length: g.Length - n}, moves: g.moves, failures: g.failures}
	g.Length = n
	p.legs = slices.Insert(p.legs, slices.Index(p.legs, g)+1, rest)
}

// finish takes in that all of a leg has come. What others pass on tells nothing of this
// node's own pace.
func (p *plan) finish(g *leg) {
	by := g.owner.way
	g.owner = nil
	if g.asked.After(p.proof) {
		p.proof = g.asked
	}
	if by != nil {
		return
	}
	p.pace.learn(g.first.Sub(g.asked), g.got-g.early, g.last.Sub(g.first))
}

// over reports whether all of the blob has come.
func (p *plan) over() bool {
	return p.next == p.size && !slices.ContainsFunc(p.legs, func(g *leg) bool { return !g.complete() })
}

// underWay reports whether a lane brings something.
func (p *plan) underWay() bool {
	return slices.ContainsFunc(p.legs, func(g *leg) bool { return g.owner != nil })
}

// unread returns bytes that are to be read next, nil if they have not come. end says that
// all were read.
func (p *plan) unread() (b []byte, end bool) {
	for len(p.legs) > 0 {
		g := p.legs[0]
		if b := g.unread(); b != nil {
			return b, false
		}
		if !g.complete() {
			return nil, false
		}
		p.legs = p.legs[1:]
	}
	return nil, p.next == p.size
}

// took hears that n of those bytes were read. It reports whether there may be room now for
// what there was none for.
func (p *plan) took(n int) bool {
	g := p.legs[0]
	p.room.give(int64(n))
	return g.took(int64(n)) || g.complete() && g.read == g.got
}
