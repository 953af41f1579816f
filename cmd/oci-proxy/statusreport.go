package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A clusterAnswer is the part of /_/cluster's answer that status tells of.
type clusterAnswer struct {
	Ring    string
	Members []memberAnswer
	Missing []struct{ Name, Reason string }
}

// A memberAnswer is the part of a member that status tells of.
type memberAnswer struct {
	ID, Name, State, Gossip, Peer, Zone, Version string
	Since                                        time.Time
	Share                                        float64
	Self, Healthy, Egress                        bool
	OldSecret                                    bool `json:"old_secret"`
	Stats                                        *struct {
		Registries map[string]struct{ Hits, PeerHits, Misses, Items, CurrentSize int64 }
		MaxSize    int64 `json:"max_size"`
		Ring       string
		Uptime     int64 `json:"uptime_seconds"`
		Pulls      int64
		Reasons    []string
		Upstreams  []upstreamStatus // registries and mirrors that fail it
	}
}

// A clusterStatus is what status tells. It is the object of -o json: names stay, and more
// may come.
type clusterStatus struct {
	Time      time.Time        `json:"time"`
	Address   string           `json:"address"` // of the node that was asked
	Ring      string           `json:"ring"`
	Members   []memberStatus   `json:"members"`
	Total     figuresStatus    `json:"total"`
	Up        int              `json:"up"` // members that are active
	Upstreams []upstreamStatus `json:"upstreams"`
	Degraded  []degradation    `json:"degraded"`
}

// A figuresStatus is what members hold and were asked for.
type figuresStatus struct {
	Blobs    int64 `json:"blobs"`
	Bytes    int64 `json:"bytes"`
	Bound    int64 `json:"bound"` // 0: none
	Hits     int64 `json:"hits"`
	PeerHits int64 `json:"peer_hits"`
	Misses   int64 `json:"misses"`
	Pulls    int64 `json:"pulls"` // requests of pulls that are being answered
}

// A memberStatus is what status tells of a member.
type memberStatus struct {
	ID            string    `json:"id"`
	Name          string    `json:"name"`
	Self          bool      `json:"self"`  // it is the one that was asked
	State         string    `json:"state"` // active, restarting, draining, down or gone
	Since         time.Time `json:"since"`
	Healthy       bool      `json:"healthy"`        // the node that was asked does not pass it over
	Answered      bool      `json:"answered"`       // the figures are its own
	UptimeSeconds int64     `json:"uptime_seconds"` // 0: it does not tell
	Share         float64   `json:"share"`
	Zone          string    `json:"zone"`
	Version       string    `json:"version"`
	Gossip        string    `json:"gossip"`
	Peer          string    `json:"peer"`
	Egress        bool      `json:"egress"`
	figuresStatus
}

// A degradation is something that is not as it should be.
type degradation struct {
	Of     string   `json:"of"` // the name of a member, a registry's host, or cluster
	Reason string   `json:"reason"`
	At     []string `json:"at,omitempty"` // members that see it, if of is a registry's host
}

// statusOf makes a report of a node's answers.
func statusOf(c clusterAnswer, ups []upstreamStatus, address string, now time.Time) clusterStatus {
	out := clusterStatus{Time: now.UTC().Truncate(time.Second), Address: address, Ring: c.Ring, Members: []memberStatus{}, Upstreams: ups, Degraded: []degradation{}}
	if ups == nil {
		out.Upstreams = []upstreamStatus{}
	}
	bounded := true
	for _, m := range c.Members {
		one := m.status()
		out.Members = append(out.Members, one)
		out.Total.add(one.figuresStatus)
		bounded = bounded && (m.Stats == nil || one.Bound > 0)
		if one.State == "active" {
			out.Up++
		}
		out.tell(m.Name, m.wrong(c.Ring, now))
	}
	if !bounded {
		out.Total.Bound = 0
	}
	for _, m := range c.Missing {
		if down := slices.ContainsFunc(c.Members, func(o memberAnswer) bool { return o.Name == m.Name && o.State == "down" }); !down {
			out.tell(m.Name, []string{"did not answer: " + m.Reason})
		}
	}
	if all := out.versions(); len(all) > 1 {
		out.tell("cluster", []string{"the members run different versions: " + out.who(all)})
	}
	out.Degraded = append(out.Degraded, failing(c.Members, now)...)
	return out
}

