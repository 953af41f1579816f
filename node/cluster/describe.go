package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/node/membership"
)

// A Description is the answer of /_/cluster.
type Description struct {
	Members []Member  `json:"members"`
	Ring    string    `json:"ring"`    // equal on all nodes that place keys alike
	Missing []Missing `json:"missing"` // members that did not answer
}

// A Member is what /_/cluster tells of one.
type Member struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Gossip  string    `json:"gossip"`
	Peer    string    `json:"peer"`
	State   string    `json:"state"` // active, restarting, draining, down or gone
	Since   time.Time `json:"since"`
	Share   float64   `json:"share"` // of the keys, 0 to 1
	Weight  int       `json:"weight"`
	Zone    string    `json:"zone,omitempty"`
	Version string    `json:"version"`
	Egress  bool      `json:"egress"`
	Self    bool      `json:"self,omitempty"`
	Healthy bool      `json:"healthy"` // this node does not pass it over
	// OldSecret: it does not accept the first of this node's secrets, while they are replaced.
	OldSecret bool          `json:"old_secret,omitempty"`
	Stats     *figures.Node `json:"stats,omitempty"`
}

// Missing is a member that did not answer.
type Missing struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Describe describes the cluster as this node sees it.
func (c *Cluster) Describe(ctx context.Context) Description {
	if c.network == nil {
		one := c.alone()
		one.Stats = c.own()
		return Description{Members: []Member{one}, Missing: []Missing{}}
	}
	said := c.Reports(ctx)
	v := c.network.members.View()
	d := Description{Ring: ringOf(v), Missing: []Missing{}}
	stats := map[string]*figures.Node{v.Self.ID: c.own()}
	for _, one := range said {
		if one.Err != nil {
			d.Missing = append(d.Missing, Missing{one.Member.Name, one.Err.Error()})
			continue
		}
		stats[one.Member.ID] = one.Figures
	}
	d.Members = listed(c.network, v, stats)
	return d
}

// Sketch describes the cluster without what members tell of themselves: it asks nobody, and
// waits for nothing.
func Sketch(c *Cluster) Description {
	if c.network == nil {
		return Description{Members: []Member{c.alone()}, Missing: []Missing{}}
	}
	v := c.network.members.View()
	return Description{Ring: ringOf(v), Missing: []Missing{}, Members: listed(c.network, v, nil)}
}

// listed are the members of a view, and those that are gone, by name.
func listed(n *network, v *membership.View, stats map[string]*figures.Node) (out []Member) {
	for i := range v.Members {
		m := &v.Members[i]
		out = append(out, Member{
			ID: m.ID, Name: m.Name, Gossip: m.Gossip, Peer: m.Peer, State: stateOf(m), Since: m.Since, Share: v.Ring.Share(m.ID),
			Weight: m.Weight, Zone: m.Zone, Version: m.Version, Egress: m.Egress, Self: m.ID == v.Self.ID,
			Healthy: m.ID == v.Self.ID || m.Alive() && n.client.Healthy(m.ID), Stats: stats[m.ID], OldSecret: m.ID != v.Self.ID && n.key(m) > 0,
		})
	}
	for _, g := range n.members.Gone() {
		out = append(out, Member{ID: g.ID, Name: g.Name, Gossip: g.Gossip, State: gone, Since: g.Since})
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return out
}

// alone is the one member of a cluster of one, without its figures.
func (c *Cluster) alone() Member {
	state := membership.Active
	if c.ending.Load() {
		state = membership.Restarting
	}
	return Member{
		ID: c.cfg.Name, Name: c.cfg.Name, State: state.String(), Since: c.since, Share: 1, Weight: 1,
		Version: c.cfg.Version, Egress: true, Self: true, Healthy: true,
	}
}

// States counts the members by state.
func (c *Cluster) States() map[string]int64 {
	if c.network == nil {
		return map[string]int64{membership.Active.String(): 1}
	}
	out := map[string]int64{}
	v := c.network.members.View()
	for i := range v.Members {
		out[stateOf(&v.Members[i])]++
	}
	out[gone] = int64(len(c.network.members.Gone())) // 0 too: an alert needs the series
	return out
}

// gone is the state of a member that died and has lost its place.
const gone = "gone"

// ErrNoSuchMember says that no member of that name is down or gone.
var ErrNoSuchMember = membership.ErrNoSuchMember

// Forget makes all members forget those of that name, or id, that are down or gone. It
// returns how many there are.
func (c *Cluster) Forget(name string) (int, error) {
	if c.network == nil {
		return 0, ErrAlone
	}
	n, err := c.network.members.Forget(name)
	if err != nil {
		return 0, fmt.Errorf("forgetting %q: %w", name, err)
	}
	return n, nil
}

// stateOf is a member's state in a word.
func stateOf(m *membership.Member) string {
	if !m.Alive() {
		return "down"
	}
	return m.State.String()
}
