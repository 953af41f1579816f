package transfer

import (
	"context"
	"errors"
)

// StatBlob returns the size of the blob that ref names, -1 if upstream does not
// tell, for a client's HEAD, without getting it: from the shard, a flight or
// upstream's HEAD. Where upstream offers no HEAD, or no size by it, a flight is
// begun to learn it. Errors are as Blob's.
func (f *Fetcher) StatBlob(ctx context.Context, ref Ref) (Sized, error) {
	wait, cancel := inTime(ctx, ref)
	defer cancel()
	s, known, err := f.stat(wait, ref)
	if err == nil && !known {
		s, err = along(wait, f, ref, ref.Digest.String(),
			func(ctx context.Context) (Sized, error) { return f.statUpstream(ctx, ref, false) },
			func(ctx context.Context, p Peer) (Sized, error) {
				size, way, err := p.Stat(ctx, ref)
				return Sized{Way: way, Size: size}, err
			})
	}
	return s, f.explain(ctx, ref, "", err)
}

// A Sized blob is what a HEAD tells.
type Sized struct {
	Way
	Size     int64  // -1: not known
	Redirect string // set where the registry's redirect goes to the client
}

// stat looks for a blob's size in this node: in the shard, or in a flight.
func (f *Fetcher) stat(ctx context.Context, ref Ref) (s Sized, known bool, err error) {
	admitted, err := f.admits(ctx, ref, true)
	if err != nil {
		return s, false, err
	}
	if size, ok := f.cfg.Store(ref.Registry).Stat(ref.Digest); ok && admitted {
		return Sized{Way: Way{From: Hit, At: f.wordAt(ref)}, Size: size}, true, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, acts := range []bool{true, false} {
		fl := f.flights[flightKey{content{ref.Registry, ref.Digest}, acts}]
		if fl != nil && fl.ref == ref && fl.in.Size() >= 0 {
			way := fl.way()
			way.Collapsed = true
			return Sized{Way: way, Size: fl.in.Size()}, true, nil
		}
	}
	return s, false, nil
}

// statUpstream asks the registry for a blob's size. member says that another
// node wants to know.
func (f *Fetcher) statUpstream(ctx context.Context, ref Ref, member bool) (Sized, error) {
	var d Descriptor
	err := offline(ref)
	if !f.cfg.Policy(ref.Registry).Offline {
		d, err = f.cfg.Upstream.Stat(ctx, ref, true, nil)
	}
	switch {
	case err == nil && (d.Size >= 0 || d.Redirect != ""):
		return Sized{Way: Way{Host: ref.Registry}, Size: d.Size, Redirect: d.Redirect}, nil
	case err != nil && !f.betterByGet(err):
		return Sized{}, err
	}
	t := f.ticket(ref)
	t.acts = member
	a, openErr := f.open(ctx, t)
	if openErr != nil {
		if e, ok := asError(err); ok && e.Passing() {
			return Sized{}, err // of the two that failed the first
		}
		return Sized{}, openErr
	}
	defer func() { _ = a.Close() }() // nothing was read
	if a.Redirect != "" {
		return Sized{Way: a.Way, Size: -1, Redirect: a.Redirect}, nil
	}
	return Sized{Way: a.Way, Size: a.Size()}, nil
}

// betterByGet reports whether a GET may find a blob whose HEAD failed with err: the
// registry does not offer HEAD, or answers 404 to any (as Harbor's proxies do),
// or it fails, and another node may hold the blob.
func (f *Fetcher) betterByGet(err error) bool {
	e, ok := asError(err)
	return ok && (headless(err) || e.Kind == NotFound || f.cfg.Mesh != nil && e.Passing())
}

// headless reports whether err says that upstream does not offer HEAD.
func headless(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == Invalid
}
