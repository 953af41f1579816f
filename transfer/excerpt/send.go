package excerpt

import (
	"context"
	"errors"
	"fmt"
	"io"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// An Excerpt is a blob of which only some spans are got. It is one reader's.
type Excerpt struct {
	all     *Excerpts
	request grants.Request
	size    int64 // of the blob
	spans   []oci.Span
	member  bool
	holds   int64 // bytes of the budget
	closed  bool

	at    oci.Span // of the blob that piece is
	piece *piece
}

var _ cache.Blob = (*Excerpt)(nil)

// Provenance returns where the bytes of the moment come from.
func (e *Excerpt) Provenance() oci.Provenance { return e.piece.from }

// Size implements cache.Blob.
func (e *Excerpt) Size() int64 { return e.size }

// errUnverified: a digest names the whole.
var errUnverified = errors.New("a range of a blob can't be verified")

// Verdict implements cache.Blob: nobody can tell.
func (e *Excerpt) Verdict(context.Context) error { return errUnverified }

// Send implements cache.Blob. The bytes have to lie in one of the spans. The error is
// ErrBroke if others have to deliver the rest.
func (e *Excerpt) Send(ctx context.Context, w io.Writer, off, n int64) (sent int64, err error) {
	for sent < n {
		if err := e.turn(ctx, off+sent); err != nil {
			if ctx.Err() != nil {
				return sent, err
			}
			return sent, fmt.Errorf("%w: %w", ErrBroke, err)
		}
		from := off + sent - e.at.Offset
		k, err := w.Write(e.piece.bytes[from:min(e.at.Length, from+n-sent)])
		sent += int64(k)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// turn turns to the piece that holds the byte at off.
func (e *Excerpt) turn(ctx context.Context, off int64) error {
	if e.piece != nil && off >= e.at.Offset && off < e.at.End() {
		return nil
	}
	for _, s := range e.spans {
		if off < s.Offset || off >= s.End() {
			continue
		}
		begin := off - (off-s.Offset)%PieceSize
		at := oci.Span{Offset: begin, Length: min(PieceSize, s.End()-begin)}
		p, cheap, err := e.all.get(ctx, e.request, at, e.size, e.member)
		if err != nil {
			return err
		}
		if cheap {
			e.all.bills.giveBack(e.request.Content(), at.Length)
		}
		e.at, e.piece = at, p
		return nil
	}
	return ErrWhole
}

// Close implements cache.Blob.
func (e *Excerpt) Close() error {
	if !e.closed {
		e.closed = true
		e.all.held.giveBack(e.holds)
	}
	return nil
}
