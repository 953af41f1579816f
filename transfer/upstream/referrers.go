package upstream

import (
	"context"
	"errors"
	"net/http"

	"oci-proxy/transfer/oci"
)

// Referrers implements oci.Upstream. Registries without this list answer in many ways, and
// clients look for the tag that stands in for it only after a 404 (OCI distribution 1.1,
// "Listing Referrers"). So an answer by which a registry, or what stands before it, says
// that it does not know the path is an error of kind NotFound.
func (c *Client) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	r, err := c.asking(ref)
	if err != nil {
		return nil, err
	}
	a := ask{
		repo: ref.Repository, path: "referrers/" + ref.Digest.String(), query: query,
		accept: "application/vnd.oci.image.index.v1+json", budget: newBudget(),
	}
	ctx, _, stop := inTime(ctx)
	defer stop()
	page, err := r.list(ctx, a, maxReferrers, to)
	e, ok := errors.AsType[*oci.Error](err)
	if !ok || !unknowsPath(e) || e.By != oci.Registry && !r.answersFor(ctx, ref, a.budget) {
		return page, err
	}
	e.Kind, e.Reason = oci.NotFound, "the registry has no lists of referrers: "+e.Reason
	return nil, e
}

// unknowsPath reports whether an answer may mean that a server does not know a path, or not
// for GET: Artifactory says 406, Quay 400, and some answer any path with the page of their
// user interface.
func unknowsPath(e *oci.Error) bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
		return e.By == oci.Registry || e.By == oci.Middlebox
	case http.StatusOK:
		return e.By == oci.Middlebox
	default:
		return false
	}
}

// answersFor reports whether the registry itself answers for ref's manifest, be it that
// there is none. Then what answers for its referrers is no outage.
func (r *registry) answersFor(ctx context.Context, ref oci.Ref, b *budget) bool {
	if b.spent() {
		return false
	}
	a := askManifest(ref, nil)
	a.method, a.budget = http.MethodHead, b
	ctx, cancel := context.WithTimeoutCause(ctx, headTimeout, errTry)
	defer cancel()
	ans, err := r.do(ctx, a)
	if err != nil {
		return false
	}
	defer ans.discard()
	named := ans.digest() == ref.Digest || ans.resp.Header.Get("Docker-Distribution-Api-Version") != ""
	return ans.by() == oci.Registry && (ans.isWhole() && named || ans.is(http.StatusNotFound))
}
