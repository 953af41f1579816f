package cache

import (
	"context"
	"math"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// A stream is the side of an ingest that its readers see: its progress, where its
// bytes are, the verdict. The writer reports its progress here.
type stream struct {
	ctx context.Context // when it ends, the writer no longer waits for readers

	mu sync.Mutex // guards the fields below; never held during I/O
	view
	grown   signal // fires when bytes came, the size was told, or the ingest ended
	window  window
	crowd   crowd
	writing bool     // the writer has not released it
	remains *remains // what the last user has to give back
}

func newStream(ctx context.Context, all *Windows) *stream {
	return &stream{
		ctx: ctx, view: view{size: -1}, window: window{all: all}, writing: true, crowd: crowd{marks: map[*mark]struct{}{}},
	}
}

// look returns the progress of the ingest.
func (s *stream) look() view {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// readFrom says where the first n bytes are. With nil there are none.
func (s *stream) readFrom(src *source, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source, s.written, s.onDisk = src, n, n
}

// gather says that these are the bytes so far, which stay in memory. They do not change.
func (s *stream) gather(bytes []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathers, s.gathered = true, bytes
}

// lead says that these are the first bytes, whether they are in the file by now or not. They do
// not change.
func (s *stream) lead(bytes []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathered = bytes
}

// awaited reports whether somebody follows the ingest.
func (s *stream) awaited() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.crowd.marks) > 0
}

// begin tells the size, -1 if it is not known.
func (s *stream) begin(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size, s.begun = size, true
	s.grown.fire()
}

// pass says that from now on bytes go to the window.
func (s *stream) pass() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passing, s.gathers, s.window.base = true, false, s.onDisk
}

// came tells the followers of n bytes more.
func (s *stream) came(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += int64(n)
	if !s.passing {
		s.onDisk = s.written
	}
	s.grown.reach(s.written)
}

// keep says that the shard has the blob.
func (s *stream) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = true
}

// expectNobody says that no follower comes.
func (s *stream) expectNobody() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crowd.expected = true
}

// end sets the verdict and wakes those who wait for it. It reports false if there
// was a verdict already.
func (s *stream) end(v verdict, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verdict != arriving {
		return false
	}
	s.verdict, s.err, s.begun = v, err, true
	if v == right {
		s.size = s.written
	}
	s.grown.fire()
	return true
}

// awaitFirst waits for the first follower: the blob may arrive before the reader
// who asked for it.
func (s *stream) awaitFirst() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for deadline := time.Now().Add(abandon); !s.crowd.expected; {
		left := time.Until(deadline)
		if left <= 0 || s.pause(s.ctx, s.crowd.moved.wait(math.MaxInt64), left) != nil {
			return
		}
	}
}

// release ends the writer's use of the stream. The last user, be it the writer or
// a follower, gives back what remains.
func (s *stream) release(r *remains) {
	s.mu.Lock()
	s.writing, s.remains = false, r
	r = s.takeRemains()
	s.mu.Unlock()
	if r != nil {
		r.giveBack()
	}
}

// takeRemains returns what remains if the stream has no user left, else nil. The
// caller holds mu.
func (s *stream) takeRemains() *remains {
	if s.writing || len(s.crowd.marks) > 0 {
		return nil
	}
	r := s.remains
	s.remains = nil
	s.window.clear()
	return r
}

// join adds a follower and returns its mark. If there is nothing left to follow, it
// returns nil, and the error of an ingest that failed.
func (s *stream) join() (*mark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.writing && len(s.crowd.marks) == 0 {
		return nil, s.err
	}
	return s.crowd.add(), nil
}

// leave ends a follower.
func (s *stream) leave(m *mark) {
	s.mu.Lock()
	s.crowd.remove(m)
	r := s.takeRemains()
	s.mu.Unlock()
	if r != nil {
		r.giveBack()
	}
}

// wait waits until ok or until the ingest has failed or ctx ends. ok is asked
// whenever the ingest has changed or mark bytes have come.
func (s *stream) wait(ctx context.Context, mark int64, ok func(view) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.verdict != failed && !ok(s.view) {
		if err := s.pause(ctx, s.grown.wait(mark), 0); err != nil {
			return err
		}
	}
	return s.err
}

// pause is pause without mu, which the caller holds.
func (s *stream) pause(ctx context.Context, c <-chan struct{}, d time.Duration) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	return wait.Until(ctx, c, d)
}

// advance notes how far a follower has read.
func (s *stream) advance(m *mark, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.pos = off
	if s.passing {
		s.crowd.moved.fire()
	}
}

// leaveBehind makes the writer go on without a follower, which now reads from
// another source and only waits for the verdict.
func (s *stream) leaveBehind(m *mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crowd.leaveBehind(m)
}

// next waits for bytes at off, for a response that goes to end, and returns them
// or the file that holds them. It waits up to linger for a full batch; the first
// piece does not linger, so that the first byte is not delayed.
func (s *stream) next(ctx context.Context, m *mark, off, end int64, linger time.Duration) (piece, error) {
	s.advance(m, off)
	until := time.Now().Add(linger)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		limit, most := s.limit(end), s.most(end)
		left := max(time.Until(until), 0)
		if s.passing && s.window.all.full() {
			left = 0 // the writer has no place for a batch
		}
		enough := limit >= most || limit-off >= batch || s.verdict != arriving || left == 0
		switch {
		case off < limit && enough:
			return s.piece(m, off, limit)
		case s.verdict == failed:
			return piece{}, s.err
		case s.verdict == right && off >= s.written:
			return piece{}, nil
		}
		mark := off + 1
		if left > 0 {
			mark = max(mark, min(off+batch, most))
		}
		if err := s.pause(ctx, s.grown.wait(mark+s.margin()), left); err != nil {
			return piece{}, err
		}
	}
}

// piece returns the bytes at off: all that the file holds up to limit, or one block
// of the window.
func (s *stream) piece(m *mark, off, limit int64) (piece, error) {
	if n := int64(len(s.gathered)); off < n {
		n = min(limit, n)
		return piece{n: n - off, bytes: s.gathered[off:n]}, nil
	}
	if off < s.onDisk {
		return piece{n: min(limit, s.onDisk) - off, source: s.source}, nil
	}
	if off < s.window.base {
		s.crowd.leaveBehind(m)
		return piece{}, ErrBehind
	}
	b := s.window.at(off)
	b = b[:min(int64(len(b)), limit-off)]
	return piece{n: int64(len(b)), bytes: b}, nil
}
