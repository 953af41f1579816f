package membership

import (
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"
)

// Why a member can't be forgotten.
var (
	ErrNoSuchMember = errors.New("no member of that name is down or gone")
	ErrAlive        = errors.New("the member of that name is alive; make it leave instead")
)

// Forget makes this node and the others forget the members of that name (or id) that are
// down or gone, as if they had left for good: they lose their place at once and are no
// longer listed. It returns how many there are. If one comes back, it is a member again.
// An error is ErrNoSuchMember or ErrAlive.
func (m *Membership) Forget(name string) (int, error) {
	forgotten, alive := m.book.forget(name)
	switch {
	case len(forgotten) > 0:
	case alive:
		return 0, ErrAlive
	default:
		return 0, ErrNoSuchMember
	}
	now := time.Now()
	for _, d := range forgotten {
		m.roster.leave(d.ID, d.Epoch, now)
		m.rumours.spread(d)
	}
	return len(forgotten), nil
}

// rumours are what must not be missed: it goes from node to node at once. Who misses it
// learns of it when two nodes exchange what they know.
type rumours struct {
	m     *Membership
	queue memberlist.TransmitLimitedQueue
}

func newRumours(m *Membership) *rumours {
	r := &rumours{m: m, queue: memberlist.TransmitLimitedQueue{RetransmitMult: retransmitMult}}
	r.queue.NumNodes = func() int { others, _ := m.roster.company(); return others + 1 }
	return r
}

// spread tells the others of a member that was forgotten.
func (r *rumours) spread(d departure) {
	b, err := json.Marshal(d)
	if err != nil {
		return // never, for texts and numbers
	}
	r.queue.QueueBroadcast(rumour{d.ID, b})
}

// hear takes a message of another node, and passes on what is new.
func (r *rumours) hear(b []byte) {
	var d departure
	if err := json.Unmarshal(b, &d); err != nil {
		r.m.bridge.tell(slog.LevelWarn, "report of down members not understood: another version of oci-proxy?", "error", err)
		return
	}
	now := time.Now()
	if d.Said {
		if r.m.roster.drains(d.ID, d.Epoch, now) {
			r.spread(d)
		}
		return
	}
	if d.Left && !r.m.book.knowsLeft(d) {
		r.learn([]departure{d}, now)
		if r.m.book.knowsLeft(d) {
			r.spread(d)
		}
	}
}

// learn takes what another node tells of members that died or left.
func (r *rumours) learn(told []departure, now time.Time) {
	for _, d := range r.m.book.merge(told, r.m.roster.me().id, now) {
		r.m.roster.leave(d.ID, d.Epoch, now)
	}
}

// A rumour is one of them.
type rumour struct {
	id   string
	text []byte
}

// Invalidates implements memberlist.Broadcast.
func (r rumour) Invalidates(b memberlist.Broadcast) bool {
	o, is := b.(rumour)
	return is && o.id == r.id
}

// Message implements memberlist.Broadcast.
func (r rumour) Message() []byte { return r.text }

// Finished implements memberlist.Broadcast.
func (rumour) Finished() {}
