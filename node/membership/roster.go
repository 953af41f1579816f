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

// A boot is one start of a member. To memberlist each boot is a node.
type boot struct {
	member Member
	first  time.Time // when it was first heard of
	since  time.Time // when it was first seen alive, or lost
	until  time.Time // when it loses its place, once it is lost
	late   bool      // it is alive to us, though gossip has found it dead: see vigil.go
}

func (b *boot) lose(now time.Time, grace time.Duration) {
	b.member.alive, b.late, b.since, b.until = false, false, now, now.Add(grace)
	if b.member.State == Draining {
		b.until = now // it left for good
	}
}

// boots are those of one id, by epoch.
type boots map[uint64]*boot

// counts reports whether the boot is alive, or is down and keeps its place.
func (b *boot) counts(now time.Time) bool { return b.member.alive || now.Before(b.until) }

// A roster is our own list of the members that are alive or down. memberlist's
// callbacks run under its lock, where calling it hangs, and its own list changes
// under the reader. So the callbacks only write to the roster, and everybody else
// reads from it.
//
// A lost boot stays for another grace time after it has lost its place, so a late
// report of another node can't bring it back.
type roster struct {
	grace time.Duration
	dirty chan struct{} // holds one if something has changed

	mu       sync.Mutex       // guards the fields below; never held during I/O
	self     string           // this node's id
	epoch    uint64           // of this start
	boots    map[string]boots // by id and epoch
	conflict [2]time.Time     // when another node with this node's title was first and last seen
	alone    time.Time        // since when no other member has been alive
}

func newRoster(self identity, grace time.Duration) *roster {
	return &roster{
		self: self.id, epoch: self.epoch, grace: grace, dirty: make(chan struct{}, 1),
		boots: map[string]boots{}, alone: time.Now(),
	}
}

// title returns a boot's name in memberlist. Each boot has its own, so a node that
// comes back need not wait until its last boot is forgotten.
func title(id string, epoch uint64) string { return id + "." + strconv.FormatUint(epoch, 10) }

// untitle splits a title. The epoch is 0 if it is malformed.
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

// knows reports whether the boot has sent this meta before.
func (r *roster) knows(name string, meta []byte) bool {
	id, epoch := untitle(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boots[id][epoch]
	return b != nil && b.member.meta == string(meta)
}

// me returns who this node is by now.
func (r *roster) me() identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return identity{r.self, r.epoch}
}

// live notes that a boot is alive, or has said something new. It reports whether the
// boot had been found dead.
func (r *roster) live(n *memberlist.Node) (risen bool) {
	m, err := decode(n.Meta)
	if err != nil {
		return false // NotifyAlive has refused it
	}
	m.meta, m.alive = string(n.Meta), true
	m.Gossip = net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
	r.mu.Lock()
	defer r.mu.Unlock()
	since, old := time.Now(), r.boots[m.ID][m.Epoch]
	switch own := m.ID == r.self && m.Epoch == r.epoch; {
	case m.void && !own: // a twin that takes another id: it never was this one
		delete(r.boots[m.ID], m.Epoch)
		r.changed()
		return false
	case old != nil && old.member.alive:
		since = old.since
	case old != nil:
		risen = old.member.State == Active && m.State == Active && !own
	}
	r.put(&boot{member: *m, since: since})
	return risen
}

// put is called with r.mu held.
func (r *roster) put(b *boot) {
	if r.boots[b.member.ID] == nil {
		r.boots[b.member.ID] = boots{}
	}
	b.first = time.Now()
	if old := r.boots[b.member.ID][b.member.Epoch]; old != nil {
		b.first = old.first
	}
	r.boots[b.member.ID][b.member.Epoch] = b
	r.changed()
}

