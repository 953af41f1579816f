package upstream

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"oci-proxy/transfer/oci"
)

// listKeys are the query keys that registries page and filter with. No other
// key gets to a registry or back to a client.
var listKeys = []string{"n", "last", "next_page", "page", "page_size", "nextToken", "marker", "artifactType"}

// maxNext bounds the query of a link to a next page.
const maxNext = 8 << 10

// Tags implements transfer.Upstream.
func (c *Client) Tags(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error) {
	return c.list(ctx, ref, ask{path: "tags/list", query: query, accept: "application/json"}, maxTags)
}

// Referrers implements transfer.Upstream.
func (c *Client) Referrers(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error) {
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
	a.method, a.repo, a.query = http.MethodGet, ref.Repository, allowed(a.query)
	ctx, _, stop := inTime(ctx)
	defer stop()
	return persist(ctx, r, func(ctx context.Context) (*oci.Page, error) {
		ans, err := r.do(ctx, a)
		if err != nil {
			return nil, err
		}
		bytes, err := r.read(ctx, ans, limit)
		if err != nil {
			return nil, err
		}
		if ans.isPage() {
			return nil, r.wrong(ans, oci.Corrupt, once, aPage)
		}
		if !identity(ans.resp.Header) {
			return nil, r.wrong(ans, oci.Corrupt, once, "the list came compressed")
		}
		return &oci.Page{
			MediaType: ans.mediaType(),
			Bytes:     bytes,
			By:        ans.by(),
			Next:      nextPage(ans.resp.Header.Values("Link")),
			Filters:   printable(ans.resp.Header.Get("OCI-Filters-Applied")),
		}, nil
	})
}

// allowed returns what of q may be sent on.
func allowed(q url.Values) url.Values {
	kept := url.Values{}
	for _, key := range listKeys {
		if v, ok := q[key]; ok {
			kept[key] = slices.Clone(v)
		}
	}
	return kept
}

// nextPage returns the query of the link to the next page (RFC 8288), nil where
// there is none. Only the query is taken: the page is the same registry's.
func nextPage(links []string) url.Values {
	for _, link := range links {
		for link != "" {
			_, after, ok := strings.Cut(link, "<")
			if !ok {
				break
			}
			target, params, ok := strings.Cut(after, ">")
			if !ok {
				break
			}
			next, rest := relNext(params)
			link = rest
			u, err := url.Parse(target)
			if !next || err != nil || len(u.RawQuery) > maxNext {
				continue
			}
			if q := allowed(u.Query()); len(q) > 0 {
				return q
			}
		}
	}
	return nil
}

// relNext reads a link's parameters and reports whether one is rel=next. rest
// is what follows: the links behind a comma.
func relNext(params string) (next bool, rest string) {
	s := scanner{params}
	for {
		s.skip(" \t;")
		if s.rest == "" || s.rest[0] == ',' || s.rest[0] == '<' {
			return next, s.rest
		}
		name := s.until(" \t,;=<")
		if !s.param() {
			if name == "" {
				s.rest = s.rest[1:]
			}
			continue
		}
		value := s.value(" \t,;")
		if strings.EqualFold(name, "rel") && slices.Contains(strings.Fields(strings.ToLower(value)), "next") {
			next = true
		}
	}
}
