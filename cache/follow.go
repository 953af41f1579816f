package cache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"time"
)

const (
	// batch is how many bytes a follower likes to send at once: smaller pieces
	// cost sendfile dearly when many follow one blob.
	batch = 256 << 10
	// linger is how long a follower waits for a batch to fill.
	linger = 10 * time.Millisecond
)

// A follower reads an ingest. It belongs to its reader, but for the mark.
type follower struct {
	s      *stream
	mark   *mark
	file   *file // a descriptor of its own: sendfile reads at the descriptor's offset
	closed bool
}

// Size implements Blob.
func (f *follower) Size() int64 { return f.s.look().size }

// Verdict implements Blob.
func (f *follower) Verdict(ctx context.Context) error {
	return f.s.wait(ctx, math.MaxInt64, view.isRight)
}

// Rejected returns the bytes that were sent of a blob before its digest turned out
// to be wrong, nil if they are gone. Keep the blob open while you read them,
// and send nothing from it meanwhile.
func Rejected(b Blob) io.ReaderAt {
	f, ok := b.(*follower)
	if !ok {
		return nil
	}
	if f.file != nil {
		return f.file.os
	}
	if v := f.s.look(); v.gathered != nil && (v.gathers || !v.passing) { // else more was sent than these
		return bytes.NewReader(v.gathered)
	}
	return nil
}

// Close implements Blob.
func (f *follower) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	if f.file != nil {
		_ = f.file.close() // only read
	}
	f.s.leave(f.mark)
	return nil
}

// Send implements Blob.
func (f *follower) Send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	end := endOf(off, n)
	start := off
	wait := time.Duration(0)
	for off < end {
		p, err := f.s.next(ctx, f.mark, off, end, wait)
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
		wait = linger
	}
	f.s.advance(f.mark, off)
	return off - start, nil
}

// endOf returns the end of the n bytes from off on; n < 0: there is no end.
func endOf(off, n int64) int64 {
	if n < 0 || n > math.MaxInt64-off {
		return math.MaxInt64
	}
	return off + n
}

// A piece is n bytes that can be sent now. They are in memory or in a file.
type piece struct {
	n      int64
	bytes  []byte
	source *source
}

// send sends one piece.
func (f *follower) send(w io.Writer, off int64, p piece) (int64, error) {
	if p.bytes != nil {
		k, err := w.Write(p.bytes)
		return int64(k), err
	}
	if f.file == nil {
		f.file = p.source.open()
	}
	var k int64
	var err error
	if f.file != nil {
		k, err = f.file.send(w, off, p.n)
	} else {
		k, err = p.source.file.copyTo(w, off, p.n)
	}
	if err != nil && k < p.n && !cmp.Or(f.file, p.source.file).readable(off+k) {
		f.s.leaveBehind(f.mark)
		err = errors.Join(ErrDamaged, err)
	}
	return k, err
}
