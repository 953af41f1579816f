package cluster

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"oci-proxy/cache"
	"oci-proxy/node/membership"
	"oci-proxy/ring"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/peer"
	"oci-proxy/transfer/wait"
)

// When a member is lost, what it and this node alone held lies on one node until it is
// copied. That does not wait for the ring, in which the member keeps its place for a while.
// A member is lost when it leaves, when gossip says that it is dead, and before that when
// its address refuses connections. One that says that it restarts is not: it comes back with
// its disk.

// losses see which members are lost. They belong to one goroutine.
type losses struct {
	view    func() *membership.View
	member  func(id string) (membership.Member, bool) // as it is now
	well    func(id string) bool                      // it is not quarantined
	stayed  map[string]bool                           // the members that were there
	refused map[string]uint64                         // the boots whose addresses refused connections
}

// since returns the members that were there at the last call and are lost now.
func (l *losses) since() (lost map[string]bool) {
	v, now := l.view(), map[string]bool{}
	lost = map[string]bool{}
	for i := range v.Members {
		m := &v.Members[i]
		epoch, refused := l.refused[m.ID]
		if refused && (epoch != m.Epoch || l.well(m.ID)) {
			delete(l.refused, m.ID)
			refused = false
		}
		if m.ID != v.Self.ID && stays(m) && !refused {
			now[m.ID] = true
		}
	}
	for id := range l.refused {
		if _, known := v.Member(id); !known {
			delete(l.refused, id)
		}
	}
	for id := range l.stayed {
		if !now[id] {
			lost[id] = true
		}
	}
	l.stayed = now
	return lost
}

// stays reports whether what the member holds is not lost.
func stays(m *membership.Member) bool {
	return m.State == membership.Restarting || m.State == membership.Active && m.Alive()
}

// refuses notes a refusal. It reports whether the member is lost by that: one that has started
// anew since is not.
func (l *losses) refuses(r refusal) bool {
	m, known := l.member(r.id)
	if !known || m.State != membership.Active || m.Epoch != r.boot {
		return false
	}
	l.refused[r.id] = r.boot
	delete(l.stayed, r.id)
	return true
}

// mind looks at once at what this node alone holds whenever a member is lost.
func (c *copies) mind(ctx context.Context) {
	l := &losses{view: c.members.View, member: c.members.Member, well: c.client.Healthy, refused: map[string]uint64{}}
	again := time.NewTicker(mindStep)
	defer again.Stop()
	for ctx.Err() == nil {
		changed := c.members.Changed()
		c.lost(ctx, l.since())
		select {
		case <-changed:
		case r := <-c.dead:
			if l.refuses(r) {
				c.client.Peer(r.id).Fault(peer.ErrDead) // it has lost its place on routes, too
				c.lost(ctx, map[string]bool{r.id: true})
			}
		case <-again.C: // one that refused for a moment is well again, and no View says so
		case <-ctx.Done():
		}
	}
}

// lost has all blobs looked at of which no other holder is known now that these are lost:
// first those that one of them held, or owned.
func (c *copies) lost(ctx context.Context, ids map[string]bool) {
	if len(ids) == 0 {
		return
	}
	c.partners.lose(ids)
	// All members of a large cluster do not begin at once.
	apart := rand.N(min(time.Duration(len(c.members.View().Members))*rescueApart, time.Second) + 1)
	if !c.on.Load() || wait.For(ctx, c.delay+apart) != nil {
		return
	}
	var alone, perhaps []cache.Held
	for _, shard := range c.shards() {
		if !isListed(ctx, shard) {
			continue // it is looked at once the ring has settled
		}
		for _, b := range shard.Newest(maxBacklog) {
			switch held, lost := c.partners.has(b.Digest); {
			case held:
			case lost || c.owned(b.Digest.String(), ids):
				alone = append(alone, b)
			default:
				perhaps = append(perhaps, b)
			}
		}
	}
	c.log.Debug("members lost: what this node may hold alone is looked at", "members", len(ids), "blobs", len(alone)+len(perhaps))
	c.waiting.hurry(append(alone, perhaps[:min(len(perhaps), maxPerhaps)]...)) // the ring's change finds the others
}

// owned reports whether one of the members is or was just now an owner of what key names.
func (c *copies) owned(key string, ids map[string]bool) bool {
	v := c.members.View()
	for _, r := range append([]*ring.Ring{v.Ring}, v.Former[:min(1, len(v.Former))]...) {
		owners, n := r.Owners(key)
		for _, o := range owners[:n] {
			if ids[o.ID] {
				return true
			}
		}
	}
	return false
}

// rescue sees at once to what may lie on this node alone. It does not wait for clients: the
// takers do.
func (c *copies) rescue(ctx context.Context) {
	for ctx.Err() == nil {
		b, ok := c.waiting.urgent()
		if !ok {
			_ = wait.Until(ctx, c.waiting.rush, 0) // the loop sees ctx's end
			continue
		}
		began := time.Now()
		if c.see(ctx, b, rescueBusyPause, func(context.Context) {}); ctx.Err() != nil {
			c.waiting.add(b, began) // it is secured before this node stops
		}
		_ = wait.For(ctx, min(time.Since(began), longestRest)) // the loop sees ctx's end
	}
}

// listen keeps a connection to each member of a cluster that is not large, whose end shows
// at once that the member is dead. Of others gossip tells.
func (c *copies) listen(ctx context.Context) {
	ctx = oci.CallerOf(ctx).As(oci.Node).Into(ctx)
	for ctx.Err() == nil {
		changed := c.members.Changed()
		if others := c.router.Members(); len(others) < askAll {
			var asked sync.WaitGroup
			for _, p := range others {
				asked.Go(func() { _, _ = p.Progress(ctx, oci.Ref{}) }) // one that fails has no connection
			}
			asked.Wait()
		}
		if wait.Until(ctx, changed, listenAgain) == nil {
			_ = wait.For(ctx, time.Second) // more may change
		}
	}
}
