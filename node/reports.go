package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/node/figures"
	"oci-proxy/node/gate"
	"oci-proxy/node/health"
	"oci-proxy/node/reply"
	"oci-proxy/transfer"
	"oci-proxy/transfer/archive"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstream"
)

// reports answer the questions of people and their tools, under /_/. They only
// read what other rooms count.
type reports struct {
	registries *registries
	sites      sites
	cluster    *cluster.Cluster
	fetcher    *transfer.Fetcher
	upstream   *upstream.Client
	standings  standings
	archive    *archive.Archive // nil if none is configured
	gate       *gate.Gate
	cert       *certificate
	acme       *acme
	passwords  *atomic.Pointer[passwords]
	reloads    *reloads
	ready      *atomic.Bool
	pulls      *pulls
	began      time.Time // of the node
	hour       func() *figures.Hour
}

// health answers /_/health: the process is alive, and says what is broken. Everybody
// may ask, but only operators hear of paths, addresses and names.
func (p *reports) health(w http.ResponseWriter, r *http.Request) {
	state := struct {
		Status  string   `json:"status"`
		Reasons []string `json:"reasons,omitempty"`
	}{Status: "healthy"}
	if wrong := p.broken(); len(wrong) > 0 {
		state.Status = "degraded"
		state.Reasons = reasons(wrong, p.gate.Asks(r))
	}
	body, err := json.Marshal(state)
	if err != nil { // strings always encode
		body = []byte(`{"status":"degraded"}`)
	}
	w.Header().Set("Cache-Control", "no-store")
	reply.Body(w, "application/json", body)
}

// reasons are what is wrong, as operators hear it or everybody does.
func reasons(wrong []error, operator bool) (out []string) {
	if !operator {
		for _, code := range health.CodesOf(wrong) {
			out = append(out, string(code))
		}
		return out
	}
	for _, err := range wrong {
		out = append(out, health.Text(err))
	}
	return out
}

// broken lists what keeps the node from working as it should, with codes.
func (p *reports) broken() []error {
	wrong := append(p.registries.health(), p.passwords.Load().health()...)
	for _, account := range p.upstream.Refused() {
		wrong = append(wrong, health.Because(health.RegistryLogin, fmt.Errorf("%s: the registry refuses this login: correct it, or remove it", account)))
	}
	wrong = append(wrong, p.cluster.Health()...)
	wrong = append(wrong, p.cert.health(time.Now())...)
	wrong = append(wrong, p.acme.health(time.Now())...)
	wrong = append(wrong, health.Because(health.Auth, p.gate.Health()), p.reloads.health())
	if p.archive != nil {
		wrong = append(wrong, health.Because(health.Archive, p.archive.Health()))
	}
	return slices.DeleteFunc(wrong, func(err error) bool { return err == nil })
}

// readiness answers /_/ready: whether the node should get traffic.
func (p *reports) readiness(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if !p.ready.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	reply.Body(w, "application/json", []byte(`{"status":"ready"}`))
}

// stats answers /_/stats: the sums of the whole cluster, or this node's figures.
func (p *reports) stats(w http.ResponseWriter, r *http.Request) {
	sum := p.byRegistry()
	answered, known := 1, 1
	if r.URL.Query().Get("scope") != "node" {
		var missing []string
		for _, one := range p.cluster.Reports(r.Context()) {
			known++
			if one.Err != nil {
				missing = append(missing, one.Member.Name)
				continue
			}
			answered++
			figures.AddAll(sum, one.Figures.Registries)
		}
		if len(missing) > 0 {
			w.Header().Set("X-Cluster-Missing", clip(strings.Join(missing, ", ")))
		}
	}
	w.Header().Set("X-Cluster-Nodes", fmt.Sprintf("%d/%d", answered, known))
	reply.JSON(w, sum)
}

// members answers /_/cluster.
func (p *reports) members(w http.ResponseWriter, r *http.Request) {
	d := p.cluster.Describe(r.Context())
	if !p.gate.Operator(r) {
		veil(d.Members)
	}
	reply.JSON(w, d)
}

