package transfer

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
	"oci-proxy/transfer/wait"
)

// blobs opens blobs, and tells their sizes.
type blobs struct {
	*rooms
	streams atomic.Int64 // answers to peers being sent
	heads   *wait.Calls[oci.Ref, oci.Descriptor]
}

func newBlobs(r *rooms) *blobs {
	return &blobs{rooms: r, heads: wait.NewCalls[oci.Ref, oci.Descriptor](r.life, answerWithin)}
}

// attempts bounds how often a request boards a flight. It does so more than once if
// the blob landed in between, if the flight was begun by a request for another
// repository, which may lack the blob, and if what came was not what the digest names.
const attempts = 4

// open opens a blob wherever it is.
func (b *blobs) open(ctx context.Context, t *flight.Ticket) (*Answer, error) {
	if !t.Terms.Held {
		if a := b.opened(ctx, t, b.grants.Recent(t.Request, oci.BlobResource)); a != nil {
			return a, nil // nobody is waited for
		}
	}
	limited, cancel := inTime(ctx, t.Ref)
	defer cancel()
	var last error
	wrong := false // what came was not what the digest names: once more, and no more
	for range attempts {
		b.flights.Look(t)
		a, err := b.fromShard(limited, t)
		if err != nil {
			return nil, b.explain(ctx, t.Request, oci.BlobResource, "", err)
		}
		if a == nil {
			if a, err = b.part(limited, t); err != nil {
				return nil, b.explain(ctx, t.Request, oci.BlobResource, "", err)
			}
		}
		if a != nil {
			return a, nil
		}
		a, again, err := b.follow(limited, t)
		if err == nil {
			return a, nil
		}
		last = err
		lied := errors.Is(err, cache.ErrDigest)
		if !again || limited.Err() != nil || lied && wrong {
			break
		}
		wrong = wrong || lied
	}
	return nil, b.explain(ctx, t.Request, oci.BlobResource, t.Host(), t.Wrong(last))
}

// fromShard opens a blob that the shard holds and may serve to whoever asks, nil if
// there is none.
func (b *blobs) fromShard(ctx context.Context, t *flight.Ticket) (*Answer, error) {
	pass, err := b.pass(ctx, t)
	if err != nil {
		return nil, err
	}
	return b.opened(ctx, t, pass), nil
}

// opened opens what a pass is for, nil if there is none: a shard that can't serve a blob does not
// have it.
func (b *blobs) opened(ctx context.Context, t *flight.Ticket, pass *grants.Pass) *Answer {
	if pass == nil {
		return nil
	}
	_, span := trace.Start(ctx, "disk")
	blob, err := pass.Blob()
	span.End(err)
	if err != nil {
		return nil
	}
	b.excerpts.Review(t.Request, pass.Blob)
	return &Answer{Provenance: oci.Provenance{Origin: oci.Hit, At: pass.At()}, blobs: b, ticket: t, blob: blob}
}

// pass asks for the grant to open the ticket's blob.
func (b *blobs) pass(ctx context.Context, t *flight.Ticket) (*grants.Pass, error) {
	if t.Terms.Held {
		return b.grants.ForMember(t.Request, oci.BlobResource, t.Terms), nil
	}
	return b.grants.Allowed(ctx, t.Request, oci.BlobResource)
}

// follow boards a flight and waits for its first bytes. again says that after the
// error another attempt makes sense.
func (b *blobs) follow(ctx context.Context, t *flight.Ticket) (a *Answer, again bool, err error) {
	t.Caller, t.Trace = oci.CallerOf(ctx), trace.Of(ctx)
	fl, joined, err := b.flights.Board(t)
	if err != nil {
		return nil, errors.Is(err, flight.ErrLanded), err
	}
	a = &Answer{blobs: b, ticket: t, flight: fl, boarded: []*flight.Flight{fl}}
	a.blob, err = fl.Ingest().Follow(ctx)
	a.Provenance = fl.Provenance()
	a.Collapsed, a.Stored = joined, fl.Ingest().Keeping()
	if err == nil {
		err = weigh(ctx, t, a.blob)
	}
	if err == nil {
		return a, false, nil
	}
	if a.blob != nil {
		_ = a.blob.Close() // only read
		a.blob = nil
	}
	if location, ok := flight.AsRedirect(err); ok {
		a.Redirect = location
		return a, false, nil
	}
	b.flights.GetOff(fl)
	strange := t.Failed(fl)
	if e, ok := oci.AsError(err); ok {
		return nil, strange && !e.Passing(), err
	}
	again = errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrAbandoned)
	return nil, again, err
}

const (
	// small is the size up to which no client gets a byte of a blob before the blob is
	// known to be right, so that it sees nothing of a registry that lies. Sending that
	// much takes 35 ms over a gigabit, which is the price.
	small = 4 << 20
	// weighing is how long that is waited for. A small blob that takes longer is sent as
	// it comes.
	weighing = 2 * time.Second
)

// weigh waits for the verdict on a small blob that arrives for a client, and fails if
// that is bad. Members judge for themselves.
func weigh(ctx context.Context, t *flight.Ticket, b cache.Blob) error {
	if size := b.Size(); t.ForMember || size < 0 || size > small {
		return nil
	}
	if b.Size() > cache.HoldBack { // else there has been a verdict before the first byte
		limited, cancel := context.WithTimeout(ctx, weighing)
		defer cancel()
		ctx = limited
	}
	if err := b.Verdict(ctx); errors.Is(err, cache.ErrDigest) {
		return err
	}
	return nil // it is right, it still may be, or it breaks off, as Send will say
}

