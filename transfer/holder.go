package transfer

import (
	"context"
	"errors"
	"time"

	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A holder is a Fetcher as the other members see it.
type holder struct{ f *Fetcher }

// Holder returns the Fetcher as the other members see it.
func (f *Fetcher) Holder() mesh.Holder { return holder{f} }

// request is what another node asks this one for.
func (h holder) request(ref oci.Ref) grants.Request {
	q := h.f.request(ref)
	q.Member = true
	return q
}

// explain is Fetcher.explain for a member: a node that is shutting down fails itself,
// and does not speak for the registry.
func (h holder) explain(ctx context.Context, q grants.Request, as oci.Resource, err error) error {
	if errors.Is(err, wait.ErrClosed) {
		return wait.ErrClosed
	}
	return h.f.explain(ctx, q, as, "", err)
}

// Blob implements mesh.Holder.
func (h holder) Blob(ctx context.Context, ref oci.Ref, terms mesh.Terms, asker string) (*mesh.Given, error) {
	t := flight.NewTicket(h.request(ref))
	t.ForMember, t.Terms, t.Asker = true, terms, asker
	if terms.Part.Length > 0 {
		t.Parts = func(int64) ([]oci.Span, int64) { return []oci.Span{terms.Part}, 0 }
	}
	if terms.Feed.By != "" {
		flight.AwaitSeat(ctx, h.f.flights, t)
	}
	a, err := h.f.blobs.open(ctx, t)
	if errors.Is(err, wait.ErrClosed) {
		return nil, wait.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	given := &mesh.Given{Provenance: a.Provenance, Redirect: a.Redirect, Blob: servingOf(t, a)}
	if a.Redirect == "" {
		given.Feeding = h.feeding(t.Request, a.Size(), terms, asker)
	}
	return given, nil
}

// Stat implements mesh.Holder. A redirect is for a GET to tell.
func (h holder) Stat(ctx context.Context, ref oci.Ref) (int64, oci.Provenance, error) {
	q := h.request(ref)
	limited, cancel := inTime(ctx, ref)
	defer cancel()
	s, known, err := h.f.blobs.statHere(limited, q)
	if err == nil && !known {
		s, err = h.f.blobs.statUpstream(limited, q, true)
	}
	return s.Size, s.Provenance, h.explain(ctx, q, oci.BlobResource, err)
}

// Tag implements mesh.Holder.
func (h holder) Tag(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error) {
	q := h.request(ref)
	found, err := h.f.tags.find(ctx, q, accept, true, true)
	return found, h.explain(ctx, q, oci.ManifestResource, err)
}

// Manifest implements mesh.Holder.
func (h holder) Manifest(ctx context.Context, ref oci.Ref, terms mesh.Terms) (*oci.Found, error) {
	q := h.request(ref)
	found, err := opened(false, func() (*oci.Found, error) {
		if terms.Held {
			if found, ok := h.f.manifests.kept(ctx, q, h.f.grants.ForMember(q, oci.ManifestResource, terms)); ok {
				return found, nil
			}
			return nil, oci.NotHeldError(ref)
		}
		limited, cancel := inTime(ctx, ref)
		defer cancel()
		return h.f.manifests.byDigest(limited, q, false, true)
	})
	if terms.Held {
		return found, err
	}
	return found, h.explain(ctx, q, oci.ManifestResource, err)
}

// List implements mesh.Holder.
func (h holder) List(ctx context.Context, q oci.Question) (*mesh.List, error) {
	list, err := h.f.lists.forMember(ctx, h.f.asked(q))
	switch {
	case errors.Is(err, wait.ErrClosed):
		return nil, wait.ErrClosed
	case err != nil:
		return nil, explain(ctx, q.Ref, "", err)
	default:
		return list.given(), nil
	}
}

// Kept implements mesh.Holder.
func (h holder) Kept(q oci.Question) (*mesh.List, error) {
	list, ok := h.f.lists.kept(h.f.asked(q))
	if !ok {
		return nil, oci.NotHeldError(q.Ref)
	}
	return list.given(), nil
}

// LastWord implements mesh.Holder.
func (h holder) LastWord(q oci.Question) (mesh.Word, bool) {
	if q.Tag != "" {
		return h.f.tags.last(h.f.tags.question(h.request(q.Ref), q.Accept, true, true))
	}
	w, ok := h.f.lists.words.own(h.f.asked(q))
	return mesh.Word{At: w.Told, Sum: w.Sum, No: w.No}, ok
}

// Presence implements mesh.Holder. It waits for no disk. Whether the content may be
// shown to anybody is for the member that asks to see.
func (h holder) Presence(ref oci.Ref, asker string) mesh.Presence {
	q := h.request(ref)
	_, allowed := h.f.grants.Glance(q)
	switch {
	case allowed:
		return mesh.Held
	case h.f.flights.Peeked(q, asker):
		return mesh.Arriving
	case h.f.flights.Begun(q) > 0:
		return mesh.Begun
	default:
		return mesh.Absent
	}
}

// Progress implements mesh.Holder. It waits for no disk: it is a sign of life. As for
// Presence, what another registry brought is not held unless this node would give it.
func (h holder) Progress(ref oci.Ref) mesh.Progress {
	q := h.request(ref)
	p := mesh.Progress{Streams: int(h.f.blobs.streams.Load())}
	if size, allowed := h.f.grants.Glance(q); allowed {
		p.Held, p.Offset = true, size
		p.Blob, p.Manifest = ago(h.f.grants.At(q, oci.BlobResource)), ago(h.f.grants.At(q, oci.ManifestResource))
		p.Unvouched = !h.f.grants.Vouched(q, oci.BlobResource) && !h.f.grants.Vouched(q, oci.ManifestResource)
		return p
	}
	p.Offset, p.Begun = h.f.flights.Sendable(ref.Content()), h.f.flights.Begun(q)
	return p
}

// ago is how many milliseconds have passed since then, at least 1; 0 if that never was.
func ago(then time.Time) int64 {
	if then.IsZero() {
		return 0
	}
	return max(0, time.Since(then).Milliseconds()) + 1 // rather too old than too new
}

// Take implements mesh.Holder.
func (h holder) Take(ctx context.Context, from mesh.Peer, ref oci.Ref, mediaType string) error {
	return h.f.flights.Take(ctx, from, h.request(ref), mediaType)
}

// TakeCopy implements mesh.Holder.
func (h holder) TakeCopy(ctx context.Context, from mesh.Peer, ref oci.Ref, mediaType string, size int64) error {
	return flight.TakeCopy(ctx, h.f.flights, from, h.request(ref), mediaType, size)
}

// Refused implements mesh.Holder.
func (h holder) Refused(ref oci.Ref) { h.f.grants.Refused(h.request(ref)) }

// Lost implements mesh.Holder.
func (h holder) Lost(ref oci.Ref, as oci.Resource) { h.f.grants.Lost(h.request(ref), as) }

// Told implements mesh.Holder.
func (h holder) Told(from mesh.Peer, q oci.Question) {
	a := h.f.asked(q)
	a.Member = true
	h.f.relay.heard(from, a)
}
