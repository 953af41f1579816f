package membership

import (
	"context"
	"fmt"
	"slices"
	"time"

	"oci-proxy/ring"
)

const (
	// debounce gathers changes. Not for longer: lookups want the news.
	debounce = 50 * time.Millisecond
	// formerRings and formerFor bound View.Former.
	formerRings = 4
	formerFor   = 10 * time.Minute
	// twiceFor is how long this node's id may live twice: so long it may take
	// to see that its last boot has died.
	twiceFor = 15 * time.Second
)

// A past is a ring that was replaced.
type past struct {
	ring *ring.Ring
	end  time.Time // when it leaves View.Former
}

// A builder makes the views. Only its one goroutine has it.
type builder struct {
	m      *Membership
	former []past // the latest first
	failed string // why there is no newer ring
	twice  bool   // duplicate identity has been told
}

// run makes a view whenever something changes, or its time comes.
func (b *builder) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-b.m.roster.dirty:
			select {
			case <-ctx.Done():
				return
			case <-time.After(debounce):
			}
			select {
			case <-b.m.roster.dirty: // part of what is seen below
			default:
			}
		}
		next := b.refresh(time.Now())
		timer.Reset(time.Until(next))
	}
}

// refresh makes the view of now, and tells when the next one is due.
func (b *builder) refresh(now time.Time) time.Time {
	m := b.m
	c := m.roster.count(now)
	m.book.note(c, m.roster.self, now)
	m.settle(c.members)
	next := earlier(c.next, b.watch(now))
	old := m.view.Load()
	r := b.ring(old.Ring, c.members)
	if r != old.Ring {
		b.former = slices.Insert(b.former, 0, past{old.Ring, now.Add(formerFor)})
	}
	b.former = slices.DeleteFunc(b.former, func(p past) bool { return !now.Before(p.end) })
	b.former = b.former[:min(len(b.former), formerRings)]
	for _, p := range b.former {
		next = earlier(next, p.end)
	}
	if r == old.Ring && len(b.former) == len(old.Former) && slices.EqualFunc(c.members, old.Members, equal) {
		return next
	}
	b.log(old, c)
	m.publish(c.members, r, b.former)
	return next
}

func equal(a, b Member) bool { return a.same(&b) }

// publish makes the view the present one.
func (m *Membership) publish(members []Member, r *ring.Ring, former []past) {
	v := &View{Ring: r, Members: members, next: make(chan struct{})}
	for _, p := range former {
		v.Former = append(v.Former, p.ring)
	}
	if self, ok := v.Member(m.roster.self); ok {
		v.Self = *self
	}
	if old := m.view.Swap(v); old != nil {
		close(old.next)
	}
}

// ring is the ring of the members, or the old one where they make none.
func (b *builder) ring(old *ring.Ring, members []Member) *ring.Ring {
	r, err := b.m.next(old, placed(members, b.m.roster.self))
	failed := ""
	if err != nil {
		r, failed = old, fmt.Sprintf("the ring is an old one: %v", err)
	}
	if failed != b.failed && failed != "" {
		b.m.log.Error("ring not built: the old one stays", "error", err)
	}
	if failed != b.failed {
		b.failed = failed
		b.m.ringFailure.Store(&failed)
	}
	return r
}

// placed are the members that are in the ring. Where none is left, self has
// the keys, draining or not.
func placed(members []Member, self string) (in []ring.Member) {
	var own ring.Member
	for _, m := range members {
		r := ring.Member{ID: m.ID, Weight: m.Weight}
		if m.ID == self {
			own = r
		}
		if m.State != Draining {
			in = append(in, r)
		}
	}
	if len(in) == 0 {
		in = append(in, own)
	}
	return in
}

// watch tells once when the identity is found to be another node's too, and
// when to look again.
func (b *builder) watch(now time.Time) time.Time {
	if since := b.m.roster.overlap(); !since.IsZero() && now.Sub(since) < twiceFor {
		return since.Add(twiceFor)
	}
	err := b.m.duplicate(now)
	if err != nil && !b.twice {
		b.m.log.Error("another node has this node's identity: a copied cache directory?", "id", b.m.roster.self, "error", err)
	}
	b.twice = err != nil
	return now.Add(time.Hour)
}

// log tells people what has changed.
func (b *builder) log(old *View, c census) {
	for i := range c.members {
		m := &c.members[i]
		was, known := old.Member(m.ID)
		switch {
		case m.ID == b.m.roster.self && (!known || was.State == m.State):
		case known && was.alive == m.alive && was.State == m.State && was.Epoch == m.Epoch:
		case !m.alive:
			b.m.log.Warn("member is down", "member", m.Name, "id", m.ID, "address", m.Gossip, "state", m.State.String())
		default:
			b.m.log.Info("member is there", "member", m.Name, "id", m.ID, "address", m.Gossip, "state", m.State.String())
		}
	}
	for i := range old.Members {
		m := &old.Members[i]
		if !slices.ContainsFunc(c.members, func(n Member) bool { return n.ID == m.ID }) {
			b.m.log.Info("member has lost its place", "member", m.Name, "id", m.ID)
		}
	}
}
