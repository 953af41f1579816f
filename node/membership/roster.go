package membership

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A boot is one start of a member: what memberlist takes for a node.
type boot struct {
	member Member
	since  time.Time // first seen alive, or lost
	until  time.Time // when it loses its place; for those that are lost
}

func (b *boot) lose(now time.Time, grace time.Duration) {
	b.member.alive, b.since, b.until = false, now, now.Add(grace)
	if b.member.State == Draining {
		b.until = now // it said that it does not come back
	}
}

// counts: it lives, or is down and keeps its place.
func (b *boot) counts(now time.Time) bool { return b.member.alive || now.Before(b.until) }

// A roster is our copy of who is there. memberlist's callbacks run under its
// lock, where asking it anything hangs, and what it returns elsewhere is
// changed under the reader. So the callbacks only write here, and all others
// read here.
//
// Boots that are lost stay for another grace after their place is gone: so a
// late word of another node can't bring them back.
type roster struct {
	self  string // this node's id
	epoch uint64
	grace time.Duration
	dirty chan struct{} // holds one if something has changed

	mu       sync.Mutex
	boots    map[string]map[uint64]*boot // by id and epoch
	conflict time.Time                   // when another node with this node's very name was last seen
	alone    time.Time                   // since when no other lives
}

func newRoster(self identity, grace time.Duration) *roster {
	return &roster{
		self: self.id, epoch: self.epoch, grace: grace, dirty: make(chan struct{}, 1),
		boots: map[string]map[uint64]*boot{}, alone: time.Now(),
	}
}

// title is a boot's name in memberlist: unique, so that a node that comes back
// need not wait until its last boot is forgotten.
func title(id string, epoch uint64) string { return id + "." + strconv.FormatUint(epoch, 10) }

// untitle reads a title; 0 is no epoch.
func untitle(name string) (id string, epoch uint64) {
	id, digits, _ := strings.Cut(name, ".")
	epoch, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return "", 0
	}
	return id, epoch
}

func (r *roster) changed() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// knows: the boot has told this meta before.
func (r *roster) knows(name string, meta []byte) bool {
	id, epoch := untitle(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boots[id][epoch]
	return b != nil && b.member.meta == string(meta)
}

// live notes that a boot lives, or has told something new.
func (r *roster) live(n *memberlist.Node) {
	m, err := decode(n.Meta)
	if err != nil {
		return // admit has refused it
	}
	m.meta, m.alive = string(n.Meta), true
	m.Gossip = net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
	r.mu.Lock()
	defer r.mu.Unlock()
	since := time.Now()
	if b := r.boots[m.ID][m.Epoch]; b != nil && b.member.alive {
		since = b.since
	}
	r.put(&boot{member: *m, since: since})
}

// put is called with r.mu held.
func (r *roster) put(b *boot) {
	if r.boots[b.member.ID] == nil {
		r.boots[b.member.ID] = map[uint64]*boot{}
	}
	r.boots[b.member.ID][b.member.Epoch] = b
	r.changed()
}

// lost notes that a boot lives no more.
func (r *roster) lost(name string) {
	id, epoch := untitle(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boots[id][epoch]
	if b == nil || !b.member.alive {
		return
	}
	now := time.Now()
	b.lose(now, r.grace)
	if r.others() == 0 {
		r.alone = now
	}
	r.changed()
}

// conflicts notes that two nodes have one title.
func (r *roster) conflicts(name string) {
	if name != title(r.self, r.epoch) {
		return // those two are told themselves
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conflict = time.Now()
	r.changed()
}

// best is the boot that counts: the latest that has a place, and of this node
// its own. It is called with r.mu held.
func (r *roster) best(id string, now time.Time) *boot {
	if own := r.boots[id][r.epoch]; id == r.self && own != nil {
		return own
	}
	var best *boot
	for _, b := range r.boots[id] {
		if best == nil || b.counts(now) && !best.counts(now) ||
			b.counts(now) == best.counts(now) && b.member.Epoch > best.member.Epoch {
			best = b
		}
	}
	return best
}

// others counts the other members that live. It is called with r.mu held.
func (r *roster) others() (n int) {
	for id, boots := range r.boots {
		for _, b := range boots {
			if id != r.self && b.member.alive {
				n++
				break
			}
		}
	}
	return n
}

// company tells how many others live, and how long there has been none.
func (r *roster) company() (others int, alone time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if others = r.others(); others == 0 {
		alone = time.Since(r.alone)
	}
	return others, alone
}

// gossips are the addresses of the others that live.
func (r *roster) gossips() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]bool{}
	for id, boots := range r.boots {
		for _, b := range boots {
			if id != r.self && b.member.alive {
				all[b.member.Gossip] = true
			}
		}
	}
	return all
}

// A census is what the roster says at one moment.
type census struct {
	members []Member // by ID
	gone    []string // ids that said they would not come back, and went
	next    time.Time
}

// count takes the census at now, and forgets who has been gone for long. next
// is when it would say something else though nothing happens.
func (r *roster) count(now time.Time) census {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := census{next: now.Add(time.Hour)}
	for id := range r.boots {
		c.next = r.prune(id, now, c.next)
		b := r.best(id, now)
		switch {
		case b == nil:
		case b.counts(now) || id == r.self:
			m := b.member
			m.Since, m.alive = b.since, m.alive || id == r.self
			m.Up = m.alive && (m.State == Active || id == r.self)
			c.members = append(c.members, m)
		case b.member.State == Draining:
			c.gone = append(c.gone, id)
		}
	}
	slices.SortFunc(c.members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return c
}

// prune forgets an id's boots whose time has come, and tells the next time.
func (r *roster) prune(id string, now, next time.Time) time.Time {
	for epoch, b := range r.boots[id] {
		if b.member.alive {
			continue
		}
		switch end := b.since.Add(2 * r.grace); {
		case now.Before(b.until):
			next = earlier(next, b.until)
		case now.Before(end):
			next = earlier(next, end)
		default:
			delete(r.boots[id], epoch)
		}
	}
	if len(r.boots[id]) == 0 {
		delete(r.boots, id)
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// overlap tells since when this node's id lives twice; zero if it does not.
func (r *roster) overlap() (since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := r.boots[r.self][r.epoch]
	if own == nil {
		return since
	}
	for _, epoch := range slices.Sorted(maps.Keys(r.boots[r.self])) {
		b := r.boots[r.self][epoch]
		if epoch == r.epoch || !b.member.alive {
			continue
		}
		if s := later(own.since, b.since); since.IsZero() || s.Before(since) {
			since = s
		}
	}
	return since
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// contested tells when another node with this node's title was last seen.
func (r *roster) contested() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conflict
}
