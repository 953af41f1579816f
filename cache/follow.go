package cache

import (
	"context"
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
	return f.in.wait(ctx, func() bool { return f.in.state == right })
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
	if in.stored {
		if in.store.index.leave(in.slot, time.Now()) {
			in.store.noteUse(in.name.path())
		}
	}
	in.moved.fire()
	in.dispose()
	return nil
}

// Send implements Blob.
func (f *follower) Send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	end := int64(math.MaxInt64)
	if n >= 0 {
		end = off + n
	}
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

// A piece is what can be sent now: n bytes, in the file or in memory.
type piece struct {
	n     int64
	bytes []byte
}

// send sends one piece.
func (f *follower) send(w io.Writer, off int64, p piece) (int64, error) {
	if p.bytes != nil {
		k, err := w.Write(p.bytes)
		return int64(k), err
	}
	k, err := sendFile(w, f.file, off, p.n)
	if err != nil && unreadable(f.file, off+k) {
		err = ErrDamaged
	}
	return k, err
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
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		limit := in.limit(end)
		enough := limit >= end || limit-off >= batch || in.state != arriving || !lingering
		switch {
		case off < limit && enough:
			return f.piece(off, limit)
		case in.state == failed:
			return piece{}, in.err
		case in.state == right && off >= in.written:
			return piece{}, nil
		}
		mark, d := off+1+in.margin(end), time.Duration(0)
		if lingering {
			mark += batch - 1
		}
		if off < limit {
			d = linger
		}
		c := in.grown.wait(mark)
		in.mu.Unlock()
		err := pause(ctx, c, d)
		in.mu.Lock()
		if err != nil {
			return piece{}, err
		}
		lingering = lingering && d == 0
	}
}

// limit is up to where a response that goes to end may be sent by now.
func (in *Ingest) limit(end int64) int64 {
	switch {
	case in.state == right:
		return min(end, in.written)
	case in.state == failed && in.wrong():
		return 0
	case in.size >= 0 && end >= in.size:
		return min(in.written, in.size-HoldBack)
	default:
		return min(end, in.written-in.margin(end))
	}
}

// margin is what is held back behind the last byte written: where the size is
// not known, any byte could be of the last.
func (in *Ingest) margin(int64) int64 {
	if in.size < 0 && in.state != right {
		return HoldBack
	}
	return 0
}

// wrong reports whether the bytes themselves are to blame for the failure.
func (in *Ingest) wrong() bool { return isDigest(in.err) }

// piece returns what lies at off: of the file as much as there is, of memory
// one block. The caller holds the ingest's mu.
func (f *follower) piece(off, limit int64) (piece, error) {
	in := f.in
	if off < in.onDisk {
		if err := f.openFile(); err != nil {
			f.behind = true
			return piece{}, ErrBehind
		}
		return piece{n: min(limit, in.onDisk) - off}, nil
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

// openFile opens a descriptor of the follower's own. The caller holds the
// ingest's mu, so that the name does not change meanwhile.
func (f *follower) openFile() error {
	if f.file != nil {
		return nil
	}
	path := f.in.tmp
	if path == "" {
		path = f.in.name.path()
	}
	file, err := f.in.disk.open(path)
	f.file = file
	return err
}
