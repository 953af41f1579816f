package transfer

import (
	"context"
	"errors"
	"io"

	"oci-proxy/cache"
)

// An Answer is a blob for a client. Close it.
type Answer struct {
	Way
	Redirect string // set where the registry's redirect goes to the client; there is no blob then

	fetcher *Fetcher
	ref     Ref
	blob    cache.Blob
	flight  *flight
	past    []cache.Blob // what was read before, and failed in mid-response
}

// Blob opens the blob that ref names, for a client's GET: from the shard, or
// as it arrives. It returns once the first bytes can be sent; errors are
// *Error, or ctx's. It counts as a hit or a miss of the registry.
func (f *Fetcher) Blob(ctx context.Context, ref Ref) (*Answer, error) {
	a, err := f.open(ctx, ref, nil, nil)
	if err != nil {
		return nil, err
	}
	f.counters.count(ref.Registry, a.From)
	return a, nil
}

// attempts bounds how often a request boards a flight: once more if the flight
// was begun by a request for another repository, which may lack the blob, or
// if what came was not what the digest names.
const attempts = 3

// open opens a blob wherever it is. from is the flight that the request fell
// out of and past the damaged blob that it read, if that is why it asks again.
func (f *Fetcher) open(ctx context.Context, ref Ref, from *flight, past cache.Blob) (*Answer, error) {
	var last error
	for range attempts {
		if b, err := f.cfg.Store(ref.Registry).Open(ref.Digest); err == nil {
			return &Answer{Way: Way{From: Hit}, fetcher: f, ref: ref, blob: b}, nil
		}
		if f.cfg.Policy(ref.Registry).Offline {
			return nil, offline(ref)
		}
		a, err := f.follow(ctx, ref, from, past)
		if err == nil || ctx.Err() != nil {
			return a, err
		}
		if final := a == nil; final {
			return nil, err
		}
		last = err
	}
	return nil, last
}

// follow boards a flight and waits for its first bytes. An error with an
// Answer beside it is worth another attempt.
func (f *Fetcher) follow(ctx context.Context, ref Ref, from *flight, past cache.Blob) (*Answer, error) {
	salvage, size := io.Reader(nil), int64(0)
	if past != nil {
		salvage, size = cache.Salvage(past), past.Size()
	}
	fl, joined, err := f.board(ref, from, salvage, size)
	if err != nil {
		return nil, err
	}
	a := &Answer{Way: Way{From: Miss, Collapsed: joined}, fetcher: f, ref: ref, flight: fl}
	a.blob, err = fl.in.Follow(ctx)
	a.Host, a.Stored = fl.from(), fl.in.Keeping()
	if err == nil {
		return a, nil
	}
	if r, ok := errors.AsType[*errRedirected](err); ok {
		a.Redirect = r.location
		return a, nil
	}
	err = f.explain(ref, fl, err)
	if fl.ref != ref || errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrNotFound) {
		return a, err
	}
	return nil, err
}

// explain makes an *Error of what a flight ended with.
func (f *Fetcher) explain(ref Ref, fl *flight, err error) error {
	if _, ok := errors.AsType[*Error](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	kind, reason := Unavailable, "the download broke off"
	if errors.Is(err, cache.ErrDigest) {
		kind, reason = Corrupt, "what came is not what the digest names"
	}
	return &Error{Kind: kind, Registry: ref.Registry, Host: fl.from(), Reason: reason, Err: err}
}

// Size returns the blob's size in bytes, -1 if upstream has not told.
func (a *Answer) Size() int64 { return a.blob.Size() }

// Send writes the bytes [off, off+n) of the blob to w, as cache.Blob does. If
// the blob turns out to be damaged on disk, or the reader falls behind, the
// same response goes on from elsewhere.
func (a *Answer) Send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if n < 0 && a.Size() >= 0 {
		n = a.Size() - off
	}
	start, end := off, off+n
	for moves := 0; ; moves++ {
		left := int64(-1)
		if n >= 0 {
			left = end - off
		}
		k, err := a.send(ctx, w, off, left)
		off += k
		moved := errors.Is(err, cache.ErrDamaged) || errors.Is(err, cache.ErrBehind)
		if !moved || moves >= attempts || n < 0 {
			return off - start, err
		}
		if err := a.move(ctx, err); err != nil {
			return off - start, err
		}
	}
}

// send sends from where the blob is now. A response that was sent in parts
// reaches the blob's end only when every part is known to be right.
func (a *Answer) send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	size := a.Size()
	if len(a.past) == 0 || n < 0 || off+n < size {
		return a.blob.Send(ctx, w, off, n)
	}
	first := max(0, n-cache.HoldBack)
	k, err := a.blob.Send(ctx, w, off, first)
	if err != nil {
		return k, err
	}
	for _, b := range a.past {
		if err := b.Verdict(ctx); err != nil {
			return k, err
		}
	}
	m, err := a.blob.Send(ctx, w, off+k, n-k)
	return k + m, err
}

// move opens the blob anew because reading it failed with cause.
func (a *Answer) move(ctx context.Context, cause error) error {
	a.fetcher.cfg.Log.Warn("response goes on from elsewhere", "digest", a.ref.Digest.String(), "cause", cause)
	var damaged cache.Blob
	if a.flight == nil {
		damaged = a.blob
	}
	next, err := a.fetcher.open(ctx, a.ref, a.flight, damaged)
	if err != nil {
		return err
	}
	if next.Redirect != "" || next.Size() != a.Size() {
		return errors.Join(cause, next.Close())
	}
	a.past = append(a.past, a.blob)
	a.blob, a.flight = next.blob, next.flight
	return nil
}

// Close lets the blob go.
func (a *Answer) Close() error {
	var errs []error
	for _, b := range a.past {
		errs = append(errs, b.Close())
	}
	if a.blob != nil {
		errs = append(errs, a.blob.Close())
	}
	return errors.Join(errs...)
}

// StatBlob returns the size of the blob that ref names, for a client's HEAD,
// without getting it: from the shard, a flight or upstream's HEAD. Where
// upstream offers no HEAD, or no size by it, a flight is begun to learn it.
func (f *Fetcher) StatBlob(ctx context.Context, ref Ref) (int64, Way, error) {
	store := f.cfg.Store(ref.Registry)
	if size, ok := store.Stat(ref.Digest); ok {
		return size, Way{From: Hit}, nil
	}
	if f.cfg.Policy(ref.Registry).Offline {
		return 0, Way{}, offline(ref)
	}
	f.mu.Lock()
	fl := f.flights[flightKey{store, ref.Digest}]
	f.mu.Unlock()
	if fl != nil && fl.ref == ref && fl.in.Size() >= 0 {
		return fl.in.Size(), Way{Collapsed: true, Host: fl.from()}, nil
	}
	d, err := f.cfg.Upstream.Stat(ctx, ref, true, nil)
	switch {
	case err == nil && d.Size >= 0:
		return d.Size, Way{Host: ref.Registry}, nil
	case err != nil && !headless(err):
		return 0, Way{}, err
	}
	a, err := f.open(ctx, ref, nil, nil)
	if err != nil {
		return 0, Way{}, err
	}
	defer func() { _ = a.Close() }() // nothing was read
	if a.Redirect != "" {
		return -1, a.Way, nil
	}
	return a.Size(), a.Way, nil
}

// headless reports whether err says that upstream does not offer HEAD.
func headless(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == Invalid
}

// offline is the answer where upstream is never asked.
func offline(ref Ref) error {
	return &Error{Kind: Offline, Registry: ref.Registry, Reason: "the registry is configured as offline and this is not in the cache"}
}