// veil leaves of the reasons why members are degraded what /_/health tells everybody. The
// figures of a member belong to others, too: they are not changed.
func veil(members []cluster.Member) {
	for i := range members {
		if s := members[i].Stats; s != nil && len(s.Reasons) > 0 {
			veiled := *s
			veiled.Reasons = s.Codes
			members[i].Stats = &veiled
		}
	}
}

// owner answers /_/owner/<digest>. Whether private content is held is for
// operators: other clients could learn from it what somebody pulled. Those take a turn, since all
// members are asked for them.
func (p *reports) owner(w http.ResponseWriter, r *http.Request) {
	d, err := digest.Parse(r.PathValue("digest"))
	if err != nil {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "DIGEST_INVALID", Message: "the digest is not of the form algorithm:hex"})
		return
	}
	operator := p.gate.Operator(r)
	if !operator {
		who, _ := p.gate.MayPull(r)
		end, err := p.gate.Turn(r, who)
		if err != nil {
			fail(w, r, p.gate, oci.BlobResource, err)
			return
		}
		defer end()
	}
	reply.JSON(w, p.cluster.Owner(r.Context(), d, cluster.Sight{All: operator, Open: p.fetcher.Public, Public: p.sites.public}))
}

// own are this node's figures, and how it is, as other members are told.
func (p *reports) own() *figures.Node {
	n := p.counted()
	n.Uptime, n.Pulls = max(1, int64(time.Since(p.began).Seconds())), p.pulls.underWay()
	wrong := p.broken()
	n.Hour = p.hour()
	if d := p.directory(); d != (figures.Directory{}) { // a node on its own has none
		n.Directory = &d
	}
	n.Reasons, n.Codes = figures.Reasons(reasons(wrong, true)), reasons(wrong, false)
	n.Upstreams = figures.Upstreams(p.standings.failing(n.Registries))
	return n
}

// counted are this node's figures.
func (p *reports) counted() *figures.Node {
	n := &figures.Node{Registries: p.byRegistry()}
	for _, shard := range p.registries.Shards() {
		n.MaxSize += shard.Bound()
	}
	return n
}

// byRegistry are this node's figures of each registry that is configured or has
// delivered something.
func (p *reports) byRegistry() map[string]*figures.Registry {
	out := map[string]*figures.Registry{}
	of := func(registry string) *figures.Registry {
		if out[registry] == nil {
			out[registry] = &figures.Registry{figures.MaxSize: p.registries.bound(registry)}
		}
		return out[registry]
	}
	for _, registry := range p.registries.configured() {
		of(registry)
	}
	for registry, c := range p.fetcher.Counters() {
		of(registry).Count(c)
	}
	for _, shard := range p.registries.Shards() {
		for registry, s := range shard.Stats() {
			of(registry).Hold(s)
		}
	}
	return out
}

// totals are the cluster's figures in the body of /v2/.
type totals struct {
	Nodes       int   `json:"nodes"`
	Hits        int64 `json:"hits"`
	PeerHits    int64 `json:"peer_hits"`
	Misses      int64 `json:"misses"`
	Items       int64 `json:"items"`
	CurrentSize int64 `json:"current_size"`
	MaxSize     int64 `json:"max_size"`
}

// totals adds up what is known of the cluster, and asks nobody: a pull waits for
// it. A bound counts once for each shard.
func (p *reports) totals() totals {
	var sum figures.Registry
	bound := int64(0)
	for _, one := range append(p.cluster.LastReports(), p.counted()) {
		bound += one.MaxSize
		for _, r := range one.Registries {
			sum.Add(r)
		}
	}
	return totals{
		Nodes: p.cluster.Size(), Hits: sum[figures.Hits], PeerHits: sum[figures.PeerHits], Misses: sum[figures.Misses],
		Items: sum[figures.Items], CurrentSize: sum[figures.CurrentSize], MaxSize: bound,
	}
}
