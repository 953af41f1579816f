package upstream

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"oci-proxy/transfer/oci"
)

// maxNext bounds the query of a link to the next page, in bytes.
const maxNext = 8 << 10

// Tags implements oci.Upstream.
func (c *Client) Tags(ctx context.Context, ref oci.Ref, query url.Values, to oci.Sink) (*oci.Page, error) {
	return c.list(ctx, ref, ask{path: "tags/list", query: query, accept: "application/json"}, maxTags, to)
}

// Referrers implements oci.Upstream.
func (c *Client) Referrers(ctx context.Context, ref oci.Ref, query url.Values, to oci.Sink) (*oci.Page, error) {
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
	a.method, a.repo, a.query = http.MethodGet, ref.Repository, oci.ListQuery(a.query)
	ctx, _, stop := inTime(ctx)
	defer stop()
	sink := &sink{Sink: to}
	page, err := persist(ctx, r.home, func(ctx context.Context) (*oci.Page, error) {
		ans, err := r.do(ctx, a)
		if err != nil {
			return nil, err
		}
		if err := ans.copyTo(ctx, sink, limit); err != nil {
			return nil, err
		}
		if ans.isPage() {
			return nil, ans.wrong(oci.Corrupt, once, aPage)
		}
		if !ans.identity() {
			return nil, ans.wrong(oci.Corrupt, once, "the list was sent compressed")
		}
		return &oci.Page{
			MediaType: ans.mediaType(),
			By:        ans.by(),
			Next:      nextPage(ans.resp.Header.Values("Link")),
			Filters:   printable(ans.resp.Header.Get("OCI-Filters-Applied")),
		}, nil
	})
	if sink.failed != nil {
		return nil, sink.failed
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

// nextPage returns the query of the link to the next page (RFC 8288), nil if there
// is none. The rest of the link does not count: the page is at the same registry.
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
			if q := oci.ListQuery(u.Query()); len(q) > 0 {
				return q
			}
		}
	}
	return nil
}

// relNext reads a link's parameters and reports whether one is rel=next. rest is
// what follows: the links after a comma.
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