// tell adds what is wrong with something.
func (c *clusterStatus) tell(of string, reasons []string) {
	for _, r := range reasons {
		c.Degraded = append(c.Degraded, degradation{Of: of, Reason: r})
	}
}

// versions lists the versions of the members that live.
func (c *clusterStatus) versions() (all []string) {
	for _, m := range c.Members {
		if m.State != "gone" && m.Version != "" && !slices.Contains(all, m.Version) {
			all = append(all, m.Version)
		}
	}
	slices.Sort(all)
	return all
}

// who says which members run which version.
func (c *clusterStatus) who(versions []string) string {
	var all []string
	for _, v := range versions {
		var names []string
		for _, m := range c.Members {
			if m.State != "gone" && m.Version == v {
				names = append(names, m.Name)
			}
		}
		all = append(all, v+" ("+few(names)+")")
	}
	return strings.Join(all, "; ")
}

// few lists names: the first five, and how many more there are.
func few(names []string) string {
	const most = 5
	if more := len(names) - most; more > 0 {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// add adds another member's figures.
func (f *figuresStatus) add(o figuresStatus) {
	f.Blobs += o.Blobs
	f.Bytes += o.Bytes
	f.Bound += o.Bound
	f.Hits += o.Hits
	f.PeerHits += o.PeerHits
	f.Misses += o.Misses
	f.Pulls += o.Pulls
}

// status is what is told of a member.
func (m *memberAnswer) status() memberStatus {
	out := memberStatus{
		ID: m.ID, Name: m.Name, Self: m.Self, State: m.State, Since: m.Since, Healthy: m.Healthy, Share: m.Share,
		Zone: m.Zone, Version: m.Version, Gossip: m.Gossip, Peer: m.Peer, Egress: m.Egress,
	}
	if m.Stats == nil {
		return out
	}
	out.Answered, out.UptimeSeconds = true, m.Stats.Uptime
	out.Bound, out.Pulls = m.Stats.MaxSize, m.Stats.Pulls
	for _, r := range m.Stats.Registries {
		out.add(figuresStatus{Blobs: r.Items, Bytes: r.CurrentSize, Hits: r.Hits, PeerHits: r.PeerHits, Misses: r.Misses})
	}
	return out
}

// wrong lists what is wrong with a member, in a cluster that places keys by ring.
func (m *memberAnswer) wrong(ring string, now time.Time) (all []string) {
	switch m.State {
	case "down":
		return []string{"down " + since(m.Since, now) + ": start it again; after two minutes it loses its place"}
	case "gone":
		return []string{"gone " + since(m.Since, now) + ": it died and lost its place; oci-proxy forget " + m.Name + " ends this line"}
	case "restarting":
		all = append(all, "restarting: it takes nothing new"+m.underWay())
	case "draining":
		all = append(all, "leaves for good: it hands over what it holds"+m.underWay())
	}
	if !m.Healthy && !m.Self {
		all = append(all, "quarantined: it failed this node, which passes it over until it answers a ping")
	}
	if m.OldSecret {
		all = append(all, "it does not accept the cluster's first secret yet: give it the new secret, and reload it")
	}
	if m.Stats == nil {
		return all
	}
	if m.Stats.Ring != "" && m.Stats.Ring != ring {
		all = append(all, "it places keys otherwise: the members do not all know each other")
	}
	return append(all, m.Stats.Reasons...)
}

// underWay tells of the requests that a member which ends is still answering.
func (m *memberAnswer) underWay() string {
	if m.Stats == nil || m.Stats.Pulls == 0 {
		return ""
	}
	return fmt.Sprintf("; requests under way: %d", m.Stats.Pulls)
}

// since says when something began.
func since(at, now time.Time) string {
	if at.IsZero() {
		return "for a time"
	}
	return fmt.Sprintf("for %s", duration(now.Sub(at)))
}

// after returns text behind what leads to it, "" if there is none.
func after(lead, text string) string {
	if text == "" {
		return ""
	}
	return lead + text
}

// duration writes how long something takes, in its two largest units.
func duration(d time.Duration) string {
	s := int64(max(d, 0).Seconds())
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%dm", s/3600, s%3600/60)
	default:
		return fmt.Sprintf("%dd%dh", s/86400, s%86400/3600)
	}
}
