package cache

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"time"
)

const (
	// batch is how many bytes a follower likes to send at once: smaller pieces
	// cost sendfile dearly when many follow one blob.
	batch = 256 << 10
	// linger is how long a follower waits for a batch to fill.
	linger = 10 * time.Millisecond
)

// A follower reads an ingest. Its fields are guarded by the ingest's mu, but
// for file, which only Send uses.
type follower struct {
	in       *Ingest
	file     *os.File // its own descriptor: sendfile reads at the descriptor's offset
	pos      int64    // what it reads next
	patience time.Duration
	behind   bool
	closed   bool
}

// Size implements Blob.
func (f *follower) Size() int64 { return f.in.Size() }

// Verdict implements Blob.
func (f *follower) Verdict(ctx context.Context) error {
	return f.in.wait(ctx, math.MaxInt64, func() bool { return f.in.state == right })
}

// Rejected returns what was sent of a blob that then turned out not to be what
// its digest names, nil where that is not on the disk. The blob must stay open
// while it is read, and is not to be read by others meanwhile.
func Rejected(b Blob) io.ReaderAt {
	if f, ok := b.(*follower); ok && f.file != nil {
		return f.file
	}
	return nil
}

// Close implements Blob.
func (f *follower) Close() error {
	in := f.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if f.file != nil {
		_ = f.file.Close() // only read
	}
	delete(in.followers, f)
	in.moved.fire()
	in.dispose()
	return nil
}

// Send implements Blob.
func (f *follower) Send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	end := endOf(off, n)
	start := off
	for off < end {
		p, err := f.await(ctx, off, end, off > start)
		if err != nil {
			return off - start, err
		}
		if p.n == 0 {
			break // the end of a blob whose size nobody told
		}
		k, err := f.send(w, off, p)
		off += k
		if err != nil {
			return off - start, err
		}
	}
	f.advance(off)
	return off - start, nil
}

// endOf is where the n bytes from off on end; n < 0: nowhere.
func endOf(off, n int64) int64 {
	if n < 0 || n > math.MaxInt64-off {
		return math.MaxInt64
	}
	return off + n
}

// A piece is what can be sent now: n bytes, in memory or in a file.
type piece struct {
	n      int64
	bytes  []byte
	shared *os.File // the writer's descriptor, if the follower has none
}

// send sends one piece.
func (f *follower) send(w io.Writer, off int64, p piece) (int64, error) {
	if p.bytes != nil {
		k, err := w.Write(p.bytes)
		return int64(k), err
	}
	file := cmp.Or(f.file, p.shared)
	var k int64
	var err error
	if f.file != nil {
		k, err = f.in.disk.send(w, file, off, p.n)
	} else {
		k, err = copyFile(w, io.NewSectionReader(readerAt{f.in.disk, file}, off, p.n), p.n)
	}
	if err != nil && k < p.n && unreadable(f.in.disk, file, off+k) {
		f.leaveBehind()
		err = errors.Join(ErrDamaged, err)
	}
	return k, err
}

// leaveBehind lets the writer go on without the follower, which reads elsewhere
// from now on and only waits for the verdict.
func (f *follower) leaveBehind() {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	f.behind = true
	f.in.moved.fire()
}

// advance notes how far the follower has read.
func (f *follower) advance(off int64) {
	in := f.in
	in.mu.Lock()
	defer in.mu.Unlock()
	f.pos = off
	if in.passing {
		in.moved.fire()
	}
}

// await waits for bytes at off. It lingers for a batch unless it is the first
// piece, so that the first byte is not delayed.
func (f *follower) await(ctx context.Context, off, end int64, lingering bool) (piece, error) {
	in := f.in
	f.advance(off)
	var until time.Time
	if lingering {
		until = time.Now().Add(linger)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		limit, most := in.limit(end), in.most(end)
		left := max(time.Until(until), 0)
		enough := limit >= most || limit-off >= batch || in.state != arriving || left == 0
		switch {
		case off < limit && enough:
			return f.piece(off, limit)
		case in.state == failed:
			return piece{}, in.err
		case in.state == right && off >= in.written:
			return piece{}, nil
		}
		mark := off + 1
		if left > 0 {
			mark = max(mark, min(off+batch, most))
		}
		c := in.grown.wait(mark + in.margin())
		in.mu.Unlock()
		err := pause(ctx, c, left)
		in.mu.Lock()
		if err != nil {
			return piece{}, err
		}
	}
}

// most is up to where a response that goes to end may be sent before the
// verdict.
func (in *Ingest) most(end int64) int64 {
	if in.size >= 0 && end >= in.size {
		return in.size - HoldBack
	}
	return end
}

// limit is up to where a response that goes to end may be sent by now.
func (in *Ingest) limit(end int64) int64 {
	switch {
	case in.state == right:
		return min(end, in.written)
	case in.state == failed && errors.Is(in.err, ErrDigest):
		return 0
	default:
		return min(in.most(end), in.written-in.margin())
	}
}

// margin is what is held back behind the last byte written: where the size is
// not known, any byte could be of the last.
func (in *Ingest) margin() int64 {
	if in.size < 0 {
		return HoldBack
	}
	return 0
}

// piece returns what lies at off: of the file as much as there is, of memory
// one block. The caller holds the ingest's mu.
func (f *follower) piece(off, limit int64) (piece, error) {
	in := f.in
	if off < in.onDisk {
		f.openFile()
		return piece{n: min(limit, in.onDisk) - off, shared: in.file}, nil
	}
	if off < in.window.base {
		f.behind = true
		in.moved.fire()
		return piece{}, ErrBehind
	}
	b := in.window.at(off)
	b = b[:min(int64(len(b)), limit-off)]
	return piece{n: int64(len(b)), bytes: b}, nil
}

// openFile opens a descriptor of the follower's own, so that sendfile can be
// used. Without one (there are too many, or the name is another file's by now)
// it reads through the writer's. The caller holds the ingest's mu.
func (f *follower) openFile() {
	in := f.in
	if f.file != nil {
		return
	}
	file, err := in.disk.open(cmp.Or(in.tmp, in.name.path()))
	if err != nil {
		return
	}
	if same, err := in.disk.sameFile(file, in.file); err != nil || !same {
		_ = file.Close() // only looked at
		return
	}
	f.file = file
}
