package transfer

import (
	"context"
	"net/url"

	"github.com/opencontainers/go-digest"
)

// A Found manifest is what a client gets: with Bytes for a GET, without for a HEAD.
type Found struct {
	Manifest
	Way
	Size int64
}

// A manifestKey says which requests share one download of a manifest.
type manifestKey struct {
	registry, repository string
	digest               digest.Digest
}

// Manifest gets the manifest that ref's tag or digest names. accept is the
// client's Accept list, taken apart; head asks for all but the bytes. Errors
// are *Error, or ctx's, and come within 40 s. A GET by digest counts as a hit
// or a miss.
func (f *Fetcher) Manifest(ctx context.Context, ref Ref, accept []string, head bool) (*Found, error) {
	if ref.Digest == "" {
		found, err := f.byTag(ctx, ref, accept, head)
		return found, explain(ctx, ref, "", err)
	}
	wait, cancel := inTime(ctx, ref)
	defer cancel()
	found, err := f.byDigest(wait, ref, head)
	if err != nil {
		return nil, explain(ctx, ref, "", err)
	}
	if !head {
		f.counters.count(ref.Registry, found.From)
	}
	return found, nil
}

// byDigest gets a manifest that can't go stale.
func (f *Fetcher) byDigest(ctx context.Context, ref Ref, head bool) (*Found, error) {
	admitted, err := f.admits(ctx, ref, false)
	if err != nil {
		return nil, err
	}
	if found, ok := f.kept(ref); ok && admitted {
		found.From = Hit
		return found, nil
	}
	if f.cfg.Policy(ref.Registry).Offline {
		return nil, offline(ref)
	}
	if head {
		d, err := f.cfg.Upstream.Stat(ctx, ref, false, allTypes)
		if err == nil && d.Size >= 0 && d.MediaType != "" {
			return &Found{Manifest: Manifest{Digest: ref.Digest, MediaType: d.MediaType}, Size: d.Size, Way: Way{Host: ref.Registry}}, nil
		}
		if err != nil && !headless(err) {
			return nil, err
		}
	}
	key := manifestKey{ref.Registry, ref.Repository, ref.Digest}
	found, joined, err := f.manifests.do(ctx, f, key, func(ctx context.Context) (*Found, error) {
		if found, ok := f.kept(ref); ok && f.vouched(ref) { // it came since we looked
			found.From = Hit
			return found, nil
		}
		return f.fetchManifest(ctx, ref, allTypes)
	})
	if err != nil {
		return nil, err
	}
	own := *found
	own.Collapsed = joined
	return &own, nil
}

// kept returns the manifest of ref's digest from the shard, unless another,
// private registry brought it. Whether ref's own registry vouches for it is the
// caller's to know.
func (f *Fetcher) kept(ref Ref) (*Found, bool) {
	if f.foreign(ref) {
		return nil, false
	}
	content, mediaType, err := f.cfg.Store(ref.Registry).Manifest(ref.Digest)
	if err != nil {
		return nil, false
	}
	return &Found{Manifest: Manifest{Digest: ref.Digest, MediaType: mediaType, Bytes: content}, Size: int64(len(content))}, true
}

// fetchManifest gets a manifest from upstream and keeps it.
func (f *Fetcher) fetchManifest(ctx context.Context, ref Ref, accept []string) (*Found, error) {
	m, err := f.cfg.Upstream.Manifest(ctx, ref, accept)
	if err != nil {
		return nil, err
	}
	stored, err := f.cfg.Store(ref.Registry).Put(ctx, m.Digest, ref.Registry, m.MediaType, m.Bytes)
	if err != nil {
		return nil, &Error{Kind: Corrupt, Registry: ref.Registry, Reason: "what came is not what the digest names", Err: err}
	}
	ref.Digest = m.Digest
	f.arrived(ref)
	f.vouchParts(ref, m.Bytes)
	return &Found{Manifest: m, Size: int64(len(m.Bytes)), Way: Way{Stored: stored, Host: ref.Registry}}, nil
}

// Tags gets a page of upstream's list of tags.
func (f *Fetcher) Tags(ctx context.Context, ref Ref, query url.Values) (*Page, error) {
	if f.cfg.Policy(ref.Registry).Offline {
		return nil, offline(ref)
	}
	return f.cfg.Upstream.Tags(ctx, ref, query)
}

// Referrers gets a page of upstream's list of manifests that refer to ref.Digest.
func (f *Fetcher) Referrers(ctx context.Context, ref Ref, query url.Values) (*Page, error) {
	if f.cfg.Policy(ref.Registry).Offline {
		return nil, offline(ref)
	}
	return f.cfg.Upstream.Referrers(ctx, ref, query)
}