// stat tells a blob's size to a client.
func (b *blobs) stat(ctx context.Context, q grants.Request) (oci.Sized, error) {
	if pass := b.grants.Recent(q, oci.BlobResource); pass != nil {
		return sized(pass), nil // nobody is waited for
	}
	limited, cancel := inTime(ctx, q.Ref)
	defer cancel()
	s, known, err := b.statHere(limited, q)
	if err == nil && !known && q.Offline {
		s, known = b.statAnywhere(limited, q)
	}
	if err == nil && !known {
		s, err = mesh.Along(limited, b.mesh, q.Ref, q.Digest.String(),
			func(ctx context.Context) (oci.Sized, error) { return b.statUpstream(ctx, q, false) },
			func(ctx context.Context, p mesh.Peer) (oci.Sized, error) {
				size, how, err := p.Stat(ctx, q.Ref)
				return oci.Sized{Provenance: how, Size: b.believed(q, size)}, err
			})
	}
	if e, ok := oci.AsError(err); ok && e.LastWordCounts() {
		if held, ok := b.statHolders(limited, q); ok {
			return held, nil
		}
	}
	return s, b.explain(ctx, q, oci.BlobResource, "", err)
}

// statHere looks for a blob's size in this node: in the shard, or in a flight.
func (b *blobs) statHere(ctx context.Context, q grants.Request) (s oci.Sized, known bool, err error) {
	pass, err := b.grants.Allowed(ctx, q, oci.BlobResource)
	if err != nil {
		return s, false, err
	}
	if pass != nil {
		return sized(pass), true, nil
	}
	if fl := b.flights.Find(q.Ref); fl != nil {
		s = oci.Sized{Provenance: fl.Provenance(), Size: fl.Ingest().Size()}
		s.Collapsed = true
		return s, true, nil
	}
	return s, false, nil
}

// sized is what a pass tells of a blob that the shard holds.
func sized(pass *grants.Pass) oci.Sized {
	return oci.Sized{Provenance: oci.Provenance{Origin: oci.Hit, At: pass.At()}, Size: pass.Size()}
}

// statHolders asks the members that may hold a blob although it is not theirs to get,
// for a client whose registry fails.
func (b *blobs) statHolders(ctx context.Context, q grants.Request) (oci.Sized, bool) {
	for p := range b.mesh.Peek(ctx, q.Ref, b.mesh.Holders(ctx, q.Content())) {
		if size, how, err := p.Stat(ctx, q.Ref); err == nil && size >= 0 {
			return oci.Sized{Provenance: how, Size: size}, true
		}
	}
	return oci.Sized{}, false
}

// statAnywhere asks all members for the size of a blob that they hold: its registry is not
// to be asked.
func (b *blobs) statAnywhere(ctx context.Context, q grants.Request) (s oci.Sized, ok bool) {
	if b.grants.MayShow(ctx, q, oci.BlobResource) {
		for p := range b.mesh.Held(ctx, q.Ref, b.mesh.Members()) {
			if at, err := p.Progress(ctx, q.Ref); err == nil && at.Held {
				return oci.Sized{Provenance: oci.Provenance{Origin: oci.PeerHit, Host: p.Name()}, Size: at.Offset}, true
			}
		}
	}
	return s, false
}

// believed returns the size that a HEAD told of a blob, -1 if that can't be: some registries
// say 0 where they do not know. What a manifest tells may be wrong as well, so if the two
// differ neither is told.
func (b *blobs) believed(q grants.Request, size int64) int64 {
	told := b.sizes.Get(q.Content())
	switch empty := q.Digest == q.Digest.Algorithm().FromBytes(nil); {
	case empty && size >= 0:
		return 0
	case size == 0, told >= 0 && size != told:
		return -1
	default:
		return size
	}
}

// head asks the registry by HEAD about a blob, once for all who ask at the time.
func (b *blobs) head(ctx context.Context, q grants.Request) (oci.Descriptor, error) {
	if q.Offline {
		return oci.Descriptor{Size: -1}, nil // the archive may have it, whose word on its size does not count
	}
	d, _, err := b.heads.Do(ctx, q.Ref, func(ctx context.Context) (oci.Descriptor, error) {
		d, err := b.upstream.Stat(b.grants.WithMirrors(ctx, q, oci.BlobResource), q.Ref, true, nil)
		if err == nil && d.By != oci.Middlebox && d.Size > 0 {
			b.excerpts.Learn(q.Content(), d.Size)
		}
		return d, err
	})
	return d, err
}

// statUpstream asks the registry for a blob's size. member says that another node
// wants to know.
func (b *blobs) statUpstream(ctx context.Context, q grants.Request, member bool) (oci.Sized, error) {
	d, err := b.head(ctx, q)
	switch {
	case err != nil:
		return oci.Sized{}, err
	case d.Size >= 0 || d.Redirect != "":
		return oci.Sized{Provenance: oci.Provenance{Host: q.Registry}, Size: b.believed(q, d.Size), Redirect: d.Redirect}, nil
	}
	t := flight.NewTicket(q)
	t.ForMember = member
	a, err := b.open(ctx, t)
	if err != nil {
		return oci.Sized{}, err
	}
	defer func() { _ = a.Close() }() // nothing was read
	if a.Redirect != "" {
		return oci.Sized{Provenance: a.Provenance, Size: -1, Redirect: a.Redirect}, nil
	}
	return oci.Sized{Provenance: a.Provenance, Size: a.Size()}, nil
}
