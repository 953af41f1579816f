package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"oci-proxy/node/membership"
)

// registryStats are the figures of one registry, in the ancestor's shape and
// more fields beside.
type registryStats struct {
	Hits              int64
	PeerHits          int64 // from another node's disk
	Misses            int64
	Evictions         int64
	Items             int64
	CurrentSize       int64
	MaxSize           int64 // 0: no bound
	HitBytes          int64 // bytes sent to clients from the shard
	PeerHitBytes      int64 // bytes sent to clients from another node's
	MissBytes         int64 // bytes sent to clients as they came from upstream
	FromUpstreamBytes int64 // bytes of blobs received from upstream
	FromPeersBytes    int64 // bytes of blobs received from other nodes
	ToPeers           int64 // blobs sent to other nodes, which no client's counter counts
	ToPeersBytes      int64
}

// add adds another node's figures.
func (s *registryStats) add(o *registryStats) {
	s.Hits += o.Hits
	s.PeerHits += o.PeerHits
	s.Misses += o.Misses
	s.Evictions += o.Evictions
	s.Items += o.Items
	s.CurrentSize += o.CurrentSize
	s.MaxSize += o.MaxSize
	s.HitBytes += o.HitBytes
	s.PeerHitBytes += o.PeerHitBytes
	s.MissBytes += o.MissBytes
	s.FromUpstreamBytes += o.FromUpstreamBytes
	s.FromPeersBytes += o.FromPeersBytes
	s.ToPeers += o.ToPeers
	s.ToPeersBytes += o.ToPeersBytes
}

// nodeStats are one node's figures, as the others ask for them.
type nodeStats struct {
	Registries map[string]*registryStats `json:"registries"`
	MaxSize    int64                     `json:"max_size"` // of all its stores, each counted once
}

const (
	// maxToldRegistries bounds the registries that a member tells figures of.
	maxToldRegistries = 4096
	// maxToldName bounds a registry's name there.
	maxToldName = 255
	// maxFigure bounds a figure, so that no sum of members' overflows.
	maxFigure = 1 << 53
)

var errFigures = errors.New("no node has such figures")

// readStats reads what another member says of itself, which may be anything.
func readStats(raw []byte) (*nodeStats, error) {
	s := new(nodeStats)
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, err
	}
	if len(s.Registries) > maxToldRegistries || !sane(s.MaxSize) {
		return nil, errFigures
	}
	for name, r := range s.Registries {
		if r == nil {
			delete(s.Registries, name) // another version's idea of figures
			continue
		}
		if len(name) > maxToldName || strings.IndexFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) >= 0 || !sane(
			r.Hits, r.PeerHits, r.Misses, r.Evictions, r.Items, r.CurrentSize, r.MaxSize, r.HitBytes, r.PeerHitBytes, r.MissBytes,
			r.FromUpstreamBytes, r.FromPeersBytes, r.ToPeers, r.ToPeersBytes,
		) {
			return nil, errFigures
		}
	}
	return s, nil
}

// sane reports whether all of the figures may be some.
func sane(all ...int64) bool {
	return !slices.ContainsFunc(all, func(n int64) bool { return n < 0 || n > maxFigure })
}

// byRegistry are this node's figures of each registry that is configured or
// has delivered something.
func (n *Node) byRegistry() map[string]*registryStats {
	out := map[string]*registryStats{}
	of := func(registry string) *registryStats {
		s, ok := out[registry]
		if !ok {
			r, _ := n.cfg.Registry(registry)
			s = &registryStats{MaxSize: r.CacheMaxSize}
			out[registry] = s
		}
		return s
	}
	for _, r := range n.cfg.Registries {
		of(r.Host)
	}
	for registry, c := range n.fetcher.Counters() {
		s := of(registry)
		s.Hits, s.PeerHits, s.Misses = c.Hits.Load(), c.PeerHits.Load(), c.Misses.Load()
		s.HitBytes, s.PeerHitBytes, s.MissBytes = c.HitBytes.Load(), c.PeerHitBytes.Load(), c.MissBytes.Load()
		s.FromUpstreamBytes, s.FromPeersBytes = c.FromUpstreamBytes.Load(), c.FromPeersBytes.Load()
		s.ToPeers, s.ToPeersBytes = c.ToPeers.Load(), c.ToPeersBytes.Load()
	}
	for _, store := range n.stores {
		for registry, c := range store.Stats() {
			s := of(registry)
			s.Items += c.Items
			s.CurrentSize += c.Bytes
			s.Evictions += int64(c.Evictions)
			s.MaxSize = c.Bound
		}
	}
	return out
}

// ownStats are this node's figures.
func (n *Node) ownStats() *nodeStats {
	s := &nodeStats{Registries: n.byRegistry()}
	for _, store := range n.stores {
		s.MaxSize += store.Bound()
	}
	return s
}

