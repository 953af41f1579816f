package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/membership"
	"oci-proxy/transfer/oci"
)

// errDown is why a member was not asked.
var errDown = errors.New("it is down")

// A memberInfo is what /_/cluster tells of a member.
type memberInfo struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Gossip  string     `json:"gossip"`
	Peer    string     `json:"peer"`
	State   string     `json:"state"` // active, restarting, draining or down
	Since   time.Time  `json:"since"`
	Share   float64    `json:"share"` // of the keys, 0 to 1
	Weight  int        `json:"weight"`
	Zone    string     `json:"zone,omitempty"`
	Version string     `json:"version"`
	Egress  bool       `json:"egress"`
	Self    bool       `json:"self,omitempty"`
	Healthy bool       `json:"healthy"` // this node does not pass it over
	Stats   *nodeStats `json:"stats,omitempty"`
}

// A clusterInfo is the answer of /_/cluster.
type clusterInfo struct {
	Members []memberInfo `json:"members"`
	Ring    string       `json:"ring"`    // equal on all nodes that place keys alike
	Missing []missing    `json:"missing"` // who did not answer
}

// A missing member did not answer.
type missing struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// clusterState answers /_/cluster.
func (n *Node) clusterState(w http.ResponseWriter, r *http.Request) {
	c := n.cluster
	if c == nil {
		writeJSON(w, clusterInfo{Members: []memberInfo{{
			ID: n.name, Name: n.name, State: membership.Active.String(), Since: n.since, Share: 1, Weight: 1,
			Version: Version, Egress: true, Self: true, Healthy: true, Stats: n.ownStats(),
		}}, Missing: []missing{}})
		return
	}
	said := n.others(r.Context())
	v := c.members.View()
	info := clusterInfo{Ring: fmt.Sprintf("%016x", v.Ring.Hash()), Missing: []missing{}}
	stats := map[string]*nodeStats{v.Self.ID: n.ownStats()}
	for _, one := range said {
		if one.err != nil {
			info.Missing = append(info.Missing, missing{one.member.Name, one.err.Error()})
			continue
		}
		stats[one.member.ID] = one.value
	}
	for i := range v.Members {
		m := &v.Members[i]
		info.Members = append(info.Members, memberInfo{
			ID: m.ID, Name: m.Name, Gossip: m.Gossip, Peer: m.Peer, State: stateOf(m), Since: m.Since, Share: v.Ring.Share(m.ID),
			Weight: m.Weight, Zone: m.Zone, Version: m.Version, Egress: m.Egress, Self: m.ID == v.Self.ID,
			Healthy: m.ID == v.Self.ID || m.Alive() && c.client.Healthy(m.ID), Stats: stats[m.ID],
		})
	}
	slices.SortFunc(info.Members, func(a, b memberInfo) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	writeJSON(w, info)
}

// stateOf is a member's state in a word.
func stateOf(m *membership.Member) string {
	if !m.Alive() {
		return "down"
	}
	return m.State.String()
}

// byState counts the members by their state.
func (n *Node) byState() map[string]int64 {
	if n.cluster == nil {
		return map[string]int64{membership.Active.String(): 1}
	}
	out := map[string]int64{}
	v := n.cluster.members.View()
	for i := range v.Members {
		out[stateOf(&v.Members[i])]++
	}
	return out
}

// An ownerInfo is the answer of /_/owner/<digest>.
type ownerInfo struct {
	Digest  string    `json:"digest"`
	Owner   string    `json:"owner"`
	Next    []string  `json:"next"`
	Holders []string  `json:"holders"` // whose shard holds it
	Missing []missing `json:"missing"` // who did not answer
}

// owner answers /_/owner/<digest>.
func (n *Node) owner(w http.ResponseWriter, r *http.Request) {
	d, err := digest.Parse(r.PathValue("digest"))
	if err != nil {
		writeError(w, http.StatusBadRequest, ociError{Code: "DIGEST_INVALID", Message: "digest is not of the form algorithm:hex"})
		return
	}
	info := ownerInfo{Digest: d.String(), Owner: n.name, Next: []string{}, Holders: []string{}, Missing: []missing{}}
	for _, store := range n.stores {
		if _, ok := store.Stat(d); ok {
			info.Holders = append(info.Holders, n.name)
			break
		}
	}
	if n.cluster != nil {
		n.ownerAmongMembers(r.Context(), d, &info)
	}
	writeJSON(w, info)
}

// ownerAmongMembers completes the answer for a node that is one of several.
func (n *Node) ownerAmongMembers(ctx context.Context, d digest.Digest, info *ownerInfo) {
	c := n.cluster
	v := c.members.View()
	owners, k := v.Ring.Owners(d.String())
	for i, o := range owners[:k] {
		name := o.ID
		if m, ok := v.Member(o.ID); ok {
			name = m.Name
		}
		if i == 0 {
			info.Owner = name
		} else {
			info.Next = append(info.Next, name)
		}
	}
	said := fan(ctx, v, func(ctx context.Context, m *membership.Member) (held bool, err error) {
		for _, registry := range n.oneOfEachStore() {
			p, err := c.client.Peer(m.ID).Progress(ctx, oci.Ref{Registry: registry, Digest: d})
			if err != nil || p.Held {
				return p.Held, err
			}
		}
		return false, nil
	})
	for _, one := range said {
		if one.err != nil {
			info.Missing = append(info.Missing, missing{one.member.Name, one.err.Error()})
		} else if one.value {
			info.Holders = append(info.Holders, one.member.Name)
		}
	}
}

// oneOfEachStore names a registry for each store.
func (n *Node) oneOfEachStore() []string {
	seen := map[string]bool{}
	var out []string
	for _, r := range n.cfg.Registries {
		if dir := storeDir(r); !seen[dir] {
			seen[dir] = true
			out = append(out, r.Host)
		}
	}
	return out
}
