package flight

import (
	"context"
	"errors"
	"io"
	"slices"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A node that dies while others follow it leaves them with the first bytes of the blob. Whoever
// leads next takes those from them, and only the rest from the registry. They send what
// they have at that moment and wait for nothing, so no circle can close.

const (
	// piece is how many bytes of a beginning are asked for at a time: members send no more at once.
	piece = 1 << 20
	// beginners bounds the members that are asked how far they are.
	beginners = 16
)

// errNoMore: the node has sent what it had of the blob.
var errNoMore = errors.New("the node had no more of it")

// errOtherPart: the node sent another part than the one asked for.
var errOtherPart = errors.New("the node sent another part of the blob")

// begun returns how many of the first bytes can be read from the flight without waiting.
func (fl *Flight) begun() int64 {
	if fl.ingest.Size() < 0 || !fl.ingest.Keeping() {
		return 0
	}
	return fl.ingest.Sendable()
}

// waitsForNothing reports whether the ticket is that of a member which asks for a part that the
// flight has by now. It may have that from any flight.
func (t *Ticket) waitsForNothing(fl *Flight) bool {
	part := t.Terms.Part
	return t.Terms.Held && part.Length > 0 && part.End() <= fl.begun()
}

// beginnings lists, of the nodes that have the first bytes of the blob, those that have more than
// has come, beginning with the one that has most. It reports whether more sources are wanted.
func beginnings(f *filler, nodes []mesh.Peer, yield func(source) bool) bool {
	shown := false
	for _, b := range furthest(f, nodes) {
		if b.end <= f.ingest.Offset() {
			continue
		}
		if shown = shown || f.cfg().Grants.MayShow(f.ctx(), f.request, oci.BlobResource); !shown {
			return true
		}
		if !yield(b.source(f)) {
			return false
		}
	}
	return true
}

// A beginning is the first bytes of the blob at another node, up to end.
type beginning struct {
	peer mesh.Peer
	end  int64
}

// furthest asks the nodes, all at once, how far they are.
func furthest(f *filler, nodes []mesh.Peer) []beginning {
	nodes = nodes[:min(len(nodes), beginners)]
	said := make(chan beginning, len(nodes))
	for _, p := range nodes {
		go func() {
			at, err := p.Progress(f.ctx(), f.request.Ref)
			switch {
			case err != nil:
				said <- beginning{p, 0}
			case at.Held: // by now
				said <- beginning{p, at.Offset}
			default:
				said <- beginning{p, at.Begun}
			}
		}()
	}
	all := make([]beginning, 0, len(nodes))
	for range nodes {
		all = append(all, <-said)
	}
	slices.SortStableFunc(all, func(a, b beginning) int { return int(max(-1, min(1, b.end-a.end))) })
	return all
}

// source returns the beginning as a source. Its stream ends with errNoMore.
func (b beginning) source(f *filler) source {
	terms := mesh.Terms{Held: true, Vouched: f.request.Private}
	return source{peer: b.peer, terms: terms, open: func(ctx context.Context, offset int64) (*oci.Stream, error) {
		p := &pieces{at: offset, end: b.end, open: func(part oci.Span) (*oci.Stream, error) {
			terms := terms
			terms.Part = part
			return b.peer.Open(ctx, f.request.Ref, part.Offset, terms)
		}}
		first, err := p.next()
		if err != nil {
			return nil, err
		}
		whole := *first
		whole.Body = p
		return &whole, nil
	}}
}

// pieces are the body of a beginning, which is asked for piece by piece.
type pieces struct {
	at, end int64
	open    func(part oci.Span) (*oci.Stream, error)
	body    io.ReadCloser
	left    int64 // bytes of the piece
	size    int64 // of the blob, as told with the piece
}

// next asks for the next piece.
func (p *pieces) next() (*oci.Stream, error) {
	part := oci.Span{Offset: p.at, Length: min(piece, p.end-p.at)}
	s, err := p.open(part)
	if err != nil {
		return nil, err
	}
	if s.Body == nil {
		return nil, errElsewhere
	}
	if p.body, p.left, p.size = s.Body, part.Length, s.Size; s.Offset != part.Offset {
		return nil, errors.Join(errOtherPart, p.Close())
	}
	return s, nil
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	if p.left == 0 {
		switch {
		case p.at == p.size:
			return 0, io.EOF
		case p.at >= p.end:
			return 0, errNoMore
		}
		if err := p.Close(); err != nil {
			return 0, err
		}
		if _, err := p.next(); err != nil {
			return 0, err
		}
	}
	n, err := p.body.Read(b[:min(int64(len(b)), p.left)])
	p.at += int64(n)
	p.left -= int64(n)
	switch {
	case p.left == 0:
		return n, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer.
func (p *pieces) Close() error { return p.body.Close() }