// A census is what the other members said of themselves.
type census struct {
	mu    sync.Mutex // one asks at a time; who waited takes what came
	at    time.Time
	of    *membership.View // whose members were asked
	said  []answered[*nodeStats]
	last  map[string]*nodeStats // by member's id: what each said last
	known sync.Mutex            // guards last alone, for who must not wait
}

// censusAge is for how long what the members said is passed on.
const censusAge = time.Second

// others asks the other members for their figures, or returns what they said a
// moment ago. It takes a second at most.
func (n *Node) others(ctx context.Context) []answered[*nodeStats] {
	c := n.cluster
	if c == nil {
		return nil
	}
	c.census.mu.Lock()
	defer c.census.mu.Unlock()
	v := c.members.View()
	if c.census.of == v && time.Since(c.census.at) < censusAge {
		return c.census.said
	}
	// Who waits for the answer may leave; those behind want it all the same.
	said := fan(context.WithoutCancel(ctx), v, func(ctx context.Context, m *membership.Member) (*nodeStats, error) {
		raw, err := c.client.Stats(ctx, m.ID)
		if err != nil {
			return nil, err
		}
		s, err := readStats(raw)
		if err != nil {
			return nil, fmt.Errorf("reading the figures of %s: %w", m.Name, err)
		}
		return s, nil
	})
	c.census.at, c.census.of, c.census.said = time.Now(), v, said
	c.census.note(said)
	return said
}

// note remembers what each member said last, and forgets those that are gone.
func (c *census) note(said []answered[*nodeStats]) {
	c.known.Lock()
	defer c.known.Unlock()
	last := make(map[string]*nodeStats, len(said))
	for _, one := range said {
		if one.err == nil {
			last[one.member.ID] = one.value
		} else if old, ok := c.last[one.member.ID]; ok {
			last[one.member.ID] = old
		}
	}
	c.last = last
}

// lastKnown are the figures of the other members as they were last heard.
func (c *census) lastKnown() []*nodeStats {
	c.known.Lock()
	defer c.known.Unlock()
	out := make([]*nodeStats, 0, len(c.last))
	for _, s := range c.last {
		out = append(out, s)
	}
	return out
}

// stats answers /_/stats: the whole cluster's sums, or this node's figures.
func (n *Node) stats(w http.ResponseWriter, r *http.Request) {
	sum := n.byRegistry()
	answers, known := 1, 1
	if r.URL.Query().Get("scope") != "node" {
		var missing []string
		for _, one := range n.others(r.Context()) {
			known++
			if one.err != nil {
				missing = append(missing, one.member.Name)
				continue
			}
			answers++
			addTo(sum, one.value.Registries)
		}
		if len(missing) > 0 {
			w.Header().Set("X-Cluster-Missing", clip(strings.Join(missing, ", ")))
		}
	}
	w.Header().Set("X-Cluster-Nodes", fmt.Sprintf("%d/%d", answers, known))
	writeJSON(w, sum)
}

// addTo adds another node's figures to a sum.
func addTo(sum, more map[string]*registryStats) {
	for registry, s := range more {
		if sum[registry] == nil {
			sum[registry] = new(registryStats)
		}
		sum[registry].add(s)
	}
}

// writeJSON writes an answer that holds for the moment only.
func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		body = []byte("{}") // strings and numbers: can't be
	}
	w.Header().Set("Cache-Control", "no-store")
	writeBody(w, "application/json", body)
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

// totals adds up what is known of the cluster, and asks nobody: a pull waits
// for it. A bound counts once for each store.
func (n *Node) totals() totals {
	t := totals{Nodes: 1}
	all := []*nodeStats{n.ownStats()}
	if n.cluster != nil {
		all = append(all, n.cluster.census.lastKnown()...)
		t.Nodes = n.cluster.size()
	}
	for _, one := range all {
		t.MaxSize += one.MaxSize
		for _, s := range one.Registries {
			t.Hits += s.Hits
			t.PeerHits += s.PeerHits
			t.Misses += s.Misses
			t.Items += s.Items
			t.CurrentSize += s.CurrentSize
		}
	}
	return t
}

// size is how many members are up.
func (c *cluster) size() int {
	up := 0
	for _, m := range c.members.View().Members {
		if m.Up {
			up++
		}
	}
	return up
}

// hearOthers hears the other members' figures now and then, for totals: each
// ten seconds and when members come or go, and less often in a large cluster, so
// that no node answers more than twice a second.
func (n *Node) hearOthers(ctx context.Context) {
	members := n.cluster.members
	for {
		changed := members.Changed()
		n.others(ctx)
		pause := time.Duration(len(members.View().Members)) * time.Second / 2
		select {
		case <-time.After(max(10*time.Second, pause)):
		case <-changed:
			_ = rest(ctx, max(censusAge, pause)) // others may come with it; ctx's end is seen below
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// rest waits, or returns why ctx ended.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
