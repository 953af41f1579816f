package transfer

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// checked is what asking upstream for a tag gave.
type checked struct {
	oci.Descriptor
	found *oci.Found     // set where the manifest had to be got to learn its digest
	way   oci.Provenance // At, and of another node's answer Stale, Via and Host
}

// byTag gets the manifest that a tag means now, as upstream has it, or if
// upstream fails what it last meant. member says that another node wants to
// know.
func (f *Fetcher) byTag(ctx context.Context, ref oci.Ref, client []string, head, member bool) (*oci.Found, error) {
	accept := oci.Acceptable(client)
	key := strings.Join(append([]string{ref.Registry, ref.Repository, ref.Tag}, accept...), " ")
	store, policy := f.cfg.Store(ref.Registry), f.cfg.Policy(ref.Registry)
	old, known := store.Tag(key)
	known = known && !f.refusedSince(ref, old.Checked)
	if known && recent(old, policy.TagTTL) {
		if found, ok := f.lastKnown(ref, old, head); ok {
			found.Origin, found.At = oci.Hit, old.Checked
			return found, nil
		}
	}
	wait, cancel := inTime(ctx, ref)
	defer cancel()
	found, err := f.current(wait, ref, key, accept, head, member)
	if err == nil {
		found.Checked = known
		return found, nil
	}
	err = oci.Lateness(ref, err)
	if oci.KindOf(err) == oci.NotFound {
		store.ForgetTag(key)
		return nil, err
	}
	f.heed(ref, err)
	if found, ok := f.stale(ctx, ref, old, known, err, head); ok {
		return found, nil
	}
	return nil, err
}

// current asks what the tag means, and gets that unless it is here.
func (f *Fetcher) current(ctx context.Context, ref oci.Ref, key string, accept []string, head, member bool) (*oci.Found, error) {
	c, joined, err := f.ask(ctx, ref, key, accept, member)
	if err != nil {
		return nil, err
	}
	if c.found != nil {
		found, err := shared(c.found, joined, nil)
		return f.meant(ref, key, found, c.way), err
	}
	way := c.way
	way.Origin, way.Collapsed, way.Host = oci.Miss, way.Collapsed || joined, cmp.Or(way.Host, ref.Registry)
	pinned := ref
	pinned.Digest = c.Digest
	if c.way.Stale == nil {
		f.vouch(pinned, c.way.At) // the registry said then that the repository has it
	}
	if found, ok := f.kept(pinned); ok {
		if c.way.Stale == nil {
			f.vouchParts(pinned, found.MediaType, found.Bytes, c.way.At)
		}
		found.Provenance = way
		return f.meant(ref, key, found, c.way), nil
	}
	if head && c.Size >= 0 && c.MediaType != "" {
		found := &oci.Found{Manifest: oci.Manifest{Digest: c.Digest, MediaType: c.MediaType}, Size: c.Size, Provenance: way}
		if member {
			f.meant(ref, key, found, c.way) // who asks gets the manifest, and verifies it
		}
		// Else nothing is verified, so the tag's last manifest stays what it was.
		return found, nil
	}
	found, err := f.byDigest(ctx, pinned, false, member)
	if err != nil {
		return nil, err
	}
	found.Origin, found.Stale, found.At = oci.Miss, c.way.Stale, c.way.At
	return f.meant(ref, key, found, c.way), nil
}

// ask asks what the tag means, once for all who ask at the time: the owner of
// the tag's key, or if that is this node the registry.
func (f *Fetcher) ask(ctx context.Context, ref oci.Ref, key string, accept []string, member bool) (c checked, joined bool, err error) {
	own := func(ctx context.Context) (checked, error) { return f.check(ctx, ref, accept) }
	if member || alone(f.route(ref.Registry, key)) {
		return f.ownTags.do(ctx, f, key, own)
	}
	return f.tags.do(ctx, f, key, func(ctx context.Context) (checked, error) {
		return along(ctx, f, ref, key,
			func(ctx context.Context) (checked, error) {
				c, _, err := f.ownTags.do(ctx, f, key, own)
				return c, err
			},
			func(ctx context.Context, p mesh.Peer) (checked, error) {
				found, err := p.Tag(ctx, ref, accept)
				if err != nil {
					return checked{}, err
				}
				return checked{Descriptor: oci.Descriptor{Digest: found.Digest, MediaType: found.MediaType, Size: found.Size}, way: found.Provenance}, nil
			})
	})
}

// check asks upstream what a tag means: by HEAD, which costs no pull quota,
// and by GET where HEAD does not tell.
func (f *Fetcher) check(ctx context.Context, ref oci.Ref, accept []string) (checked, error) {
	if f.cfg.Policy(ref.Registry).Offline {
		return checked{}, oci.OfflineError(ref)
	}
	asked := time.Now()
	d, err := f.cfg.Upstream.Stat(ctx, ref, false, accept)
	if err == nil && d.Digest != "" {
		return checked{Descriptor: d, way: oci.Provenance{At: asked}}, nil
	}
	if err != nil && !oci.NoHead(err) {
		return checked{}, err
	}
	found, err := f.fetchManifest(ctx, ref, accept)
	if err != nil {
		return checked{}, err
	}
	return checked{found: found, way: oci.Provenance{At: found.At}}, nil
}

// meant remembers that the tag means a manifest that is verified. What another
// node could not check itself is not news.
func (f *Fetcher) meant(ref oci.Ref, key string, found *oci.Found, told oci.Provenance) *oci.Found {
	if told.Stale != nil {
		return found
	}
	f.cfg.Store(ref.Registry).SetTag(cache.Tag{
		Key: key, Digest: found.Digest, MediaType: found.MediaType, Size: found.Size, Checked: told.At,
	})
	return found
}

// lastKnown is what a tag last meant, if that is still here.
func (f *Fetcher) lastKnown(ref oci.Ref, old cache.Tag, head bool) (*oci.Found, bool) {
	ref.Digest = old.Digest
	if found, ok := f.kept(ref); ok {
		return found, true
	}
	if !head {
		return nil, false
	}
	return &oci.Found{Manifest: oci.Manifest{Digest: old.Digest, MediaType: old.MediaType}, Size: old.Size}, true
}

// stale stands in for a fresh answer while upstream fails in a way that may pass.
func (f *Fetcher) stale(ctx context.Context, ref oci.Ref, old cache.Tag, known bool, err error, head bool) (*oci.Found, bool) {
	e, ok := oci.AsError(err)
	if !known || !ok || !e.Passing() || errors.Is(ctx.Err(), context.Canceled) || time.Since(old.Checked) > f.cfg.Policy(ref.Registry).StaleIfError {
		return nil, false
	}
	found, ok := f.lastKnown(ref, old, head)
	if !ok {
		return nil, false
	}
	f.cfg.Log.Warn("stale manifest served", "registry", ref.Registry, "repository", ref.Repository, "tag", ref.Tag,
		"digest", old.Digest.String(), "checked", old.Checked, "error", err)
	found.Origin, found.Stale, found.At = oci.Hit, e, old.Checked
	return found, true
}
