package transfer

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A manifestKey says which requests share one download of a manifest.
type manifestKey struct {
	registry, repository string
	digest               digest.Digest
}

// Manifest gets the manifest that ref's tag or digest names. accept is the
// client's Accept list, taken apart; head asks for all but the bytes. Errors
// are *Error, or ctx's, and come within 40 s. A GET by digest counts as a hit
// or a miss.
func (f *Fetcher) Manifest(ctx context.Context, ref oci.Ref, accept []string, head bool) (*oci.Found, error) {
	if ref.Digest == "" {
		found, err := f.byTag(ctx, ref, accept, head, false)
		return found, f.explain(ctx, ref, "", err)
	}
	wait, cancel := inTime(ctx, ref)
	defer cancel()
	found, err := f.byDigest(wait, ref, head, false)
	if err != nil {
		return nil, f.explain(ctx, ref, "", err)
	}
	if !head {
		f.counters.count(ref.Registry, found.Origin)
	}
	return found, nil
}

// byDigest gets a manifest that can't go stale. member says that another node
// wants it.
func (f *Fetcher) byDigest(ctx context.Context, ref oci.Ref, head, member bool) (*oci.Found, error) {
	admitted, err := f.admits(ctx, ref, false)
	if err != nil {
		return nil, err
	}
	if found, ok := f.kept(ref); ok && admitted {
		found.Origin = oci.Hit
		return found, nil
	}
	get := func(ctx context.Context) (*oci.Found, error) { return f.fromOwner(ctx, ref) }
	group, route := &f.manifests, f.route(ref.Registry, ref.Digest.String())
	if member || alone(route) {
		get = func(ctx context.Context) (*oci.Found, error) { return f.fromUpstream(ctx, ref) }
		group = &f.ownManifests
		if head {
			if found, err := f.headManifest(ctx, ref); found != nil || err != nil {
				return found, err
			}
		}
	}
	return shared(group.do(ctx, f, manifestKey{ref.Registry, ref.Repository, ref.Digest}, get))
}

// shared is one caller's own copy of what a call gave.
func shared(found *oci.Found, joined bool, err error) (*oci.Found, error) {
	if err != nil {
		return nil, err
	}
	own := *found
	own.Collapsed = own.Collapsed || joined
	return &own, nil
}

// headManifest asks the registry by HEAD. Without error and Found it does not
// tell what a client's HEAD needs.
func (f *Fetcher) headManifest(ctx context.Context, ref oci.Ref) (*oci.Found, error) {
	if f.cfg.Policy(ref.Registry).Offline {
		return nil, oci.OfflineError(ref)
	}
	d, err := f.cfg.Upstream.Stat(ctx, ref, false, oci.ManifestTypes)
	switch {
	case err == nil && d.Size >= 0 && d.MediaType != "":
		return &oci.Found{Manifest: oci.Manifest{Digest: ref.Digest, MediaType: d.MediaType}, Size: d.Size, Provenance: oci.Provenance{Host: ref.Registry}}, nil
	case err != nil && !oci.NoHead(err):
		return nil, err
	default:
		return nil, nil
	}
}

// fromOwner gets a manifest from the first on its route that has it or gets it.
func (f *Fetcher) fromOwner(ctx context.Context, ref oci.Ref) (*oci.Found, error) {
	return along(ctx, f, ref, ref.Digest.String(),
		func(ctx context.Context) (*oci.Found, error) {
			key := manifestKey{ref.Registry, ref.Repository, ref.Digest}
			return shared(f.ownManifests.do(ctx, f, key, func(ctx context.Context) (*oci.Found, error) { return f.fromUpstream(ctx, ref) }))
		},
		func(ctx context.Context, p mesh.Peer) (*oci.Found, error) {
			return f.manifestOf(ctx, p, ref, mesh.Terms{})
		})
}

// manifestOf gets a manifest from another node and keeps it.
func (f *Fetcher) manifestOf(ctx context.Context, p mesh.Peer, ref oci.Ref, terms mesh.Terms) (*oci.Found, error) {
	found, err := p.Manifest(ctx, ref, terms)
	if err != nil {
		return nil, err
	}
	found.MediaType = oci.TypeFrom(found.MediaType, found.Bytes)
	if terms.Held {
		found.At = f.wordAt(ref) // nobody asked the registry for this
	}
	if _, err := f.keep(ctx, ref, &found.Manifest, found.At); err != nil {
		return nil, lied(p, err)
	}
	found.Size = int64(len(found.Bytes))
	return found, nil
}

