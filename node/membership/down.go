package membership

import (
	"encoding/json"
	"net/netip"
	"time"

	"oci-proxy/ring"
)

// A report goes along when two nodes exchange memberlist's state (push/pull).
// memberlist tells a newcomer nothing of members that are down or gone; without those
// that are down the newcomer would make a different ring.
type report struct {
	Down  []absentee  `json:"d,omitempty"`
	Gone  []departure `json:"g,omitempty"` // not known to versions before this one, as what follows
	Self  *card       `json:"s,omitempty"`
	Clash []clash     `json:"c,omitempty"`
	Mute  []unheard   `json:"u,omitempty"`
	Rings *toldRings  `json:"r,omitempty"`
}

// An absentee is a member that is down. It carries no clock time, since clocks
// differ.
type absentee struct {
	Meta   json.RawMessage `json:"m"`
	Gossip string          `json:"a"`
	Left   int64           `json:"l"` // ms until it loses its place; 0: it has lost it
}

// absent returns the members that are down, for this node's report.
func (r *roster) absent(now time.Time) []absentee {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []absentee
	for id := range r.boots {
		if b := r.best(id, now); id != r.self && b != nil && (!b.member.alive || b.late) {
			left := max(b.until.Sub(now), 0)
			if b.member.alive {
				left = r.grace // memberlist tells a newcomer as little of it as of those that are down
			}
			all = append(all, absentee{json.RawMessage(b.member.meta), b.member.Gossip, left.Milliseconds()})
		}
	}
	return all
}

// merge merges another node's report.
func (r *roster) merge(all []absentee, now time.Time) {
	self := r.me().id
	for _, a := range all[:min(len(all), ring.MaxMembers)] {
		m, err := decode(a.Meta)
		if err != nil {
			continue // from another version, which others may understand
		}
		if _, err := netip.ParseAddrPort(a.Gossip); err != nil || m.ID == self {
			continue
		}
		m.meta, m.Gossip = string(a.Meta), a.Gossip
		left := time.Duration(min(max(a.Left, 0), r.grace.Milliseconds())) * time.Millisecond
		r.mergeOne(m, left, now)
	}
}

// mergeOne notes a member that another node reports as down. Of two nodes that
// disagree on when it loses its place, the earlier time holds: that node saw the
// loss first, and with the later one a report that goes round would never end.
func (r *roster) mergeOne(m *Member, left time.Duration, now time.Time) {
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
	newest, _ := r.boots[m.ID].newest()
	if left == 0 || m.void || newest != nil && newest.member.Epoch > m.Epoch || newest == nil && len(r.boots) >= ring.MaxMembers {
		return
	}
	r.put(&boot{member: *m, since: until.Add(-r.grace), until: until})
}
