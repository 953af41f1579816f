package membership

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"oci-proxy/ring"
	"oci-proxy/transfer/wait"
)

// A builder makes the views. It belongs to one goroutine.
type builder struct {
	m      *Membership
	failed string // why the ring is an old one
	twice  bool   // a duplicate identity has been logged
}

// run makes a view whenever something changes, or when the next one is due.
func (b *builder) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-b.m.roster.dirty:
			if wait.For(ctx, gather(len(b.m.View().Members))) != nil {
				return
			}
			select {
			case <-b.m.roster.dirty: // refresh sees that change too
			default:
			}
		}
		next := b.refresh(time.Now())
		timer.Reset(time.Until(next))
	}
}

// passes tell when the builder has looked again at all that is known, whether or not it
// made a new View.
type passes struct{ channel atomic.Pointer[chan struct{}] }

// next returns a channel that is closed after the builder's next look.
func (p *passes) next() <-chan struct{} { return *p.channel.Load() }

// done closes it.
func (p *passes) done() {
	next := make(chan struct{})
	if old := p.channel.Swap(&next); old != nil {
		close(*old)
	}
}

// refresh makes the present view, and returns when the next one is due.
func (b *builder) refresh(now time.Time) time.Time {
	m := b.m
	s := m.roster.snapshot(now)
	m.book.note(s, now)
	if len(s.members) > 1 {
		b.settle(s.members)
	}
	next := earlier(s.next, b.watch(now))
	old := m.view.Load()
	r := b.ring(old.Ring, s.members)
	m.formers.use(r, now)
	former, end := m.formers.list(now)
	next = earlier(next, end)
	defer m.passes.done()
	if r == old.Ring && slices.Equal(former, old.Former) && slices.EqualFunc(s.members, old.Members, equal) {
		return next
	}
	b.log(old, s.members)
	m.publish(s.members, r, former)
	return next
}

func equal(a, b Member) bool { return a.same(&b) }

// settle makes gossip use the secret that all members agree on.
func (b *builder) settle(members []Member) {
	number, err := b.m.keys.settle(otherLive(members, b.m.roster.me().id))
	b.m.tellSecret(number, err)
}

// otherLive returns the live members without self.
func otherLive(members []Member, self string) (others []*Member) {
	for i := range members {
		if m := &members[i]; m.alive && m.ID != self {
			others = append(others, m)
		}
	}
	return others
}

// ring returns the ring of the members, or the old one if it can't be built.
func (b *builder) ring(old *ring.Ring, members []Member) *ring.Ring {
	r, err := b.m.next(old, placed(members, b.m.roster.me().id))
	failed := ""
	if err != nil {
		r, failed = old, fmt.Sprintf("the ring is not up to date: %v", err)
	}
	if failed != b.failed && failed != "" {
		b.m.log.Error("ring not built: the old one stays in use", "error", err)
	}
	if failed != b.failed {
		b.failed = failed
		b.m.ringFailure.Store(&failed)
	}
	return r
}

// placed returns the members that are in the ring. If all drain, self keeps the
// keys. Shares follow sizes if all members, also those that drain, tell theirs: one of
// an earlier version makes the ring of its version, and all must have one ring.
func placed(members []Member, self string) (in []ring.Member) {
	sized := !slices.ContainsFunc(members, func(m Member) bool { return m.Size == 0 })
	var own ring.Member
	for _, m := range members {
		r := ring.Member{ID: m.ID, Weight: m.Weight}
		if sized {
			r.Size = m.Size
		}
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

// watch makes this node exchange cards with another one that has its identity, and logs
// once if that does not help. It returns when to look again.
func (b *builder) watch(now time.Time) time.Time {
	since, gossip := b.m.roster.overlap()
	err := b.m.twins.health(now)
	if err != nil && !b.twice {
		b.m.log.Error("another node has this node's identity", "id", b.m.roster.me().id, "error", err)
	}
	b.twice = err != nil
	if since.IsZero() {
		return now.Add(time.Hour)
	}
	b.m.twins.look(gossip)
	if told := since.Add(twiceFor); now.Before(told) {
		return earlier(told, now.Add(lookAgain))
	}
	return now.Add(lookAgain)
}

// log logs how the members differ from those of the old View.
func (b *builder) log(old *View, members []Member) {
	self := b.m.roster.me().id
	for i := range members {
		m := &members[i]
		was, known := old.Member(m.ID)
		if m.ID == self && (!known || was.State == m.State) ||
			known && was.alive == m.alive && was.State == m.State && was.Epoch == m.Epoch {
			continue
		}
		log := b.m.log.With("peer", m.Name, "id", m.ID, "address", m.Gossip, "state", m.State.String())
		switch {
		case !m.alive:
			log.Warn("member is down")
		case !known:
			log.Info("member joined")
		case !was.alive || was.Epoch != m.Epoch:
			log.Info("member is back")
		default:
			log.Info("member changed its state")
		}
	}
	for i := range old.Members {
		m := &old.Members[i]
		if _, stays := find(members, m.ID); !stays {
			b.m.log.Info("member removed", "peer", m.Name, "id", m.ID, "state", m.State.String())
		}
	}
}
