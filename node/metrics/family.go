package metrics

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// prefix is what the names of all metrics of this program begin with.
const prefix = "oci_proxy_"

// A kind is what sort of metric a family is.
type kind string

// The kinds.
const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// A family is one metric with all its labels. Its name and its labels are outward.
type family struct {
	name   string // without the prefix
	kind   kind
	labels []string
	help   string
}

// describe describes the family to Prometheus.
func (f family) describe() *prometheus.Desc {
	return prometheus.NewDesc(prefix+f.name, f.help, f.labels, nil)
}

// counters makes a counter for each of the family's labels.
func (f family) counters() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + f.name, Help: f.help}, f.labels)
}

// buckets are the upper ends of a histogram's buckets, in seconds. Readers that know native
// histograms get finer ones.
var buckets = []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}

// Bounds of a native histogram. Each bucket is at most a tenth wider than the one before it.
const (
	nativeGrowth     = 1.1
	mostNativeBucket = 160
)

// times makes a histogram of seconds for each of the family's labels.
func (f family) times() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: prefix + f.name, Help: f.help, Buckets: buckets,
		NativeHistogramBucketFactor: nativeGrowth, NativeHistogramMaxBucketNumber: mostNativeBucket,
	}, f.labels)
}

// Table is the documentation of all metrics, a table in Markdown.
func Table() string {
	var out strings.Builder
	out.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range families() {
		fmt.Fprintf(&out, "| `%s%s` | %s | %s | %s |\n", prefix, f.name, f.kind, strings.Join(f.labels, ", "), f.help)
	}
	return out.String()
}

// Names are the full names of all metrics, in the order of the Table.
func Names() (names []string) {
	for _, f := range families() {
		names = append(names, prefix+f.name)
	}
	return names
}

// families lists all metrics: those that are counted here, then those that are read.
func families() []family {
	all := metered()
	for _, m := range table {
		all = append(all, m.family)
	}
	return all
}