// fromUpstream gets a manifest for all who ask: from another node that holds it
// though it is not its owner, else from the registry.
func (f *Fetcher) fromUpstream(ctx context.Context, ref oci.Ref) (*oci.Found, error) {
	if found, ok := f.kept(ref); ok && f.vouched(ref) { // it came since we looked
		found.Origin = oci.Hit
		return found, nil
	}
	// They give what they hold and ask nobody: this node waits for them.
	nodes, terms := f.shown(ref, false, f.peek(ctx, ref, f.peekers(content{ref.Registry, ref.Digest}))...)
	for _, p := range nodes {
		found, err := tend(ctx, f, p, ref, func(ctx context.Context, p mesh.Peer) (*oci.Found, error) { return f.manifestOf(ctx, p, ref, terms) })
		if err == nil {
			return found, nil
		}
		f.passedOver(ref, p, err)
	}
	if f.cfg.Policy(ref.Registry).Offline {
		return nil, oci.OfflineError(ref)
	}
	return f.fetchManifest(ctx, ref, oci.ManifestTypes)
}

// kept returns the manifest of ref's digest from the shard, unless another,
// private registry brought it. Whether ref's own registry vouches for it is the
// caller's to know.
func (f *Fetcher) kept(ref oci.Ref) (*oci.Found, bool) {
	if f.foreign(ref) {
		return nil, false
	}
	store := f.cfg.Store(ref.Registry)
	content, mediaType, err := store.Manifest(ref.Digest)
	if err != nil {
		return nil, false
	}
	if origin, held := store.Origin(ref.Digest); held && origin != ref.Registry && !oci.TypeAgrees(mediaType, content) {
		return nil, false
	}
	f.sizes.learn(ref.Registry, ref.Digest, mediaType, content)
	return &oci.Found{Manifest: oci.Manifest{Digest: ref.Digest, MediaType: mediaType, Bytes: content}, Provenance: oci.Provenance{At: f.wordAt(ref)}, Size: int64(len(content))}, true
}

// fetchManifest gets a manifest from upstream and keeps it.
func (f *Fetcher) fetchManifest(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error) {
	asked := time.Now()
	m, err := f.cfg.Upstream.Manifest(ctx, ref, accept)
	if err != nil {
		return nil, err
	}
	ref.Digest = m.Digest
	stored, err := f.keep(ctx, ref, &m, asked)
	if err != nil {
		return nil, &oci.Error{Kind: oci.Corrupt, Registry: ref.Registry, Reason: "what came is not what the digest names", Err: err}
	}
	return &oci.Found{Manifest: m, Size: int64(len(m.Bytes)), Provenance: oci.Provenance{Stored: stored, Host: ref.Registry, At: asked}}, nil
}

// keep puts a manifest that came for ref into the shard; at is when the registry
// vouched for it. The error says that it is not what ref's digest names.
func (f *Fetcher) keep(ctx context.Context, ref oci.Ref, m *oci.Manifest, at time.Time) (stored bool, err error) {
	store := f.cfg.Store(ref.Registry)
	if got := ref.Digest.Algorithm().FromBytes(m.Bytes); got != ref.Digest {
		return false, fmt.Errorf("%w: want %s, got %s", cache.ErrDigest, ref.Digest, got)
	}
	origin, held := store.Origin(ref.Digest)
	if !held || origin == ref.Registry || oci.TypeAgrees(m.MediaType, m.Bytes) {
		if stored, err = store.Put(ctx, ref.Digest, ref.Registry, m.MediaType, m.Bytes); err != nil {
			return false, err
		}
	}
	f.arrived(ref, at)
	f.vouchParts(ref, m.MediaType, m.Bytes, at)
	f.sizes.learn(ref.Registry, ref.Digest, m.MediaType, m.Bytes)
	return stored, nil
}

// Tags gets a page of upstream's list of tags.
func (f *Fetcher) Tags(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error) {
	ctx, cancel := inTime(ctx, ref) // for all nodes that are asked together
	defer cancel()
	return direct(ctx, f, ref,
		func(ctx context.Context) (*oci.Page, error) { return f.Holder().Tags(ctx, ref, query) },
		func(ctx context.Context, p mesh.Peer) (*oci.Page, error) { return p.Tags(ctx, ref, query) })
}

// Referrers gets a page of upstream's list of manifests that refer to ref.Digest.
func (f *Fetcher) Referrers(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error) {
	ctx, cancel := inTime(ctx, ref) // as above
	defer cancel()
	return direct(ctx, f, ref,
		func(ctx context.Context) (*oci.Page, error) { return f.Holder().Referrers(ctx, ref, query) },
		func(ctx context.Context, p mesh.Peer) (*oci.Page, error) { return p.Referrers(ctx, ref, query) })
}
