package upstream

import (
	"context"
	"io"
	"net/http"
	"strings"

	"oci-proxy/transfer/oci"

	"github.com/opencontainers/go-digest"
)

// Limits of what is read whole.
const (
	maxManifest  = 4 << 20
	maxTags      = 32 << 20
	maxReferrers = 4 << 20
)

// manifestPath returns the path below the repository of the manifest ref names.
func manifestPath(ref oci.Ref) string {
	if ref.Digest != "" {
		return "manifests/" + ref.Digest.String()
	}
	return "manifests/" + ref.Tag
}

// Manifest implements transfer.Upstream. Bytes that are not those of the digest
// asked for, or of the one that upstream names, are asked for once more and
// then an error of kind Corrupt.
func (c *Client) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	r, err := c.asking(ref)
	if err != nil {
		return oci.Manifest{}, err
	}
	a := ask{method: http.MethodGet, repo: ref.Repository, path: manifestPath(ref), accept: strings.Join(accept, ", ")}
	ctx, _, stop := inTime(ctx)
	defer stop()
	return persist(ctx, r, func(ctx context.Context) (oci.Manifest, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, tryCap, errTry)
		defer cancel()
		return r.manifest(ctx, a, ref.Digest)
	})
}

// manifest asks for a manifest once.
func (r *registry) manifest(ctx context.Context, a ask, want digest.Digest) (m oci.Manifest, err error) {
	ans, err := r.do(ctx, a)
	if err != nil {
		return m, err
	}
	bytes, err := r.read(ctx, ans, maxManifest)
	if err != nil {
		return m, err
	}
	if ans.isPage() && want == "" {
		return m, r.wrong(ans, oci.Corrupt, once, aPage)
	}
	d, reason := verify(bytes, want, told(ans), identity(ans.resp.Header))
	if reason != "" {
		return m, r.wrong(ans, oci.Corrupt, once, reason)
	}
	return oci.Manifest{Digest: d, MediaType: ans.mediaType(), Bytes: bytes, By: ans.by()}, nil
}

// verify returns the digest of a manifest's bytes, or what is wrong with them.
// want is the digest asked for, told the one that upstream names, each may be
// "". Bytes that something on the way has compressed, though we ask for them
// plain, are right only if a digest says so.
func verify(bytes []byte, want, told digest.Digest, plain bool) (_ digest.Digest, reason string) {
	switch {
	case want != "" && !checkable(want):
		return "", "the digest's algorithm is not known here"
	case want != "" && want.Algorithm().FromBytes(bytes) != want:
		return "", "the manifest is not the one that its digest names"
	case told != "" && told.Algorithm().FromBytes(bytes) != told:
		return "", "the manifest is not the one that Docker-Content-Digest names"
	case want != "":
		return want, ""
	case told != "":
		return told, ""
	case !plain:
		return "", "the manifest came compressed"
	}
	return digest.FromBytes(bytes), ""
}

// read returns the body of a 200, at most limit bytes, and closes the answer.
func (r *registry) read(ctx context.Context, ans *answer, limit int64) ([]byte, error) {
	resp := ans.resp
	if resp.StatusCode != http.StatusOK {
		return nil, r.declined(ans)
	}
	defer resp.Body.Close()
	if resp.ContentLength > limit {
		return nil, r.tooLarge(ans)
	}
	bytes, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, r.broken(resp.Request.WithContext(ctx), &trip{}, err)
	}
	if int64(len(bytes)) > limit {
		return nil, r.tooLarge(ans)
	}
	return bytes, nil
}

// tooLarge is the failure of an answer over its limit.
func (r *registry) tooLarge(ans *answer) *failure {
	return r.wrong(ans, oci.Unavailable, never, "the answer is too large")
}

// aPage is the reason of a failure where a page came in place of a document.
const aPage = "the answer is a page for people"

// mediaType returns the Content-Type. Stores that a registry redirects to often
// do not know the type of what they hold; then the registry's own word counts,
// if it is about the manifest and not about the redirect's page.
func (a *answer) mediaType() string {
	last := a.resp.Header.Get("Content-Type")
	if a.before == nil || last != "" && last != "application/octet-stream" && last != "binary/octet-stream" {
		return last
	}
	if first := a.before.Get("Content-Type"); strings.HasPrefix(first, "application/vnd.") {
		return first
	}
	return last
}