// lost notes that a boot is no longer alive. It reports whether that left for good. A start
// that takes another id has not: its title may be another node's too, which lives.
func (r *roster) lost(name string) (left bool) {
	id, epoch := untitle(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boots[id][epoch]
	if b == nil || !b.member.alive {
		return false
	}
	now := time.Now()
	b.lose(now, r.grace)
	if r.others() == 0 {
		r.alone = now
	}
	r.changed()
	return b.member.State == Draining && !b.member.void
}

// conflicts notes that two nodes have one title. It reports whether this node is one
// of them; others notice it themselves.
func (r *roster) conflicts(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name != title(r.self, r.epoch) {
		return false
	}
	now := time.Now()
	if now.Sub(r.conflict[1]) > contestedFor {
		r.conflict[0] = now
	}
	r.conflict[1] = now
	r.changed()
	return true
}

// rename makes this node a new one: its own boot goes, and the others have to be met
// again.
func (r *roster) rename(self Member, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.boots[r.self], r.epoch)
	for _, boots := range r.boots {
		for _, b := range boots {
			if b.member.alive {
				b.lose(now, r.grace)
			}
		}
	}
	r.self, r.epoch, r.conflict, r.alone = self.ID, self.Epoch, [2]time.Time{}, now
	r.put(&boot{member: self, since: now})
}

// others counts the other live members. It is called with r.mu held.
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

// company returns the number of other live members and, if there is none, for how
// long this node has been alone.
func (r *roster) company() (others int, alone time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if others = r.others(); others == 0 {
		alone = time.Since(r.alone)
	}
	return others, alone
}

// gossips returns the gossip addresses of the other live members.
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

// A snapshot is what the roster says at one moment.
type snapshot struct {
	self    string    // this node's id
	members []Member  // by ID
	gone    []Member  // that have lost their place; those that drained left for good
	next    time.Time // when a snapshot would differ even if nothing happens
}

// snapshot takes a snapshot at now, and forgets boots that were lost long ago.
func (r *roster) snapshot(now time.Time) snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := snapshot{self: r.self, next: now.Add(time.Hour), members: make([]Member, 0, len(r.boots))}
	for _, id := range slices.Sorted(maps.Keys(r.boots)) {
		s.next = r.prune(id, now, s.next)
		if newest, living := r.boots[id].newest(); newest != living && living != nil {
			if proof := newest.first.Add(r.surely()); now.Before(proof) {
				s.next = earlier(s.next, proof)
			}
		}
		b := r.best(id, now)
		switch {
		case b == nil:
		case b.counts(now) || id == r.self:
			m := b.member
			m.Since, m.alive = b.since, m.alive || id == r.self
			m.Up = m.alive && (m.State == Active || id == r.self)
			s.members = append(s.members, m)
		default:
			m := b.member
			m.Since = b.since
			s.gone = append(s.gone, m)
		}
	}
	return s
}

// member returns the member of that id, as it is known at this moment.
func (r *roster) member(id string, now time.Time) (Member, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.best(id, now)
	if b == nil || !b.counts(now) {
		return Member{}, false
	}
	m := b.member
	m.Since = b.since
	m.Up = m.alive && m.State == Active
	return m, true
}

// prune forgets boots of the id that were lost long ago, the newest one last: it has the
// last word on those before it. It returns next, or when the next boot loses its place
// or is forgotten if that is earlier.
func (r *roster) prune(id string, now, next time.Time) time.Time {
	newest, _ := r.boots[id].newest()
	for epoch, b := range r.boots[id] {
		if b.member.alive {
			continue
		}
		switch end := b.since.Add(2 * r.grace); {
		case now.Before(b.until):
			next = earlier(next, b.until)
		case now.Before(end):
			next = earlier(next, end)
		case b != newest || len(r.boots[id]) == 1:
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

// overlap returns since when another live boot has this node's id, or zero, and that
// boot's gossip address.
func (r *roster) overlap() (since time.Time, gossip string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := r.boots[r.self][r.epoch]
	if own == nil {
		return since, ""
	}
	for epoch, b := range r.boots[r.self] {
		if epoch == r.epoch || !b.member.alive {
			continue
		}
		if s := later(own.since, b.since); since.IsZero() || s.Before(since) {
			since, gossip = s, b.member.Gossip
		}
	}
	return since, gossip
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// contested reports whether another node with this node's title has been seen for so
// long that it does not go away by itself.
func (r *roster) contested(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Sub(r.conflict[1]) < contestedFor && r.conflict[1].Sub(r.conflict[0]) >= twiceFor
}
