package node

import (
	"encoding/json"
	"net/http"
)

// registryStats are the figures of one registry, in the ancestor's shape and
// more fields beside.
type registryStats struct {
	Hits        int64
	PeerHits    int64 // from another node's disk: 0 for a node on its own
	Misses      int64
	Evictions   uint64
	Items       int64
	CurrentSize int64
	MaxSize     int64 // 0: no bound
	HitBytes    int64 // bytes sent to clients from the shard
	MissBytes   int64 // bytes sent to clients as they came from upstream
}

// byRegistry are the figures of each registry that is configured or has
// delivered something.
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
		s.Hits, s.Misses = c.Hits.Load(), c.Misses.Load()
		s.HitBytes, s.MissBytes = c.HitBytes.Load(), c.MissBytes.Load()
	}
	for _, store := range n.stores {
		for registry, c := range store.Stats() {
			s := of(registry)
			s.Items += c.Items
			s.CurrentSize += c.Bytes
			s.Evictions += c.Evictions
			s.MaxSize = c.Bound
		}
	}
	return out
}

// stats answers /_/stats.
func (n *Node) stats(w http.ResponseWriter, _ *http.Request) {
	body, err := json.MarshalIndent(n.byRegistry(), "", "  ")
	if err != nil {
		body = []byte("{}") // numbers: can't be
	}
	w.Header().Set("X-Cluster-Nodes", "1/1")
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

// totals adds the registries up. A bound counts once for each store.
func (n *Node) totals() totals {
	t := totals{Nodes: 1}
	for _, s := range n.byRegistry() {
		t.Hits += s.Hits
		t.PeerHits += s.PeerHits
		t.Misses += s.Misses
		t.Items += s.Items
		t.CurrentSize += s.CurrentSize
	}
	for _, store := range n.stores {
		t.MaxSize += store.Bound()
	}
	return t
}
