package transfer

import (
	"context"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// StatBlob returns the size of the blob that ref names, -1 if upstream does not
// tell, for a client's HEAD, without getting it: from the shard, a flight or
// upstream's HEAD. Where upstream offers no HEAD, or no size by it, a flight is
// begun to learn it. Errors are as Blob's.
func (f *Fetcher) StatBlob(ctx context.Context, ref oci.Ref) (oci.Sized, error) {
	wait, cancel := inTime(ctx, ref)
	defer cancel()
	s, known, err := f.stat(wait, ref)
	if err == nil && !known {
		s, err = along(wait, f, ref, ref.Digest.String(),
			func(ctx context.Context) (oci.Sized, error) { return f.statUpstream(ctx, ref, false) },
			func(ctx context.Context, p mesh.Peer) (oci.Sized, error) {
				size, way, err := p.Stat(ctx, ref)
				return oci.Sized{Provenance: way, Size: size}, err
			})
	}
	if e, ok := oci.AsError(err); ok && e.Passing() {
		if held, ok := f.statHolders(wait, ref); ok {
			return held, nil
		}
	}
	return s, f.explain(ctx, ref, "", err)
}

// statHolders asks those who may hold a blob though it is not theirs to get, for
// a client whose registry fails.
func (f *Fetcher) statHolders(ctx context.Context, ref oci.Ref) (oci.Sized, bool) {
	if f.cfg.Mesh == nil {
		return oci.Sized{}, false
	}
	for _, p := range f.peek(ctx, ref, f.cfg.Mesh.Holders(ref.Registry, ref.Digest.String())) {
		if size, way, err := p.Stat(ctx, ref); err == nil && size >= 0 {
			return oci.Sized{Provenance: way, Size: size}, true
		}
	}
	return oci.Sized{}, false
}

// stat looks for a blob's size in this node: in the shard, or in a flight.
func (f *Fetcher) stat(ctx context.Context, ref oci.Ref) (s oci.Sized, known bool, err error) {
	admitted, err := f.admits(ctx, ref, true)
	if err != nil {
		return s, false, err
	}
	if size, ok := f.cfg.Store(ref.Registry).Stat(ref.Digest); ok && admitted {
		return oci.Sized{Provenance: oci.Provenance{Origin: oci.Hit, At: f.wordAt(ref)}, Size: size}, true, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, acts := range []bool{true, false} {
		fl := f.flights[flightKey{content{ref.Registry, ref.Digest}, acts}]
		if fl != nil && fl.ref == ref && fl.in.Size() >= 0 {
			way := fl.way()
			way.Collapsed = true
			return oci.Sized{Provenance: way, Size: fl.in.Size()}, true, nil
		}
	}
	return s, false, nil
}

// statUpstream asks the registry for a blob's size. member says that another
// node wants to know.
func (f *Fetcher) statUpstream(ctx context.Context, ref oci.Ref, member bool) (oci.Sized, error) {
	if f.cfg.Policy(ref.Registry).Offline {
		return oci.Sized{}, oci.OfflineError(ref)
	}
	d, err := f.cfg.Upstream.Stat(ctx, ref, true, nil)
	switch {
	case err == nil && (d.Size >= 0 || d.Redirect != ""):
		return oci.Sized{Provenance: oci.Provenance{Host: ref.Registry}, Size: d.Size, Redirect: d.Redirect}, nil
	case err != nil && !oci.NoHead(err) && oci.KindOf(err) != oci.NotFound: // some answer 404 to HEADs of blobs (Harbor's proxies)
		return oci.Sized{}, err
	}
	t := f.ticket(ref)
	t.acts = member
	a, err := f.open(ctx, t)
	if err != nil {
		return oci.Sized{}, err
	}
	defer func() { _ = a.Close() }() // nothing was read
	if a.Redirect != "" {
		return oci.Sized{Provenance: a.Provenance, Size: -1, Redirect: a.Redirect}, nil
	}
	return oci.Sized{Provenance: a.Provenance, Size: a.Size()}, nil
}
