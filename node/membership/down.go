package membership

import (
	"encoding/json"
	"net/netip"
	"time"

	"oci-proxy/ring"
)

// A report is what nodes tell each other at a push/pull beside memberlist's
// own state. memberlist tells a newcomer nothing of members that are down;
// without them it would make another ring.
type report struct {
	Down []absentee `json:"d,omitempty"`
}

// An absentee is a member that is down. Its time is an age, not a clock's.
type absentee struct {
	Meta   json.RawMessage `json:"m"`
	Gossip string          `json:"a"`
	Left   int64           `json:"l"` // ms until it loses its place; 0: it has lost it
}

// absent is this node's report.
func (r *roster) absent(now time.Time) []absentee {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []absentee
	for id := range r.boots {
		if b := r.best(id, now); id != r.self && b != nil && !b.member.alive {
			left := max(b.until.Sub(now), 0)
			all = append(all, absentee{json.RawMessage(b.member.meta), b.member.Gossip, left.Milliseconds()})
		}
	}
	return all
}

// hear takes another node's report.
func (r *roster) hear(all []absentee, now time.Time) {
	for _, a := range all[:min(len(all), ring.MaxMembers)] {
		m, err := decode(a.Meta)
		if err != nil {
			continue // of another version, which may be read there
		}
		if _, err := netip.ParseAddrPort(a.Gossip); err != nil || m.ID == r.self {
			continue
		}
		m.meta, m.Gossip = string(a.Meta), a.Gossip
		left := time.Duration(min(max(a.Left, 0), r.grace.Milliseconds())) * time.Millisecond
		r.miss(m, left, now)
	}
}

// miss notes a member that another node misses. Of two opinions the one that
// ends earlier holds: it has seen the loss first, and going the other way, an
// end that is told from node to node would never come.
func (r *roster) miss(m *Member, left time.Duration, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	until := now.Add(left)
	if b := r.boots[m.ID][m.Epoch]; b != nil {
		if !b.member.alive && until.Before(b.until) {
			b.until = until
			r.changed()
		}
		return
	}
	if best := r.best(m.ID, now); left == 0 || best != nil && best.member.Epoch > m.Epoch {
		return
	}
	r.put(&boot{member: *m, since: until.Add(-r.grace), until: until})
}
