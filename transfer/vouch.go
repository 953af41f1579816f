package transfer

import (
	"context"
	"strings"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// What the shard holds of a private registry is served only for a repository
// that the registry vouched for: by answering for that digest there, or by a
// manifest of that repository that lists it. What came from one private
// registry is never unlocked by another's word, which costs an attacker
// nothing: only by its delivering the bytes itself. A refusal of a repository
// (401, 403) ends what was vouched for there before.

// vouchFor is how long a private registry's word is believed. While it fails
// to answer, its last word counts as long as a tag's last manifest does.
const vouchFor = 10 * time.Minute

// admits reports whether what the shard holds under ref's digest may be
// served for ref. If it may not, ref's registry has to deliver it; an error
// says that the registry refused, or could not be asked.
func (f *Fetcher) admits(ctx context.Context, ref oci.Ref, blob bool) (bool, error) {
	store, policy := f.cfg.Store(ref.Registry), f.cfg.Policy(ref.Registry)
	if _, held := store.Stat(ref.Digest); !held || f.foreign(ref) {
		return false, nil
	}
	if !policy.Private {
		return true, nil
	}
	last, known := f.word(ref)
	if known && (policy.Offline || recent(last, vouchFor)) {
		return true, nil
	}
	if policy.Offline {
		return false, oci.OfflineError(ref)
	}
	return f.askVouch(ctx, ref, blob, last, known)
}

// askVouch asks a private registry whether the repository holds the digest.
func (f *Fetcher) askVouch(ctx context.Context, ref oci.Ref, blob bool, last cache.Tag, known bool) (bool, error) {
	key, question := vouchKey(ref), "blob "
	if !blob {
		question = "manifest "
	}
	c, _, err := f.tags.do(ctx, f, question+key, func(ctx context.Context) (checked, error) {
		return direct(ctx, f, ref,
			func(ctx context.Context) (checked, error) {
				asked := time.Now()
				_, err := f.cfg.Upstream.Stat(ctx, ref, blob, oci.ManifestTypes)
				return checked{way: oci.Provenance{At: asked}}, err
			},
			func(ctx context.Context, p mesh.Peer) (checked, error) { return vouchOf(ctx, p, ref, blob) })
	})
	err = oci.Lateness(ref, err)
	e, isError := oci.AsError(err)
	switch {
	case err == nil:
		f.vouch(ref, c.way.At)
		return true, nil
	case !isError:
		return false, err
	case e.Passing() && known && recent(last, f.cfg.Policy(ref.Registry).StaleIfError):
		return true, nil
	case oci.NoHead(err), blob && e.Kind == oci.NotFound:
		return false, nil // some answer 404 to a HEAD of what a GET finds
	case e.Kind == oci.NotFound || e.Kind == oci.Denied:
		f.cfg.Store(ref.Registry).ForgetTag(key)
	}
	return false, err
}

// vouchOf asks another node, which may ask the registry, whether that vouches.
func vouchOf(ctx context.Context, p mesh.Peer, ref oci.Ref, blob bool) (checked, error) {
	if blob {
		_, way, err := p.Stat(ctx, ref)
		return checked{way: way}, err
	}
	found, err := p.Manifest(ctx, ref, mesh.Terms{})
	if err != nil {
		return checked{}, err
	}
	return checked{way: found.Provenance}, nil
}

// vouch remembers that ref's registry, if it is private, vouched for ref then.
// Zero stands for never.
func (f *Fetcher) vouch(ref oci.Ref, then time.Time) {
	if then.IsZero() || !f.cfg.Policy(ref.Registry).Private {
		return
	}
	store := f.cfg.Store(ref.Registry)
	if _, known := store.Tag(refusedKey(ref)); !known { // never refused yet
		store.SetTag(cache.Tag{Key: refusedKey(ref), Digest: ref.Digest})
	}
	if last, known := store.Tag(vouchKey(ref)); known && last.Checked.After(then) && !last.Checked.After(time.Now()) {
		return // it has said so again since
	}
	store.SetTag(cache.Tag{Key: vouchKey(ref), Digest: ref.Digest, Checked: then})
}

// word returns when ref's registry last vouched for ref, if it did and has not
// refused the repository since.
func (f *Fetcher) word(ref oci.Ref) (cache.Tag, bool) {
	last, known := f.cfg.Store(ref.Registry).Tag(vouchKey(ref))
	return last, known && !f.refusedSince(ref, last.Checked)
}

// wordAt is when ref's registry last vouched for ref, zero if it need not or
// never did.
func (f *Fetcher) wordAt(ref oci.Ref) time.Time {
	if !f.cfg.Policy(ref.Registry).Private {
		return time.Time{}
	}
	last, _ := f.word(ref)
	return last.Checked
}

// arrived remembers that ref's registry delivered what the shard has from
// another, private one, and that it vouched for it at that time: it may have
// refused the repository since.
func (f *Fetcher) arrived(ref oci.Ref, at time.Time) {
	store := f.cfg.Store(ref.Registry)
	if origin, held := store.Origin(ref.Digest); held && origin != ref.Registry && f.guarded(origin) {
		store.SetTag(cache.Tag{Key: deliveredKey(ref), Digest: ref.Digest, Checked: time.Now()})
	}
	f.vouch(ref, at)
}

// foreign reports whether the shard has ref's digest from another registry
// that is private, and ref's own has not delivered it.
func (f *Fetcher) foreign(ref oci.Ref) bool {
	origin, held := f.cfg.Store(ref.Registry).Origin(ref.Digest)
	return held && origin != ref.Registry && f.guarded(origin) && !f.delivered(ref)
}

// guarded reports whether what a registry brought is not for others: it is
// private, or nobody can tell which it was.
func (f *Fetcher) guarded(origin string) bool { return origin == "" || f.cfg.Policy(origin).Private }

// vouched reports whether ref's registry needs not, or did not long ago, vouch
// for ref.
func (f *Fetcher) vouched(ref oci.Ref) bool {
	if !f.cfg.Policy(ref.Registry).Private {
		return true
	}
	last, known := f.word(ref)
	return known && recent(last, vouchFor)
}

// recent reports whether t was checked within d. A negative age is that of a
// clock that was set back: it proves nothing.
func recent(t cache.Tag, d time.Duration) bool {
	age := time.Since(t.Checked)
	return age >= 0 && age < d
}

// delivered reports whether ref's registry has delivered the bytes itself.
func (f *Fetcher) delivered(ref oci.Ref) bool {
	_, ok := f.cfg.Store(ref.Registry).Tag(deliveredKey(ref))
	return ok
}

// vouchParts remembers that a private registry vouched then for what a manifest
// of ref's repository lists: its config, layers and manifests.
func (f *Fetcher) vouchParts(ref oci.Ref, mediaType string, manifest []byte, then time.Time) {
	if !f.cfg.Policy(ref.Registry).Private {
		return
	}
	for _, p := range oci.Parts(mediaType, manifest) {
		f.vouch(oci.Ref{Registry: ref.Registry, Repository: ref.Repository, Digest: p.Digest}, then)
	}
}

// The keys of vouchers among the tags. No part of a ref holds a space, and no
// tag's key begins like these.
func vouchKey(ref oci.Ref) string {
	return strings.Join([]string{"?vouched", ref.Registry, ref.Repository, ref.Digest.String()}, " ")
}

func refusedKey(ref oci.Ref) string {
	return strings.Join([]string{cache.Kept + "refused", ref.Registry, ref.Repository}, " ")
}

func deliveredKey(ref oci.Ref) string {
	return strings.Join([]string{"?delivered", ref.Registry, ref.Digest.String()}, " ")
}
