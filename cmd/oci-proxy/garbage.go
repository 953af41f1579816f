package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// gcPercent is how much the memory may grow over what is in use before what is no longer
	// in use is collected. A node holds little and makes little garbage, so that it spends no
	// more time on this than by Go's own 100, and its budgets are kept more closely.
	gcPercent = 40
	// leastGarbage is how many bytes of garbage are worth a collection. By gcPercent alone a
	// node that serves from a heap of 2 MB would collect one at each hundredth small answer, and
	// shrink all stacks each time, which took a quarter of its CPU.
	leastGarbage = 4 << 20
	// mostPercent bounds the percent: the runtime collects nothing before the heap has 4 MB times
	// that, however little is in use.
	mostPercent = 250
)

// A collector says how often garbage is collected: at gcPercent, or after leastGarbage if that
// is later.
type collector struct {
	percent int
	in      []metrics.Sample // what the percent is of
}

// adaptCollections makes the runtime collect as a collector says, from now on.
func adaptCollections() {
	c := &collector{in: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}}
	c.adapt()
	runtime.SetFinalizer(&cycle{c}, (*cycle).ended)
}

// A cycle is in use by nobody, so that the runtime ends it at each collection.
type cycle struct{ collector *collector }

// ended hears that garbage was collected.
func (c *cycle) ended() {
	c.collector.adapt()
	runtime.SetFinalizer(c, (*cycle).ended)
}

// adapt sets the percent by what is in use since the last collection.
func (c *collector) adapt() {
	metrics.Read(c.in)
	used := uint64(0)
	for _, s := range c.in {
		if s.Value.Kind() == metrics.KindUint64 {
			used += s.Value.Uint64()
		}
	}
	if p := percentOf(used); p-c.percent > c.percent/8 || c.percent-p > c.percent/8 { // setting it stops the world
		c.percent = p
		debug.SetGCPercent(p)
	}
}

// percentOf is the percent for that many bytes in use.
func percentOf(used uint64) int {
	return int(min(max(leastGarbage*100/max(used, 1), gcPercent), mostPercent))
}
