package upstream

import (
	"context"
	"errors"
	"net/http"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// Stat implements oci.Upstream. It asks by HEAD, which costs no pull quota. Many
// servers answer HEAD worse than GET: they refuse it, or redirect to a link that is
// signed for GET alone. So only what a HEAD plainly tells counts, and in all other
// cases one GET decides: of the manifest, or of a blob's first byte.
func (c *Client) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	r, err := c.asking(ref)
	if err != nil {
		return oci.Descriptor{}, err
	}
	ctx, _, stop := inTime(ctx)
	defer stop()
	if blob {
		return r.statBlob(ctx, ref)
	}
	return r.statManifest(ctx, ref, accept)
}

// statManifest tells what ref means. The Descriptor has the manifest if it took a GET
// to learn that.
func (r *registry) statManifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Descriptor, error) {
	a := askManifest(ref, accept)
	h, err := r.head(ctx, a, func(ans *answer) headed { return manifestHead(ans, ref.Digest) })
	if err != nil || h.told {
		return h.Descriptor, err
	}
	m, err := r.manifest(ctx, a, ref.Digest)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return oci.Descriptor{Digest: m.Digest, MediaType: m.MediaType, Size: int64(len(m.Bytes)), By: m.By, Manifest: &m}, nil
}

// statBlob tells whether the registry has ref's blob, and its size if it tells that.
func (r *registry) statBlob(ctx context.Context, ref oci.Ref) (oci.Descriptor, error) {
	a := ask{
		method: http.MethodGet, repo: ref.Repository, path: "blobs/" + ref.Digest.String(),
		handOver: !r.followRedirects, budget: newBudget(),
	}
	h, err := r.head(ctx, a, blobHead)
	if err != nil || h.told {
		return h.Descriptor, err
	}
	a.length = 1 // its header is what counts
	return persist(ctx, r.home, a.budget, func(ctx context.Context) (oci.Descriptor, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, tryTimeout, errTry)
		defer cancel()
		ans, err := r.do(ctx, a)
		if err != nil {
			return oci.Descriptor{}, err
		}
		return firstByte(ans, ref.Digest)
	})
}

// headed is what a HEAD told.
type headed struct {
	oci.Descriptor
	told bool // enough; if not, a GET decides
}

// head sends a as a HEAD; read says what a success tells. An error says that no GET
// would fare better: nothing answers, there is no token, or the registry says for how long
// it answers nothing. Without that, its limit may be one of HEADs.
func (r *registry) head(ctx context.Context, a ask, read func(*answer) headed) (headed, error) {
	a.method = http.MethodHead
	a.budget.kept = 1 // for the GET
	defer func() { a.budget.kept = 0 }()
	h, err := persist(ctx, r.home, a.budget, func(ctx context.Context) (headed, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, headTimeout, errTry)
		defer cancel()
		ans, err := r.do(ctx, a)
		if f, ok := errors.AsType[*failure](err); ok && f.getDecides() {
			return headed{}, nil
		}
		if err != nil {
			return headed{}, err
		}
		defer func() { _ = ans.resp.Body.Close() }() // a HEAD's body is empty
		if ans.is(http.StatusTooManyRequests, http.StatusLoopDetected) {
			return headed{}, ans.refused()
		}
		return read(ans), nil
	})
	if e, ok := oci.AsError(err); ok && e.Kind == oci.Limited && e.By != oci.TokenServer && e.RetryAfter == 0 {
		return headed{}, nil
	}
	return h, err
}

// getDecides reports whether a GET may fare better than the HEAD that failed so: the
// registry refused it, or broke off.
func (f *failure) getDecides() bool {
	switch {
	case f.By == oci.TokenServer, f.Kind == oci.Limited, f.Kind == oci.Looped, f.Kind == oci.Busy:
		return false
	case f.Status != 0:
		return true
	default:
		return f.again == patiently && !f.Unreached
	}
}

// manifestHead returns what a HEAD tells of a manifest. want is the digest asked for,
// "" for a tag: then the digest is all that matters.
func manifestHead(a *answer, want digest.Digest) headed {
	d := oci.Descriptor{Digest: a.digest(), MediaType: a.mediaType(), Size: a.resp.ContentLength, By: a.by()}
	if !a.identity() || d.Size == 0 {
		d.Size = -1 // no manifest is empty: some servers say 0 if they do not know the size
	}
	fits := d.Digest == want || d.Digest == "" && (d.Size > 0 || a.isMarked())
	if want == "" {
		fits = d.Digest != ""
	}
	switch {
	case a.isWhole() && d.By != oci.Middlebox:
		return headed{d, fits}
	case d.Digest != "" && (a.asked == oci.Storage || a.redirects() && d.By == oci.Registry): // the registry's redirect names it
		d.MediaType, d.Size = "", -1
		return headed{d, fits}
	default:
		return headed{}
	}
}

// blobHead returns what a HEAD tells of a blob. One with nothing in it may come from
// anything on the way.
func blobHead(a *answer) headed {
	switch {
	case a.redirect != nil:
		return headed{oci.Descriptor{Size: -1, By: a.by(), Redirect: a.location()}, true}
	case a.isWhole() && a.by() != oci.Middlebox && a.identity() && (a.resp.ContentLength > 0 || a.resp.ContentLength == 0 && (a.isMarked() || a.digest() != "")):
		return headed{oci.Descriptor{Digest: a.digest(), MediaType: a.mediaType(), Size: a.resp.ContentLength, By: a.by()}, true}
	default:
		return headed{}
	}
}

// firstByte reads the answer to a GET of the first byte of the blob that want names, and
// closes it.
func firstByte(a *answer, want digest.Digest) (oci.Descriptor, error) {
	if a.redirect != nil {
		return oci.Descriptor{Size: -1, By: a.by(), Redirect: a.location()}, nil
	}
	d := oci.Descriptor{Digest: a.digest(), MediaType: a.mediaType(), Size: -1, By: a.by()}
	switch {
	case d.By == oci.Middlebox && a.resp.StatusCode < 300:
		a.discard()
		return d, a.wrong(oci.Corrupt, once, aPage)
	case a.isWhole() && a.resp.ContentLength == 0 && !a.isMarked() && want != want.Algorithm().FromBytes(nil):
		a.discard()
		return d, a.wrong(oci.Corrupt, once, "the answer is empty, and the blob is not")
	case a.isWhole():
		d.Size = a.resp.ContentLength
	case a.is(http.StatusPartialContent):
		_, _, d.Size, _ = contentRange(a.resp.Header.Get("Content-Range"))
	case a.is(http.StatusRequestedRangeNotSatisfiable) && a.resp.Header.Get("Content-Range") == "bytes */0":
		d.Size = 0
	default:
		return oci.Descriptor{}, a.refused()
	}
	_ = a.resp.Body.Close() // the rest is not wanted
	if !a.identity() {
		d.Size = -1
	}
	return d, nil
}
