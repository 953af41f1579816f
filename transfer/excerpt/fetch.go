package excerpt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/count"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A key says which requests share a piece: those for the same bytes of a digest in
// the same repository. What one repository delivers is not for those who ask for
// another. direct says that this node asks the registry itself. Such a request never
// waits for another node, so other nodes may wait for it.
type key struct {
	oci.Ref
	oci.Span
	direct bool
}

// A piece is bytes of a blob that nobody has verified.
type piece struct {
	bytes []byte
	from  oci.Provenance
}

// errOther: what came is not the range asked for.
var errOther = errors.New("the range that came is not the one asked for")

// key returns which piece is wanted.
func (x *Excerpts) key(q grants.Request, span oci.Span, member bool) key {
	return key{q.Ref, span, member || x.cfg.Mesh.Leads(q.Registry, q.Digest.String())}
}

// shelved returns a piece of the shelf that q may have, nil if there is none.
func (x *Excerpts) shelved(q grants.Request, k key) *piece {
	if p := x.shelf.get(k); p != nil && x.cfg.Grants.Vouched(q, oci.BlobResource) {
		return p
	}
	return nil
}

// get gets a piece of q's blob.
func (x *Excerpts) get(ctx context.Context, q grants.Request, span oci.Span, size int64, member bool) (*piece, error) {
	k := x.key(q, span, member)
	if p := x.shelved(q, k); p != nil {
		return p, nil
	}
	p, _, err := x.ask(ctx, q, k, size)
	return p, err
}

// ask asks for a piece once for all who want it at the time, and puts it on the shelf.
func (x *Excerpts) ask(ctx context.Context, q grants.Request, k key, size int64) (p *piece, joined bool, err error) {
	return x.calls.Do(ctx, k, func(ctx context.Context) (*piece, error) {
		if p := x.shelved(q, k); p != nil { // it came since the caller looked
			return p, nil
		}
		p, err := x.fetch(ctx, q, k, size)
		if err != nil {
			return nil, err
		}
		x.cfg.Grants.Grant(q, oci.BlobResource, p.from.At)
		x.shelf.put(k, p)
		x.bills.remember(q.Content(), k.Span, p)
		return p, nil
	})
}

// begin begins to get a piece, and waits for nothing. get hears what becomes of it.
// joined says that somebody else was getting it already.
func (x *Excerpts) begin(q grants.Request, span oci.Span, size int64, member bool) (joined bool) {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if k := x.key(q, span, member); x.shelved(q, k) == nil {
		_, joined, _ = x.ask(now, q, k, size) // its end is not awaited
	}
	return joined
}

// fetch asks for a piece.
func (x *Excerpts) fetch(ctx context.Context, q grants.Request, k key, size int64) (*piece, error) {
	own := func(ctx context.Context) (*piece, error) {
		if p := x.fromHolders(ctx, q, k.Span, size); p != nil {
			return p, nil
		}
		return x.fromRegistry(ctx, q, k.Span, size)
	}
	if k.direct {
		return own(ctx)
	}
	return mesh.Along(ctx, x.cfg.Mesh, q.Ref, q.Digest.String(), own, func(ctx context.Context, p mesh.Peer) (*piece, error) {
		return x.fromPeer(ctx, p, q, mesh.Terms{Part: k.Span}, size)
	})
}

// fromHolders asks the nodes that hold the blob although it is not theirs to get, if what
// they hold may be shown for q. It returns nil if there are none.
func (x *Excerpts) fromHolders(ctx context.Context, q grants.Request, span oci.Span, size int64) *piece {
	m := x.cfg.Mesh
	shown := false
	holders := m.Holders(ctx, q.Content())
	for p := range m.Held(ctx, q.Ref, holders[:min(len(holders), mesh.Many)]) {
		if shown = shown || x.cfg.Grants.MayShow(ctx, q, oci.BlobResource); !shown {
			return nil
		}
		got, err := mesh.Tend(ctx, m, p, q.Ref, func(ctx context.Context, p mesh.Peer) (*piece, error) {
			return x.fromPeer(ctx, p, q, mesh.Terms{Held: true, Vouched: q.Private, Part: span}, size)
		})
		if err == nil {
			got.from.At = x.cfg.Grants.At(q, oci.BlobResource) // nobody asked the registry for this
			return got
		}
		m.PassOver(ctx, q.Ref, p, err)
	}
	return nil
}

// fromRegistry asks the registry.
func (x *Excerpts) fromRegistry(ctx context.Context, q grants.Request, span oci.Span, size int64) (*piece, error) {
	asked := time.Now()
	s, err := x.cfg.Upstream.Range(x.cfg.Grants.WithMirrors(ctx, q, oci.BlobResource), q.Ref, span)
	if err != nil {
		if e, ok := oci.AsError(err); ok && e.Kind == oci.Invalid && e.Status < 300 && e.By != oci.Middlebox {
			x.bills.silence(q.Registry)
		}
		return nil, err
	}
	counted := &x.cfg.Counters.Of(q.Registry).FromUpstreamBytes
	if s.Relay != "" { // that node counts it
		counted = &x.cfg.Counters.Of(q.Registry).FromPeersBytes
	}
	p, err := read(s, span, size, counted)
	if err != nil {
		return nil, &oci.Error{Kind: oci.Unavailable, Registry: q.Registry, Host: s.Host, By: s.By, Reason: "a range of a blob did not come", Err: err}
	}
	p.from.At = q.When(oci.BlobResource, s.By, asked)
	return p, nil
}

// fromPeer asks another node.
func (x *Excerpts) fromPeer(ctx context.Context, from mesh.Peer, q grants.Request, terms mesh.Terms, size int64) (*piece, error) {
	s, err := from.Open(ctx, q.Ref, terms.Part.Offset, terms)
	if err != nil {
		return nil, err
	}
	p, err := read(s, terms.Part, size, &x.cfg.Counters.Of(q.Registry).FromPeersBytes)
	if err != nil {
		return nil, &mesh.PeerError{Peer: from.Name(), Err: err}
	}
	return p, nil
}

// read reads a piece to its end and closes the stream.
func read(s *oci.Stream, span oci.Span, size int64, counted *atomic.Int64) (*piece, error) {
	if s.Body == nil {
		return nil, errOther
	}
	defer func() { _ = s.Body.Close() }() // only read
	if s.Offset != span.Offset || s.Size != size || s.By == oci.Middlebox {
		return nil, errOther
	}
	p := &piece{bytes: make([]byte, span.Length), from: oci.Provenance{Host: s.Host, Via: s.Via, At: s.At}}
	if s.Hit {
		p.from.Origin = oci.PeerHit
	}
	if _, err := io.ReadFull(count.Reader(s.Body, counted), p.bytes); err != nil {
		return nil, fmt.Errorf("the range broke off: %w", err)
	}
	return p, nil
}
