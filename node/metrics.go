package node

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"oci-proxy/node/figures"
	"oci-proxy/node/gate"
	"oci-proxy/transfer/archive"
	"oci-proxy/transfer/upstream"
)

// A sample is one value of a metric.
type sample struct {
	value  int64
	labels []string
}

// A metric is one of /_/metrics.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	values     func(s *snapshot) []sample
}

// A snapshot is what the metrics of one moment are read from.
type snapshot struct {
	registries map[string]*figures.Registry
	members    map[string]int64 // by state
	gate       gate.Figures
	lists      kept
	archive    archive.Figures
	upstreams  []upstreamRow
	degraded   bool
}

// kept is how many bytes of lists are kept, and may be.
type kept struct{ bytes, bound int64 }

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// table lists all metrics. Names and labels are outward.
var table = []metric{
	bySource("requests_total", "Client requests for blobs and manifests by digest, by where the bytes came from.",
		from{"hit", figures.Hits}, from{"peer", figures.PeerHits}, from{"miss", figures.Misses}),
	bySource("sent_bytes_total", "Bytes of content sent to clients, by where they came from.",
		from{"hit", figures.HitBytes}, from{"peer", figures.PeerHitBytes}, from{"miss", figures.MissBytes}),
	bySource("received_bytes_total", "Bytes of blobs received, by where they came from.",
		from{"upstream", figures.FromUpstreamBytes}, from{"peer", figures.FromPeersBytes}, from{"archive", figures.FromArchiveBytes}),
	byRegistry("sent_to_peers_bytes_total", "Bytes of blobs sent to other nodes.", counter, figures.ToPeersBytes),
	{"members", "Members of the cluster by state, this node included.", gauge, []string{"state"}, func(s *snapshot) (out []sample) {
		for state, n := range s.members {
			out = append(out, sample{n, []string{state}})
		}
		return out
	}},
	byRegistry("evictions_total", "Blobs evicted to make room.", counter, figures.Evictions),
	byRegistry("shard_blobs", "Blobs in the shard.", gauge, figures.Items),
	byRegistry("shard_bytes", "Bytes of content in the shard.", gauge, figures.CurrentSize),
	byRegistry("shard_bound_bytes", "Bound of the shard in bytes; 0: none.", gauge, figures.MaxSize),
	byUpstream("upstream_up", "1 while a registry, or a mirror of it, answers, else 0.", func(row upstreamRow) int64 {
		if row.State == upstream.Up {
			return 1
		}
		return 0
	}),
	byUpstream("upstream_rate_limit_remaining", "What a registry, or a mirror of it, says is left of its rate limit, in requests; -1: it says nothing.", func(row upstreamRow) int64 {
		if row.RateRemaining == nil {
			return -1
		}
		return *row.RateRemaining
	}),
	single("kept_lists_bytes", "Bytes of lists kept for when a registry fails.", gauge, func(s *snapshot) int64 { return s.lists.bytes }),
	single("kept_lists_bound_bytes", "Bound of the lists that are kept, in bytes.", gauge, func(s *snapshot) int64 { return s.lists.bound }),
	{"archive_objects_total", "Objects found in the bucket of the archive, put into it, and not put: because it had them, it failed, or too many waited.", counter, []string{"what"}, func(s *snapshot) []sample {
		a := s.archive
		return []sample{{a.Found, []string{"found"}}, {a.Put, []string{"put"}}, {a.Had, []string{"had"}}, {a.Failed, []string{"failed"}}, {a.Dropped, []string{"dropped"}}}
	}},
	single("client_connections", "Clients' connections.", gauge, func(s *snapshot) int64 { return int64(s.gate.Connections) }),
	{"pulls", "Pulls under way, and those that wait for their turn.", gauge, []string{"state"}, func(s *snapshot) []sample {
		return []sample{{int64(s.gate.Pulls), []string{"active"}}, {int64(s.gate.Waiting), []string{"waiting"}}}
	}},
	single("pulls_refused_total", "Pulls that got no turn in time.", counter, func(s *snapshot) int64 { return s.gate.Refused }),
	single("failed_logins_total", "Logins that were wrong, or not looked at after too many of those.", counter, func(s *snapshot) int64 { return s.gate.FailedLogins }),
	single("degraded", "1 while the node serves with something broken, else 0.", gauge, func(s *snapshot) int64 {
		if s.degraded {
			return 1
		}
		return 0
	}),
}

// single is a metric with one value.
func single(name, help string, kind prometheus.ValueType, value func(s *snapshot) int64) metric {
	return metric{name, help, kind, nil, func(s *snapshot) []sample { return []sample{{value: value(s)}} }}
}

// byRegistry is a metric with a value for each registry.
func byRegistry(name, help string, kind prometheus.ValueType, f figures.Figure) metric {
	return metric{name, help, kind, []string{"registry"}, func(s *snapshot) (out []sample) {
		for registry, r := range s.registries {
			out = append(out, sample{r[f], []string{registry}})
		}
		return out
	}}
}

// byUpstream is a gauge with a value for each registry that is configured, and each mirror.
func byUpstream(name, help string, value func(upstreamRow) int64) metric {
	return metric{name, help, gauge, []string{"registry", "host"}, func(s *snapshot) (out []sample) {
		for _, row := range s.upstreams {
			out = append(out, sample{value(row), []string{row.Registry, row.Host}})
		}
		return out
	}}
}

// from is a figure of what came from one source.
type from struct {
	source string
	figure figures.Figure
}

// bySource is a counter with a value for each registry and source.
func bySource(name, help string, sources ...from) metric {
	return metric{name, help, counter, []string{"registry", "source"}, func(s *snapshot) (out []sample) {
		for registry, r := range s.registries {
			for _, one := range sources {
				out = append(out, sample{r[one.figure], []string{registry, one.source}})
			}
		}
		return out
	}}
}

// describe describes the metric to Prometheus.
func (m *metric) describe() *prometheus.Desc {
	return prometheus.NewDesc("oci_proxy_"+m.name, m.help, m.labels, nil)
}

// metrics returns the handler of /_/metrics.
func (p *reports) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{p}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// snapshot reads the other rooms' figures.
func (p *reports) snapshot() *snapshot {
	var archived archive.Figures
	if p.archive != nil {
		archived = p.archive.Figures()
	}
	return &snapshot{archive: archived, registries: p.byRegistry(), members: p.cluster.States(), gate: p.gate.Figures(), lists: p.registries.keptLists(), upstreams: p.configuredRows(), degraded: len(p.broken()) > 0}
}

// A collector hands the table to Prometheus.
type collector struct{ reports *reports }

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for i := range table {
		out <- table[i].describe()
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	now := c.reports.snapshot()
	for i := range table {
		m := &table[i]
		for _, s := range m.values(now) {
			out <- prometheus.MustNewConstMetric(m.describe(), m.kind, float64(s.value), s.labels...)
		}
	}
}
