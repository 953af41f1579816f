package cache

import (
	"math"
	"time"
)

const (
	// windowSize is how many bytes of a passing blob are kept in memory.
	windowSize = 4 << 20
	// patience is for how long, altogether, a passing ingest waits for one
	// follower that holds up others.
	patience = time.Second
	// abandon is for how long a passing ingest waits for a follower.
	abandon = 5 * time.Second
)

// blockSize is how many bytes a window holds in one piece.
const blockSize = 64 << 10

// A window holds the newest bytes of a blob that passes through memory. Since
// nothing is kept, there is no point in running ahead of those who read: the
// writer waits for the fastest of them, and for a while for the others.
type window struct {
	base   int64    // offset of the first block
	blocks [][]byte // all but the last are full
	length int64
}

// push adds a copy of p. What a block holds already does not change: it may
// be on its way to a reader.
func (w *window) push(p []byte) {
	w.length += int64(len(p))
	for len(p) > 0 {
		if n := len(w.blocks); n == 0 || len(w.blocks[n-1]) == blockSize {
			w.blocks = append(w.blocks, make([]byte, 0, blockSize))
		}
		last := &w.blocks[len(w.blocks)-1]
		k := min(len(p), blockSize-len(*last))
		*last = append(*last, p[:k]...)
		p = p[k:]
	}
}

// drop forgets the first block.
func (w *window) drop() {
	n := int64(len(w.blocks[0]))
	w.blocks[0] = nil
	w.blocks = w.blocks[1:]
	w.base += n
	w.length -= n
}

// at returns the bytes from off, which the window holds, to the end of a block.
func (w *window) at(off int64) []byte {
	pos := off - w.base
	return w.blocks[pos/blockSize][pos%blockSize:]
}

// toWindow adds p, at most a batch, to the window once there is place for it.
// The window is so much larger than a batch, a block and HoldBack together that
// nobody is ever waited for who waits for the verdict.
func (in *Ingest) toWindow(p []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.window.length > 0 && in.window.length+int64(len(p)) > windowSize {
		if err := in.awaitReaders(in.window.base + int64(len(in.window.blocks[0]))); err != nil {
			return err
		}
		in.window.drop()
	}
	in.window.push(p)
	return nil
}

// awaitReaders returns once the bytes before end need not be kept: everybody
// has read them, or those who have not have used up the patience of those who
// have. The caller holds mu.
func (in *Ingest) awaitReaders(end int64) error {
	deserted := time.Duration(0)
	for {
		fastest, laggards := in.survey(end)
		limit := time.Duration(0)
		switch {
		case len(in.followers) == 0:
			if limit = abandon - deserted; limit <= 0 {
				return ErrAbandoned
			}
		case len(laggards) == 0:
			return nil
		case fastest >= end:
			for _, f := range laggards {
				limit = max(limit, f.patience)
			}
			if limit <= 0 {
				return nil
			}
		}
		start := time.Now()
		c := in.moved.wait(math.MaxInt64)
		in.mu.Unlock()
		err := pause(in.ctx, c, limit)
		in.mu.Lock()
		if err != nil {
			return err
		}
		waited := time.Since(start)
		if len(in.followers) == 0 {
			deserted += waited
		}
		if fastest >= end {
			for _, f := range laggards {
				f.patience -= waited
			}
		}
	}
}

// survey returns how far the fastest follower has read, and who has yet to
// read bytes before end.
func (in *Ingest) survey(end int64) (fastest int64, laggards []*follower) {
	fastest = -1
	for f := range in.followers {
		if f.behind {
			continue // it reads elsewhere and only waits for the verdict
		}
		fastest = max(fastest, f.pos)
		if f.pos < end {
			laggards = append(laggards, f)
		}
	}
	return fastest, laggards
}
