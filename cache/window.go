package cache

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// windowSize is how many bytes of a passing blob are kept in memory at most.
	windowSize = 4 << 20
	// windowLeast is how many bytes any window may hold: so much more than a block and
	// HoldBack together that the writer never waits for a follower who waits for the
	// verdict.
	windowLeast = HoldBack + 2*blockSize
	// windowsSize is how many bytes the windows hold together by default.
	windowsSize = 8 << 20
	// patience is how long, altogether, a passing ingest waits for one follower
	// that holds up others.
	patience = time.Second
	// abandon is how long a passing ingest waits for a follower.
	abandon = 5 * time.Second
)

// blockSize is how many bytes a window holds in one piece.
const blockSize = 8 << 10

// Windows bound the memory for blobs that pass through it because they have no place
// on disk. While they hold too much together, each holds only as little as it needs to
// go on. Several stores may share them.
type Windows struct {
	most  int64
	bytes atomic.Int64
}

// NewWindows returns Windows that hold at most that many bytes, and 80 KiB for each blob
// beyond them.
func NewWindows(most int64) *Windows { return &Windows{most: most} }

// full reports whether windows should not grow.
func (w *Windows) full() bool { return w.bytes.Load() >= w.most }

// A window holds the newest bytes of a blob that passes through memory. Nothing
// is kept, so there is no point in running ahead of the readers: the writer
// waits for the fastest of them, and for a while for the others.
type window struct {
	all    *Windows
	base   int64    // offset of the first block
	blocks [][]byte // all but the last are full
	length int64
}

// push adds a copy of p. What a block holds already does not change: it may be
// on its way to a reader.
func (w *window) push(p []byte) {
	w.length += int64(len(p))
	for len(p) > 0 {
		if n := len(w.blocks); n == 0 || len(w.blocks[n-1]) == blockSize {
			w.blocks = append(w.blocks, make([]byte, 0, blockSize))
			w.all.bytes.Add(blockSize)
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
	w.all.bytes.Add(-blockSize)
}

// clear forgets all blocks.
func (w *window) clear() {
	for len(w.blocks) > 0 {
		w.drop()
	}
}

// fits reports whether n more bytes may be held.
func (w *window) fits(n int64) bool {
	most := int64(windowSize)
	if w.all.full() {
		most = windowLeast
	}
	return w.length == 0 || w.length+n <= most
}

// at returns the bytes from off, which the window holds, to the end of a block.
func (w *window) at(off int64) []byte {
	pos := off - w.base
	return w.blocks[pos/blockSize][pos%blockSize:]
}

// toWindow adds p, at most a block's bytes, to the window once there is place for it.
func (s *stream) toWindow(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.window.fits(int64(len(p))) {
		if err := s.awaitReaders(s.window.base + int64(len(s.window.blocks[0]))); err != nil {
			return err
		}
		s.window.drop()
	}
	s.window.push(p)
	return nil
}

// awaitReaders returns once the bytes before end need not be kept: all followers
// have read them, or the slow ones have used up their patience. They use it up only
// while the fastest has hardly anything left to read. The caller holds mu;
// awaitReaders releases it while it waits.
func (s *stream) awaitReaders(end int64) error {
	deserted := time.Duration(0)
	for {
		fastest, laggards := s.crowd.survey(end)
		heldUp := fastest > s.written-HoldBack-blockSize
		limit := time.Duration(0)
		switch {
		case len(s.crowd.marks) == 0:
			if limit = abandon - deserted; limit <= 0 {
				return ErrAbandoned
			}
		case len(laggards) == 0:
			return nil
		case heldUp:
			for _, m := range laggards {
				limit = max(limit, m.patience)
			}
			if limit <= 0 {
				return nil
			}
		}
		start := time.Now()
		if err := s.pause(s.ctx, s.crowd.moved.wait(math.MaxInt64), limit); err != nil {
			return err
		}
		waited := time.Since(start)
		if len(s.crowd.marks) == 0 {
			deserted += waited
		}
		if heldUp {
			for _, m := range laggards {
				m.patience -= waited
			}
		}
	}
}
