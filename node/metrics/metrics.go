// Package metrics is what a node tells Prometheus.
//
// There are two sorts of metrics. What takes time is counted here while it happens:
// the rooms that answer clients and ask registries and members are given a part of
// [Metrics] and tell it (meters.go). All else is counted in the rooms themselves. A
// [Snapshot] of that is read whenever Prometheus asks (table.go).
//
// Both are lists of a [family] each; docs/operations.md has them as a table, which is
// generated ([Table]). No label's value is made up by clients.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler answers with all metrics. read reads what the other rooms counted; it returns
// at once.
func (m *Metrics) Handler(read func() *Snapshot) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(m.Collector(read), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// Collector returns all metrics but those of Go and of the process.
func (m *Metrics) Collector(read func() *Snapshot) prometheus.Collector { return collector{m, read} }

// A collector hands all metrics to Prometheus.
type collector struct {
	*Metrics
	read func() *Snapshot
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, one := range c.all() {
		one.Describe(out)
	}
	for i := range table {
		out <- table[i].describe()
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, one := range c.all() {
		one.Collect(out)
	}
	now := c.read()
	for i := range table {
		m := &table[i]
		of := prometheus.GaugeValue
		if m.kind == counter {
			of = prometheus.CounterValue
		}
		for _, s := range m.values(now) {
			out <- prometheus.MustNewConstMetric(m.describe(), of, s.value, s.labels...)
		}
	}
}
