package membership

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// These bound the members that are remembered though they are no longer in the ring.
// Of more, the oldest go: names that change with each start of a node would fill it.
const (
	maxGone = 128 // that died
	maxLeft = 256 // that left for good, or were forgotten
)

// A Gone is a member that died and has lost its place in the ring. It is listed for a
// day, until it is forgotten, or until a node of its name takes its place.
type Gone struct {
	ID     string
	Name   string
	Gossip string    // host:port of gossip
	Since  time.Time // when it was lost, by this node's clock
}

// A departure is a member that died or left, as nodes tell each other. It carries no
// clock time, since clocks differ.
type departure struct {
	ID     string `json:"i"`
	Epoch  uint64 `json:"e"`
	Name   string `json:"m,omitempty"`
	Gossip string `json:"a,omitempty"`
	Ago    int64  `json:"o"`           // seconds since it was lost
	Left   bool   `json:"x,omitempty"` // it left for good, or was forgotten
	Said   bool   `json:"y,omitempty"` // it said itself that it leaves
}

// old reports whether a member that is not alive need not be remembered. That it left
// is remembered longer than any node lists it.
func (e *entry) old(now time.Time) bool {
	most := remember
	if e.Left {
		most += time.Hour
	}
	return now.Sub(time.Unix(e.Seen, 0)) > most
}

// replaced reports whether m has taken the place of a member that is gone: it has its
// name, and joined when that one was lost or later.
func (e *entry) replaced(m *Member) bool {
	return m.Gossip == e.Gossip || m.Since.After(time.Unix(e.Seen, 0).Add(-replaceTime))
}

// bury notes a member that has lost its place. It is called with b.mu held.
func (b *addressBook) bury(m *Member, now time.Time) {
	e, known := b.known[m.ID]
	left := m.State == Draining
	if known && (e.Epoch > m.Epoch || !e.alive && e.Epoch == m.Epoch && (e.Left || e.Gone && !left)) {
		return
	}
	e.Name, e.Gossip, e.Epoch = m.Name, m.Gossip, m.Epoch
	e.Seen = min(m.Since.Unix(), now.Unix())
	e.Gone, e.Left, e.alive = !left, left, false
	b.known[m.ID], b.fresh = e, true
}

// listed reports whether the member is one to list as gone. One that an earlier run of
// this node knew, and that nobody has told of since, has the time to come back that a
// member that is down has.
func (b *addressBook) listed(e entry, now time.Time) bool {
	return !e.alive && !e.placed && !e.Left && (e.Gone || now.Sub(b.opened) >= b.grace)
}

// gone returns the members that are gone, by name.
func (b *addressBook) gone(now time.Time) []Gone {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Gone
	for id, e := range b.known {
		if b.listed(e, now) && !e.old(now) {
			all = append(all, Gone{id, e.Name, e.Gossip, time.Unix(e.Seen, 0)})
		}
	}
	slices.SortFunc(all, func(x, y Gone) int { return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID)) })
	return all
}

// departed returns what this node tells the others of members that died or left.
func (b *addressBook) departed(now time.Time) []departure {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []departure
	for id, e := range b.known {
		ago := max(now.Unix()-e.Seen, 0)
		switch {
		case e.Left:
			all = append(all, departure{ID: id, Epoch: e.Epoch, Ago: ago, Left: true})
		case b.listed(e, now):
			all = append(all, departure{ID: id, Epoch: e.Epoch, Name: e.Name, Gossip: e.Gossip, Ago: ago})
		}
	}
	return all
}

// merge takes what another node tells of members that died or left. It returns those
// that left, for the roster.
func (b *addressBook) merge(told []departure, self string, now time.Time) (left []departure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range told[:min(len(told), maxGone+maxLeft)] {
		if !validID(d.ID) || d.ID == self || d.Ago < 0 || d.Ago > int64(2*remember/time.Second) || !plain(d.Name) {
			continue
		}
		if _, err := netip.ParseAddrPort(d.Gossip); err != nil && !d.Left {
			continue
		}
		if d.Left {
			left = append(left, d)
		}
		b.mergeOne(d, now)
	}
	b.bound()
	return left
}

// mergeOne is called with b.mu held.
func (b *addressBook) mergeOne(d departure, now time.Time) {
	e, known := b.known[d.ID]
	if known && (e.alive || e.Epoch > d.Epoch || e.placed && !d.Left) {
		return
	}
	seen := now.Unix() - d.Ago
	if known && e.Epoch == d.Epoch {
		if e.Seen <= seen && (e.Left || e.Gone && !d.Left) {
			return
		}
		seen, d.Left = min(seen, e.Seen), d.Left || e.Left
	}
	e.Seen, e.Epoch, e.Gone, e.Left = seen, d.Epoch, !d.Left, d.Left
	if d.Name != "" {
		e.Name, e.Gossip = d.Name, d.Gossip
	}
	if !e.old(now) {
		b.known[d.ID], b.fresh = e, true
	}
}

// bound forgets those that were lost first, if there are too many. It is called with
// b.mu held.
func (b *addressBook) bound() {
	var gone, left []string
	for id, e := range b.known {
		switch {
		case e.alive || e.placed:
		case e.Left:
			left = append(left, id)
		default:
			gone = append(gone, id)
		}
	}
	oldest := func(x, y string) int {
		return cmp.Or(cmp.Compare(b.known[x].Seen, b.known[y].Seen), strings.Compare(x, y))
	}
	for _, of := range []struct {
		ids  []string
		most int
	}{{gone, maxGone}, {left, maxLeft}} {
		slices.SortFunc(of.ids, oldest)
		for _, id := range of.ids[:max(0, len(of.ids)-of.most)] {
			b.drop(id)
		}
	}
}

// forget notes that the members of that name or id which are not alive left for good.
// It returns them; alive reports that one is alive, and then none is forgotten.
func (b *addressBook) forget(name string) (forgotten []departure, alive bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, e := range b.known {
		switch {
		case e.Name != name && id != name || e.Left:
		case e.alive:
			alive = true
		default:
			forgotten = append(forgotten, departure{ID: id, Epoch: e.Epoch, Name: e.Name, Left: true})
		}
	}
	if len(forgotten) == 0 {
		return nil, alive
	}
	for _, d := range forgotten {
		e := b.known[d.ID]
		e.Gone, e.Left, b.fresh = false, true, true
		b.known[d.ID] = e
	}
	return forgotten, alive
}

// knowsLeft reports whether this node knows that the member left.
func (b *addressBook) knowsLeft(d departure) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, known := b.known[d.ID]
	return known && e.Left && e.Epoch >= d.Epoch
}
