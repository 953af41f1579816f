package gate

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// maxHashes bounds the logins that wait for their hash. Of more, the one least
	// likely to be a person's is refused.
	maxHashes = 512
	// maxTraits bounds what is remembered of wrong logins. The least recent goes.
	maxTraits = 16 << 10
	// maxGood bounds the networks remembered for a right login. The least recent goes.
	maxGood = 4096
	// goodAge is how long a network is remembered for a right login.
	goodAge = 24 * time.Hour
)

// errCrowded says that too many logins wait.
var errCrowded = errors.New("too many logins wait to be checked: try again later")

// A desk decides whose hash is computed next. A hash takes a core for a tenth of
// a second or so, and nothing but the hash tells a person from a guesser. So the
// desk looks at what the others have in common: guesses come from one
// neighbourhood, name one user, or come from an address that was wrong before. It
// takes one view after the other, and in each view the login that is most alone
// comes first. Who is alone in any of the views is served within a few hashes.
// Among equals the newest or the oldest comes first, in turn.
//
// Whether the user exists does not count: the wait would tell.
type desk struct {
	mu      sync.Mutex // guards the fields below; never held during I/O
	free    int        // hashes that may begin
	waiting []*applicant
	view    int // of the next choice
	crowd   map[trait]int
	wrong   *simplelru.LRU[trait, mark]
	good    *simplelru.LRU[netip.Prefix, time.Time]
}

// A trait is something that logins may have in common.
type trait struct {
	view int
	of   any // a netip.Prefix, or the hash of a user's name
}

// A mark counts wrong logins since a time.
type mark struct {
	since time.Time
	count int
}

// neighbourhoods are the networks, in bits of IPv4 and IPv6 addresses, that a
// client is seen as part of.
var neighbourhoods = []struct{ v4, v6 int }{{32, 64}, {24, 48}, {16, 32}, {8, 24}}

// views is how many there are: the neighbourhoods and the user's name.
var views = len(neighbourhoods) + 1

// An applicant is a login that waits for its hash.
type applicant struct {
	from   netip.Prefix
	traits []trait
	ready  chan struct{} // closed when its hash may be computed, or it is refused
	served bool          // set before ready is closed
}

func newDesk(hashes int) *desk {
	wrong, _ := simplelru.NewLRU[trait, mark](maxTraits, nil) // the sizes are right
	good, _ := simplelru.NewLRU[netip.Prefix, time.Time](maxGood, nil)
	return &desk{free: hashes, crowd: map[trait]int{}, wrong: wrong, good: good}
}

// traitsOf lists what a login may have in common with others, one for each view.
func traitsOf(from netip.Prefix, user string) []trait {
	var all []trait
	for i, n := range neighbourhoods {
		bits := n.v4
		if from.Addr().Is6() {
			bits = n.v6
		}
		wide, _ := from.Addr().Prefix(bits) // what is no address counts as one and the same
		all = append(all, trait{i, wide})
	}
	return append(all, trait{len(neighbourhoods), sha256.Sum256([]byte(user))}) // a name may be long
}

// take waits until the hash of a login may be computed. The caller calls end with
// what came of it. The error is errCrowded, or the cause of ctx's end.
func (d *desk) take(ctx context.Context, from netip.Prefix, user string) (end func(right bool), err error) {
	a := &applicant{from: from, traits: traitsOf(from, user), ready: make(chan struct{})}
	d.join(a)
	select {
	case <-a.ready:
	case <-ctx.Done():
		if d.withdraw(a) {
			return nil, context.Cause(ctx)
		}
		<-a.ready
	}
	if !a.served {
		return nil, errCrowded
	}
	return func(right bool) { d.end(a, right) }, nil
}

// join lets an applicant wait.
func (d *desk) join(a *applicant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = append(d.waiting, a)
	d.count(a, 1)
	d.serve()
	if len(d.waiting) > maxHashes {
		d.remove(d.worst())
	}
}

// withdraw takes an applicant back. It reports false if it is waiting no more.
func (d *desk) withdraw(a *applicant) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.waiting, a)
	if i >= 0 {
		d.waiting = slices.Delete(d.waiting, i, i+1)
		d.count(a, -1)
	}
	return i >= 0
}

// end notes what came of a hash, and serves the next.
func (d *desk) end(a *applicant, right bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if right {
		d.good.Add(a.from, time.Now().Add(goodAge))
	} else {
		for _, t := range a.traits {
			m := d.mark(t)
			m.count++
			d.wrong.Add(t, m)
		}
	}
	d.free++
	d.serve()
}

// The caller of the methods below holds mu.

// serve lets hashes begin while there is room.
func (d *desk) serve() {
	for d.free > 0 && len(d.waiting) > 0 {
		d.free--
		view := d.view
		d.view = (d.view + 1) % views
		next := d.choose(view)
		d.waiting[next].served = true
		d.remove(next)
	}
}

// choose returns the applicant of the least weight in a view. Of equals one from a
// network with a right login comes first, then the newest, in every other view the
// oldest: so those who came before a crowd are not forgotten.
func (d *desk) choose(view int) (best int) {
	least, known, newest := 0, false, view%2 == 0
	for i, a := range d.waiting {
		w, good := d.weight(a, view), d.isGood(a.from)
		if i == 0 || w < least || w == least && (good && !known || good == known && newest) {
			best, least, known = i, w, good
		}
	}
	return best
}

// worst returns the applicant least likely to be a person: with the most in common
// with others in all views together, and of equals the oldest.
func (d *desk) worst() (worst int) {
	most := 0
	for i, a := range d.waiting {
		sum := 0
		for view := range views {
			sum += d.weight(a, view)
		}
		if sum > most && !d.isGood(a.from) {
			worst, most = i, sum
		}
	}
	return worst
}

// remove ends an applicant's wait.
func (d *desk) remove(i int) {
	a := d.waiting[i]
	d.waiting = slices.Delete(d.waiting, i, i+1)
	d.count(a, -1)
	close(a.ready)
}

// weight is how much an applicant has in common with others in a view: how many
// wait with the same trait, and how many were wrong of late.
func (d *desk) weight(a *applicant, view int) int {
	t := a.traits[view]
	return d.crowd[t] + d.mark(t).count
}

// count adds n to how many wait with each trait of an applicant.
func (d *desk) count(a *applicant, n int) {
	for _, t := range a.traits {
		if d.crowd[t] += n; d.crowd[t] == 0 {
			delete(d.crowd, t)
		}
	}
}

// mark is how many logins with a trait were wrong of late.
func (d *desk) mark(t trait) mark {
	m, ok := d.wrong.Peek(t)
	if !ok || time.Since(m.since) >= failureSpan {
		return mark{since: time.Now()}
	}
	return m
}

// isGood reports whether a login from that network was right of late.
func (d *desk) isGood(from netip.Prefix) bool {
	until, ok := d.good.Peek(from)
	return ok && time.Until(until) > 0
}
