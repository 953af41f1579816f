package upstream

import (
	"context"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// Limits of what is read into memory.
const (
	maxManifest  = 4 << 20
	maxTags      = 32 << 20
	maxReferrers = 4 << 20
)

// aPage is the reason of a failure where a page came in place of a document.
const aPage = "the answer is a page for people, not from a registry"

// notAManifest is the reason of a failure where something else came in its place.
const notAManifest = "the answer is not a manifest: it is empty, cut short or of no known form"

// manifestPath returns the path, below the repository, of the manifest that ref
// names.
func manifestPath(ref oci.Ref) string {
	if ref.Digest != "" {
		return "manifests/" + ref.Digest.String()
	}
	return "manifests/" + ref.Tag
}

// Manifest implements oci.Upstream. If the bytes do not match the digest asked for,
// or the one that upstream names, it asks once more. If they are wrong again, the
// error is of kind Corrupt.
func (c *Client) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	r, err := c.asking(ref)
	if err != nil {
		return oci.Manifest{}, err
	}
	ctx, _, stop := inTime(ctx)
	defer stop()
	return r.manifest(ctx, askManifest(ref, accept), ref.Digest)
}

// askManifest is the request for the manifest that ref names.
func askManifest(ref oci.Ref, accept []string) ask {
	return ask{
		method: http.MethodGet, repo: ref.Repository, path: manifestPath(ref),
		accept: strings.Join(accept, ", "), budget: newBudget(),
	}
}

// manifest asks for a manifest as often as its budget allows.
func (r *registry) manifest(ctx context.Context, a ask, want digest.Digest) (oci.Manifest, error) {
	return persist(ctx, r.home, a.budget, func(ctx context.Context) (oci.Manifest, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, tryTimeout, errTry)
		defer cancel()
		return r.manifestOnce(ctx, a, want)
	})
}

// manifestOnce asks for a manifest once.
func (r *registry) manifestOnce(ctx context.Context, a ask, want digest.Digest) (m oci.Manifest, err error) {
	ans, err := r.do(ctx, a)
	if err != nil {
		return m, err
	}
	bytes, err := read(ctx, ans, maxManifest)
	if err != nil {
		return m, err
	}
	if ans.isPage() && want == "" {
		return m, ans.wrong(oci.Corrupt, once, aPage)
	}
	d, reason := verify(bytes, want, ans.digest(), ans.identity())
	if reason == "" && want == "" && !oci.IsManifest(ans.mediaType(), bytes) && (ans.digest() == "" || !oci.MayBeManifest(bytes)) {
		reason = notAManifest
	}
	if reason != "" {
		if !ans.identity() {
			reason += ": " + ans.coding()
		}
		return m, ans.wrong(oci.Corrupt, once, reason)
	}
	return oci.Manifest{Digest: d, MediaType: ans.mediaType(), Bytes: bytes, By: ans.by()}, nil
}

// verify returns the digest of a manifest's bytes, or what is wrong with them. want
// is the digest asked for and told the one that upstream names; each may be "". We
// ask for plain bytes. If something on the way has compressed them, only a digest
// can show that they are right.
func verify(bytes []byte, want, told digest.Digest, plain bool) (_ digest.Digest, reason string) {
	switch {
	case want != "" && !checkable(want):
		return "", "the manifest's digest is of an algorithm that is not supported"
	case want != "" && !oci.Matches(want, bytes):
		return "", "the manifest does not match its digest"
	case told != "" && !oci.Matches(told, bytes):
		return "", "the manifest does not match its Docker-Content-Digest"
	case want != "":
		return want, ""
	case told != "":
		return told, ""
	case !plain:
		return "", "the manifest can't be read"
	}
	return oci.DigestOf(bytes), ""
}
