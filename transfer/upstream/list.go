package upstream

import (
	"context"
	"net/http"

	"oci-proxy/transfer/oci"
)

// Tags implements oci.Upstream.
func (c *Client) Tags(ctx context.Context, ref oci.Ref, query oci.Query) (*oci.Page, error) {
	return c.list(ctx, ref, ask{path: "tags/list", query: query, accept: "application/json"}, maxTags)
}

// Referrers implements oci.Upstream.
func (c *Client) Referrers(ctx context.Context, ref oci.Ref, query oci.Query) (*oci.Page, error) {
	a := ask{
		path: "referrers/" + ref.Digest.String(), query: query,
		accept: "application/vnd.oci.image.index.v1+json",
	}
	return c.list(ctx, ref, a, maxReferrers)
}

// list gets a page of at most limit bytes.
func (c *Client) list(ctx context.Context, ref oci.Ref, a ask, limit int64) (*oci.Page, error) {
	r, err := c.asking(ref)
	if err != nil {
		return nil, err
	}
	a.method, a.repo, a.budget = http.MethodGet, ref.Repository, newBudget()
	ctx, _, stop := inTime(ctx)
	defer stop()
	return persist(ctx, r.home, a.budget, func(ctx context.Context) (*oci.Page, error) {
		ans, err := r.do(ctx, a)
		if err != nil {
			return nil, err
		}
		bytes, err := ans.read(ctx, limit)
		if err != nil {
			return nil, err
		}
		if ans.isPage() {
			return nil, ans.wrong(oci.Corrupt, once, aPage)
		}
		if !ans.identity() {
			return nil, ans.wrong(oci.Corrupt, once, "the list can't be read: "+ans.coding())
		}
		next, f := ans.next(a)
		if f != nil {
			return nil, f
		}
		return &oci.Page{
			MediaType: ans.mediaType(),
			Bytes:     bytes,
			By:        ans.by(),
			Next:      next,
			Filters:   printable(ans.resp.Header.Get("OCI-Filters-Applied")),
		}, nil
	})
}
