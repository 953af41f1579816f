package main

import (
	"log/slog"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// boundPercent is how much of its cgroup's memory the process plans with. The rest is for what
// the Go runtime does not count.
const boundPercent = 90

// spareMemory says when garbage is collected, and sets the bound of memory that the cgroup has,
// unless the operator has set GOGC or GOMEMLIMIT. Call it before the node is built: its limits follow from the bound.
func spareMemory(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		adaptCollections()
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit, ok := cgroupMemory("/"); ok {
		debug.SetMemoryLimit(limit / 100 * boundPercent)
		log.Info("memory bound of the cgroup", "bytes", limit, "used_at_most", debug.SetMemoryLimit(-1))
	}
}

// unlimited is more memory than any cgroup has: cgroup v1 gives such a number for none.
const unlimited = math.MaxInt64 / 8

// cgroupMemory returns the bound of memory in bytes of the cgroup that this process is in, the
// least of its own and those above it (cgroups(7)). It is not ok if there is none. root is
// where the file system begins.
func cgroupMemory(root string) (bytes int64, ok bool) {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0, false
	}
	bytes = unlimited
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		switch controllers := strings.Split(fields[1], ","); {
		case fields[0] == "0" && fields[1] == "":
			bytes = min(bytes, leastOf(filepath.Join(root, "sys/fs/cgroup"), fields[2], "memory.max"))
		case slices.Contains(controllers, "memory"):
			bytes = min(bytes, leastOf(filepath.Join(root, "sys/fs/cgroup/memory"), fields[2], "memory.limit_in_bytes"))
		}
	}
	return bytes, bytes < unlimited
}

// leastOf returns the least bound that a cgroup and those above it have in a file of that name.
// In a container the path may be that of the host; then only the topmost directory is there,
// and is the container's.
func leastOf(mount, cgroup, name string) int64 {
	least := int64(unlimited)
	for dir := path.Clean("/" + cgroup); ; dir = path.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(mount, dir, name))
		if err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 { // "max" is no number
				least = min(least, n)
			}
		}
		if dir == "/" {
			return least
		}
	}
}
