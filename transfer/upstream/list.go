package upstream

import (
	"cmp"
	"context"
	"net/http"

	"oci-proxy/transfer/oci"
)

// Tags implements oci.Upstream.
func (c *Client) Tags(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return c.list(ctx, ref, ask{path: "tags/list", query: query, accept: "application/json"}, maxTags, to)
}

// Referrers implements oci.Upstream.
func (c *Client) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	a := ask{
		path: "referrers/" + ref.Digest.String(), query: query,
		accept: "application/vnd.oci.image.index.v1+json",
	}
	return c.list(ctx, ref, a, maxReferrers, to)
}

// list gets a page of at most limit bytes.
func (c *Client) list(ctx context.Context, ref oci.Ref, a ask, limit int64, to oci.Sink) (*oci.Page, error) {
	r, err := c.asking(ref)
	if err != nil {
		return nil, err
	}
	a.method, a.repo, a.budget = http.MethodGet, ref.Repository, newBudget()
	ctx, _, stop := inTime(ctx)
	defer stop()
	sink := &sink{Sink: to}
	page, err := persist(ctx, r.home, a.budget, func(ctx context.Context) (*oci.Page, error) {
		ans, err := r.do(ctx, a)
		if err != nil {
			return nil, err
		}
		if err := copyTo(ctx, ans, sink, limit); err != nil {
			return nil, cmp.Or(sink.failed, err)
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
			By:        ans.by(),
			Next:      next,
			Filters:   printable(ans.resp.Header.Get("OCI-Filters-Applied")),
		}, nil
	})
	switch {
	case sink.failed != nil:
		return nil, sink.failed
	case ref.Digest != "":
		err = referred{r, ref, a.budget}.withoutReferrers(ctx, err)
	}
	return page, err
}

// A sink remembers how writing failed: then it was not the registry.
type sink struct {
	oci.Sink
	failed error
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.Sink.Write(p)
	if err != nil {
		s.failed = err
	}
	return n, err
}
