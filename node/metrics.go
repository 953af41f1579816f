package node

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The metrics of /_/metrics. The rooms count for themselves; these are read
// from their figures whenever Prometheus asks.
var (
	metricRequests = describe("requests_total", "Client requests for blobs and manifests by digest, by where the bytes came from.", "registry", "source")
	metricBytes    = describe("sent_bytes_total", "Bytes of content sent to clients, by where they came from.", "registry", "source")
	metricReceived = describe("received_bytes_total", "Bytes of blobs received, by where they came from.", "registry", "source")
	metricToPeers  = describe("sent_to_peers_bytes_total", "Bytes of blobs sent to other nodes.", "registry")
	metricMembers  = describe("members", "Members of the cluster by state, this node included.", "state")
	metricEvicted  = describe("evictions_total", "Blobs evicted to make room.", "registry")
	metricItems    = describe("shard_blobs", "Blobs in the shard.", "registry")
	metricSize     = describe("shard_bytes", "Bytes of content in the shard.", "registry")
	metricBound    = describe("shard_bound_bytes", "Bound of the shard in bytes; 0: none.", "registry")
	metricConns    = describe("client_connections", "Clients' connections.")
	metricPulls    = describe("pulls", "Pulls under way, and those that wait for their turn.", "state")
	metricRefused  = describe("pulls_refused_total", "Pulls that got no turn in time.")
	metricFailed   = describe("failed_logins_total", "Logins that were wrong, or not looked at after too many of those.")
	metricDegraded = describe("degraded", "1 while the node serves with something broken, else 0.")
)

// describe describes one metric of this program.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("oci_proxy_"+name, help, labels, nil)
}

// metrics returns the handler of /_/metrics.
func (n *Node) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(figures{n}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// figures hands the node's figures to Prometheus.
type figures struct{ node *Node }

// Describe implements prometheus.Collector.
func (figures) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricRequests, metricBytes, metricReceived, metricToPeers, metricMembers, metricEvicted, metricItems, metricSize, metricBound, metricConns, metricPulls, metricRefused, metricFailed, metricDegraded} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (f figures) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for registry, s := range f.node.byRegistry() {
		counter(metricRequests, s.Hits, registry, "hit")
		counter(metricRequests, s.PeerHits, registry, "peer")
		counter(metricRequests, s.Misses, registry, "miss")
		counter(metricBytes, s.HitBytes, registry, "hit")
		counter(metricBytes, s.PeerHitBytes, registry, "peer")
		counter(metricBytes, s.MissBytes, registry, "miss")
		counter(metricReceived, s.FromUpstreamBytes, registry, "upstream")
		counter(metricReceived, s.FromPeersBytes, registry, "peer")
		counter(metricToPeers, s.ToPeersBytes, registry)
		counter(metricEvicted, s.Evictions, registry)
		gauge(metricItems, s.Items, registry)
		gauge(metricSize, s.CurrentSize, registry)
		gauge(metricBound, s.MaxSize, registry)
	}
	for state, many := range f.node.byState() {
		gauge(metricMembers, many, state)
	}
	conns, active, queued := f.node.budget.figures()
	gauge(metricConns, int64(conns))
	gauge(metricPulls, int64(active), "active")
	gauge(metricPulls, int64(queued), "waiting")
	counter(metricRefused, f.node.budget.refused.Load())
	counter(metricFailed, f.node.access.failures.Load())
	degraded := int64(0)
	if len(f.node.broken()) > 0 {
		degraded = 1
	}
	gauge(metricDegraded, degraded)
}
