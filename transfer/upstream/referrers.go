package upstream

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"oci-proxy/transfer/oci"
)

// withoutReferrers returns what err, which asking for referrers of ref ended with, means to a
// client. Registries without these lists answer in many ways, and clients look for the tag
// that stands in only after a 404 (OCI distribution 1.1, "Listing Referrers"). So where a
// registry, or what stands before it, does not know the path, the error is of kind NotFound.
func (r referred) withoutReferrers(ctx context.Context, err error) error {
	e, ok := errors.AsType[*oci.Error](err)
	if !ok || !unknowsPath(e) || e.By != oci.Registry && !r.answers(ctx) {
		return err
	}
	e.Kind, e.Reason = oci.NotFound, "the registry has no lists of referrers: "+e.Reason
	return e
}

// A referred manifest is one whose referrers were asked for.
type referred struct {
	registry *registry
	ref      oci.Ref
	budget   *budget // of that question
}

// unknowsPath reports whether an answer may mean that a server does not know a path, or not
// for GET: Artifactory says 406, Quay 400, and some answer any path with the page of their
// user interface. GHCR redirects to a page of github.com that is not there, or refuses.
func unknowsPath(e *oci.Error) bool {
	switch e.By {
	case oci.Registry:
		return slices.Contains([]int{400, 404, 405, 406, 501}, e.Status)
	case oci.Middlebox:
		return slices.Contains([]int{200, 400, 404, 405, 406, 410, 501}, e.Status)
	case oci.Storage:
		return e.Status >= 400 && e.Status < 500
	default:
		return false
	}
}

// answers reports whether the registry itself answers for the manifest, be it that there is
// none. Then what answered for its referrers is no outage.
func (r referred) answers(ctx context.Context) bool {
	if r.budget.spent() {
		return false
	}
	a := askManifest(r.ref, nil)
	a.method, a.budget = http.MethodHead, r.budget
	ctx, cancel := context.WithTimeoutCause(ctx, headTimeout, errTry)
	defer cancel()
	ans, err := r.registry.do(ctx, a)
	if err != nil {
		return false
	}
	defer ans.discard()
	named := ans.digest() == r.ref.Digest || ans.resp.Header.Get("Docker-Distribution-Api-Version") != ""
	return ans.by() == oci.Registry && (ans.isWhole() && named || ans.is(http.StatusNotFound))
}
