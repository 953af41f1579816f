package transfer

import (
	"context"
	"errors"

	"oci-proxy/cache"
	"oci-proxy/transfer/excerpt"
	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// maxOpen is how long the rest of a blob may be, in bytes, to be got by itself when a
// request names no end. Clients that read a blob in several streams, or go on with one
// that broke off, ask like that, and want the whole. It is less than what is held back of
// a blob: whoever goes on with one that came out wrong gets the end only when it is right.
const maxOpen = cache.HoldBack / 2

// Part opens the blob that ref names, for a client that wants parts of it. If they are
// neither here nor about to arrive, they are got by themselves, as long as that is worth
// it (package excerpt). Otherwise, and as to errors and counting, it is Blob. The Answer
// may deliver no other bytes than those.
func (f *Fetcher) Part(ctx context.Context, ref oci.Ref, parts flight.Parts) (*Answer, error) {
	t := flight.NewTicket(f.request(ref))
	t.Parts = parts
	return f.answer(ctx, t)
}

// part opens parts of a blob that the shard does not hold, by themselves. It returns nil
// if the whole blob is to be got.
func (b *blobs) part(ctx context.Context, t *flight.Ticket) (*Answer, error) {
	if t.Parts == nil || t.Terms.Held || t.Offline || t.PassOn {
		return nil, nil
	}
	size := b.sizeFor(ctx, t)
	if size < 0 {
		return nil, nil // getting the whole says what is wrong
	}
	spans, rest := t.Parts(size)
	if len(spans) == 0 || rest > maxOpen {
		return nil, nil
	}
	end := int64(0)
	for _, s := range spans {
		end = max(end, s.End())
	}
	if fl := b.flights.UnderWay(t); fl != nil && fl.Brings(ctx, end) {
		return nil, nil
	}
	e, err := b.excerpts.Open(ctx, t.Request, size, spans, t.ForMember)
	if err == nil {
		return &Answer{Provenance: e.Provenance(), blobs: b, ticket: t, blob: e}, nil
	}
	if said, ok := oci.AsError(err); ok && !said.Passing() && said.Kind != oci.Invalid {
		return nil, err
	}
	if !errors.Is(err, excerpt.ErrWhole) {
		b.log.InfoContext(ctx, "range could not be got by itself", "registry", t.Registry, "image", t.Repository, "digest", t.Digest.String(), "error", err)
	}
	return nil, nil
}

// sizeFor returns the size of the ticket's blob in bytes, -1 if nobody tells it.
func (b *blobs) sizeFor(ctx context.Context, t *flight.Ticket) int64 {
	if fl := b.flights.UnderWay(t); fl != nil && fl.Ingest().Size() >= 0 {
		return fl.Ingest().Size()
	}
	if size := b.sizes.Get(t.Content()); size >= 0 {
		return size
	}
	if size := b.excerpts.Size(t.Content()); size >= 0 {
		return size
	}
	ctx, cancel := context.WithTimeout(ctx, sizeWithin)
	defer cancel()
	size, err := b.askSize(ctx, t)
	if err != nil {
		return -1
	}
	return size
}

// askSize asks for the size of the ticket's blob: the registry, or the node that leads.
func (b *blobs) askSize(ctx context.Context, t *flight.Ticket) (int64, error) {
	own := func(ctx context.Context) (int64, error) {
		if _, err := b.head(ctx, t.Request); err != nil {
			return -1, err
		}
		return b.excerpts.Size(t.Content()), nil
	}
	if t.ForMember {
		return own(ctx)
	}
	return mesh.Along(ctx, b.mesh, t.Ref, t.Digest.String(), own, func(ctx context.Context, p mesh.Peer) (int64, error) {
		size, _, err := p.Stat(ctx, t.Ref)
		if err == nil && size > 0 {
			b.excerpts.Learn(t.Content(), size)
		}
		return size, err
	})
}
