package node

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/node/reply"
	"oci-proxy/transfer/mirrors"
	"oci-proxy/transfer/upstream"
)

// An upstreamRow is how a registry, or a mirror of it, does, in the answer to /_/upstreams.
// Its names are outward.
type upstreamRow struct {
	Registry      string         `json:"registry"`
	Host          string         `json:"host"`
	State         upstream.State `json:"state"`
	Since         time.Time      `json:"since"`
	LastError     string         `json:"last_error"`
	LatencyMS     int64          `json:"latency_ms"` // 0: it has not answered
	RateLimit     *int64         `json:"rate_limit"` // null: it tells none
	RateRemaining *int64         `json:"rate_remaining"`
	RateReset     *time.Time     `json:"rate_reset"`
}

// standings tell how registries and their mirrors do, as this node sees them.
type standings struct {
	registries *registries
	upstream   *upstream.Client
	mirrors    *mirrors.Mirrors // nil if no registry has mirrors
}

// ServeHTTP answers /_/upstreams.
func (p standings) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	reply.JSON(w, p.rows())
}

// rows lists each registry, with its mirrors after it.
func (p standings) rows() []upstreamRow {
	rows := []upstreamRow{}
	byHost := map[string]upstream.Standing{}
	all := p.upstream.Standings()
	for _, s := range all {
		byHost[s.Host] = s
	}
	listed := unlisted(p.registries.cfg())
	for _, s := range all {
		r, configured := p.registries.cfg().Registry(s.Host)
		if !configured && slices.Contains(listed, s.Host) {
			continue // it is listed as a mirror
		}
		rows = append(rows, rowOf(s.Host, s))
		if p.mirrors == nil {
			continue
		}
		for _, place := range p.mirrors.Places(r.Host) {
			if place.Host == r.Host {
				continue
			}
			row := rowOf(r.Host, byHost[place.Host])
			row.LastError = cmp.Or(place.Wrong, row.LastError)
			if !place.Well && row.State == upstream.Up {
				row.State = upstream.Down
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// failing lists the registries and mirrors that fail this node: those that are configured or
// used, as this node's figures show. A client can name any other, also one that never was.
func (p standings) failing(counted map[string]*figures.Registry) (out []figures.Upstream) {
	for _, row := range p.rows() {
		if row.State != upstream.Up && (p.registries.Configured(row.Registry) || row.LatencyMS > 0 || used(counted[row.Registry])) {
			out = append(out, figures.Upstream{Registry: row.Registry, Host: row.Host, State: string(row.State), Since: row.Since, LastError: row.LastError})
		}
	}
	return out
}

// used reports whether content of a registry is held or was served.
func used(r *figures.Registry) bool {
	return r != nil && r[figures.Items]+r[figures.Hits]+r[figures.PeerHits]+r[figures.Misses] > 0
}

// used reports whether a registry has answered this node, or content of it is held or was
// served.
func (p *reports) used(registry string) bool {
	answered := func(s upstream.Standing) bool { return s.Host == registry && s.Latency > 0 }
	return used(p.byRegistry()[registry]) || slices.ContainsFunc(p.upstream.Standings(), answered)
}

// configured lists the rows of registries that are configured: clients make up the others.
func (p standings) configured() []upstreamRow {
	return slices.DeleteFunc(p.rows(), func(row upstreamRow) bool { return !p.registries.Configured(row.Registry) })
}

// rowOf is the row of a host of a registry.
func rowOf(registry string, s upstream.Standing) upstreamRow {
	row := upstreamRow{Registry: registry, Host: s.Host, State: s.State, Since: s.Since.UTC(), LastError: s.LastError, LatencyMS: s.Latency.Milliseconds()}
	if s.Latency > 0 {
		row.LatencyMS = max(1, row.LatencyMS)
	}
	if s.Quota.Limit > 0 {
		reset := s.Quota.Reset.UTC()
		row.RateLimit, row.RateRemaining, row.RateReset = &s.Quota.Limit, &s.Quota.Remaining, &reset
	}
	return row
}
