package node

import (
	"errors"
	"net/http"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/figures"
	"oci-proxy/node/gate"
	"oci-proxy/node/live"
	"oci-proxy/node/reply"
	"oci-proxy/node/rules"
	"oci-proxy/transfer/oci"
)

// events answers /_/events: what happens now, for people who watch.
type events struct {
	name    string
	live    *live.Live
	reports *reports
	gate    *gate.Gate
	rules   *rules.Rules
	sites   sites
}

// newEvents returns the events of a node.
func newEvents(n *Node, sites sites) *events {
	e := &events{name: nameOf(n.cfg), reports: n.reports, gate: n.gate, rules: n.rules, sites: sites}
	e.live = live.New(live.Config{
		Pulls: n.reports.inFlight, Sent: n.reports.sent,
		Topics: []live.Topic{
			{Name: "figures", Every: 1, Look: func() any { return n.reports.tally() }},
			{Name: "members", Every: 1, Look: func() any { return cluster.Sketch(n.cluster) }},
			{Name: "upstreams", Every: 2, Look: func() any { return e.upstreams() }},
			{Name: "evictions", Every: 2, Look: func() any { return n.reports.evictions() }},
			{Name: "hour", Every: 2, Look: func() any { return e.hour() }},
		},
	})
	return e
}

// maxUpstreams bounds the registries and mirrors that those who watch are told of: clients
// make up names.
const maxUpstreams = 100

// upstreams are the rows of /_/upstreams, configured registries first if there are too many.
func (e *events) upstreams() []upstreamRow {
	rows := e.reports.standings.rows()
	if len(rows) > maxUpstreams {
		rows = e.reports.standings.configured()
	}
	return rows[:min(len(rows), maxUpstreams)]
}

// A greeting is what a listener hears first.
type greeting struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	Admin   bool   `json:"admin"` // the listener sees all pulls, and may change things
}

// ServeHTTP answers GET /_/events. Those who may not change anything see the pulls from public
// registries alone, and of those what they may pull.
func (e *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		// It could read nothing, but would take the place of somebody who may.
		reply.Fail(w, http.StatusForbidden, reply.Error{Code: "DENIED", Message: "another site's page may not listen to this node"})
		return
	}
	admin := e.gate.Admin(r)
	err := e.live.Serve(w, r, live.Viewer{
		From: gate.Network(e.gate.Address(r)).String(), All: admin,
		See: e.sight(admin, oci.Named(e.gate.User(r))), Hello: greeting{e.name, Version, admin},
	})
	if errors.Is(err, live.ErrFull) || errors.Is(err, live.ErrEnding) {
		w.Header().Set("Retry-After", "5")
		reply.Fail(w, http.StatusServiceUnavailable, reply.Error{Code: "UNAVAILABLE", Message: err.Error()})
	}
}

// sight is what a listener may see of pulls. One who may not change anything hears of what is
// under way once the registry delivers: names that clients only ask for may be secrets of
// theirs. It hears which member delivers, but no host of a registry.
func (e *events) sight(admin bool, user oci.User) func(live.Pull) (live.Pull, bool) {
	return func(p live.Pull) (live.Pull, bool) {
		ref := oci.Ref{Registry: p.Registry, Repository: p.Repository, Tag: p.Tag}
		p.Registry = shownRegistry(p.Registry)
		if admin {
			return p, true
		}
		if p.Source == live.Waiting || !e.sites.public(ref.Registry) || e.rules.Refuse(user, ref) != nil {
			return live.Pull{}, false
		}
		if p.Source != oci.PeerHit.String() {
			p.Host = ""
		}
		return p, true
	}
}

// An hourTable is the last hour as pages draw it: each list has a number for each minute, the
// last is that of now.
type hourTable struct {
	Since    time.Time `json:"since"` // the beginning of the first minute
	Nodes    int       `json:"nodes"` // whose figures these are
	Known    int       `json:"known"` // members
	Requests []int64   `json:"requests"`
	Hit      []int64   `json:"hit_bytes"`
	Peer     []int64   `json:"peer_hit_bytes"`
	Miss     []int64   `json:"miss_bytes"`
	Upstream []int64   `json:"from_upstream_bytes"`
	P50      []float64 `json:"first_byte_p50_ms"` // 0: nothing was asked for
	P95      []float64 `json:"first_byte_p95_ms"`
	Whole    struct {
		Requests int64   `json:"requests"`
		P50      float64 `json:"first_byte_p50_ms"`
		P95      float64 `json:"first_byte_p95_ms"`
	} `json:"whole"`
}

// hour is the last hour of all members, as far as this node has heard.
func (e *events) hour() hourTable {
	h, t := e.live.Hour(), hourTable{Nodes: 1, Known: e.reports.cluster.Size()}
	for _, one := range e.reports.cluster.LastReports() {
		if one.Hour != nil {
			h.Add(one.Hour)
			t.Nodes++
		}
	}
	t.Since = time.Unix((h.End-figures.Minutes+1)*60, 0).UTC()
	for i := range h.Minutes {
		m := &h.Minutes[i]
		t.Requests, t.Hit, t.Peer = append(t.Requests, m[figures.Requests]), append(t.Hit, m[figures.HitSent]), append(t.Peer, m[figures.PeerHitSent])
		t.Miss, t.Upstream = append(t.Miss, m[figures.MissSent]), append(t.Upstream, m[figures.UpstreamBytes])
		t.P50, t.P95 = append(t.P50, firstByte(m, .5)), append(t.P95, firstByte(m, .95))
	}
	sum := h.Sum()
	t.Whole.Requests, t.Whole.P50, t.Whole.P95 = sum[figures.Requests], firstByte(&sum, .5), firstByte(&sum, .95)
	return t
}

// firstByte is within how many milliseconds the first byte came of that part of the pulls.
func firstByte(m *figures.Minute, part float64) float64 {
	took, _ := m.First(part)
	return float64(took.Round(100*time.Microsecond).Microseconds()) / 1000
}
