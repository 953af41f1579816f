package excerpt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// An Excerpt is a blob of which only some spans are got. It is one reader's.
type Excerpt struct {
	all     *Excerpts
	request grants.Request
	size    int64      // of the blob
	plan    []oci.Span // the pieces that it comes in
	begun   int        // so many of them have been asked for
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

// turn turns to the piece that holds the byte at off, and begins to get the next ones:
// they wait on the shelf.
func (e *Excerpt) turn(ctx context.Context, off int64) error {
	if e.piece != nil && off >= e.at.Offset && off < e.at.End() {
		return nil
	}
	i := slices.IndexFunc(e.plan, func(s oci.Span) bool { return off >= s.Offset && off < s.End() })
	if i < 0 {
		return ErrWhole
	}
	for e.begun = max(i, e.begun); e.begun < e.ahead(i); e.begun++ {
		at := e.plan[e.begun]
		if e.all.begin(e.request, at, e.size, e.member) {
			e.all.bills.giveBack(e.request.Content(), at.Length) // somebody else pays
		}
	}
	p, err := e.all.get(ctx, e.request, e.plan[i], e.size, e.member)
	if err != nil {
		return err
	}
	e.at, e.piece = e.plan[i], p
	return nil
}

// ahead returns the end of the pieces that are asked for when piece i is wanted: those
// ahead are no more than a piece together, or the shelf could not hold them for all.
func (e *Excerpt) ahead(i int) (end int) {
	left := int64(PieceSize)
	for end = i + 1; end < min(i+1+ahead, len(e.plan)); end++ {
		if left -= e.plan[end].Length; left < 0 {
			break
		}
	}
	return end
}

// Close implements cache.Blob.
func (e *Excerpt) Close() error {
	if !e.closed {
		e.closed = true
		e.all.held.giveBack(e.holds)
	}
	return nil
}
