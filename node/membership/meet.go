package membership

import (
	"context"
	"slices"
	"time"

	"oci-proxy/transfer/wait"
)

// AwaitOthers returns when all seeds have been tried, or a moment after another member was
// met, and the View has the members that the others know and the rings that they tell of. It
// returns too when ctx ends.
func (m *Membership) AwaitOthers(ctx context.Context) {
	CatchUp(ctx, m)
	if m.formers.await(ctx) {
		CatchUp(ctx, m)
	}
}

// CatchUp is AwaitOthers, but does not wait for rings that others tell of.
func CatchUp(ctx context.Context, m *Membership) {
	awaitSearch(ctx, m)
	for range maxPasses {
		passed := m.passes.next()
		if settled(m) {
			return
		}
		m.roster.changed()
		select {
		case <-passed:
		case <-ctx.Done():
			return
		}
	}
}

// searchFor is for how long AwaitOthers waits for all seeds once another member is met: one that
// does not answer takes seconds, and so does a name that nobody knows.
const searchFor = 500 * time.Millisecond

// awaitSearch waits for the first search for other members.
func awaitSearch(ctx context.Context, m *Membership) {
	for {
		changed, v := m.Changed(), m.View()
		if slices.ContainsFunc(v.Members, func(o Member) bool { return o.Alive() && o.ID != v.Self.ID }) {
			_ = wait.Until(ctx, m.sought, searchFor) // the caller sees ctx's end
			return
		}
		select {
		case <-changed:
		case <-m.sought:
			return
		case <-ctx.Done():
			return
		}
	}
}

// maxPasses bounds how often AwaitOthers looks at the View, while members keep coming.
const maxPasses = 10

// settled reports whether the View has all that this node has heard of.
func settled(m *Membership) bool {
	v := m.View()
	former, _ := m.formers.list(time.Now())
	return slices.Equal(former, v.Former) && !unseen(m.roster, v)
}

// unseen reports whether a member is alive that the View does not have as such.
func unseen(r *roster, v *View) bool {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.boots {
		if b := r.best(id, now); b == nil || !b.member.alive {
			continue
		}
		if m, ok := v.Member(id); !ok || !m.alive {
			return true
		}
	}
	return false
}
