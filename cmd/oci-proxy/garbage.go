package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
)

const (
	// gcPercent is how much the memory may grow over what is in use before what is no longer
	// in use is collected. A node holds little and makes little garbage, so that it spends no
	// more time on this than by Go's own 100, and its budgets are kept more closely.
	gcPercent = 40
	// leastGarbage is how many bytes of garbage are worth a collection. By gcPercent alone a
	// node that serves from a heap of 2 MB would collect one at each hundredth small answer, and
	// shrink all stacks each time, which took a quarter of its CPU.
	leastGarbage = 8 << 20
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

// forgetStart gives back the memory that the program's own file takes in this process: most of
// what of it was read is for the start, in pieces of 64 KiB. What is needed again comes back from the system's cache,
// at some microseconds a piece.
func forgetStart() {
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return // the memory stays
	}
	for _, m := range readOnly(string(text)) {
		// A mapping that nothing has changed is read from its file anew.
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED) // as above
	}
}

// A mapping is a part of a process' memory.
type mapping struct{ start, end uintptr }

// readOnly returns the mappings of files that nobody can write to and nothing was written to, in
// the text of proc_pid_smaps(5).
func readOnly(smaps string) (out []mapping) {
	var m mapping
	file := false // m is of one
	for line := range strings.Lines(smaps) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && !strings.HasSuffix(f[0], ":"):
			file = len(f) > 5 && f[4] != "0" && (f[1] == "r-xp" || f[1] == "r--p")
			from, to, _ := strings.Cut(f[0], "-")
			m = mapping{address(from), address(to)}
		case file && len(f) > 1 && f[0] == "Anonymous:" && f[1] == "0" && m.start < m.end:
			out = append(out, m)
		}
	}
	return out
}

// address reads an address, 0 if it is none.
func address(hex string) uintptr {
	n, _ := strconv.ParseUint(hex, 16, strconv.IntSize) // 0 is no mapping's
	return uintptr(n)
}
