package gate

import (
	"runtime/debug"
	"sync/atomic"
	"syscall"

	"oci-proxy/transfer/wire"
)

const (
	// maxPulls bounds the pulls that are answered at a time.
	maxPulls = 2048
	// filesPerPull is how many descriptors a pull may use beside its connection:
	// the file it reads, and for a download the file it fills and the connection
	// that the download comes over.
	filesPerPull = 3
	// maxFiles bounds the descriptors used where the system allows more: an idle
	// connection also takes some memory.
	maxFiles = 32 << 10
	// memoryPerFile is that memory in bytes. All of them take a quarter of what the process
	// may use, at most.
	memoryPerFile = 20 << 10
	leastFiles    = 128
)

// Limits are what clients share.
type Limits struct {
	Files   int // descriptors, at most
	Pulls   int // answered at a time, at most
	Waiting int // pulls that wait, at most
}

// SystemLimits are the Limits that this process's bounds of open files and of memory
// (GOMEMLIMIT) allow.
func SystemLimits() Limits { return limitsOf(openFiles(), debug.SetMemoryLimit(-1)) }

// limitsOf shares out a bound of open files and one of memory in bytes. When all pulls run they
// use half of the descriptors, and when all places to wait are taken a quarter.
func limitsOf(open int, memory int64) Limits {
	reserve := min(max(open/10, 128), open/2) // for peers, gossip, tokens and the cache itself
	files := min(open-reserve, maxFiles, int(max(memory/4/memoryPerFile, leastFiles)))
	return Limits{Files: files, Pulls: min(max(files/8, 1), maxPulls), Waiting: max(files/4, 1)}
}

// openFiles is how many files this process may have open. Go raises the soft
// limit to the hard one before main.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // what nearly every system allows
	}
	return int(min(l.Cur, 1<<20))
}

// connections share the descriptors with the pulls. An idle connection is worth
// less than a pull: opening a file never fails for lack of descriptors, whatever
// clients do.
type connections struct {
	ledger *wire.Ledger
	files  int
	pulls  atomic.Int64 // that descriptors are left for
}

func newConnections(limits Limits) *connections {
	return &connections{ledger: wire.NewLedger(limits.Files, 0), files: limits.Files}
}

// reserve leaves descriptors for that many more pulls, fewer if it is negative,
// and closes idle connections for them if need be. Of several calls at once the
// last one sees the sum.
func (c *connections) reserve(more int) {
	n := c.pulls.Add(int64(more))
	for {
		c.ledger.Resize(c.files - filesPerPull*int(n))
		now := c.pulls.Load()
		if now == n {
			return
		}
		n = now
	}
}
