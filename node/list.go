package node

import (
	"fmt"
	"net/http"
	"net/url"

	"oci-proxy/node/reply"
	"oci-proxy/transfer/oci"
)

// list answers a listing of tags or referrers with upstream's bytes. The link to
// the next page leads back here.
func (a *api) list(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	ask, mediaType := a.fetcher.Tags, "application/json"
	if req.Resource == oci.ReferrersResource {
		ask, mediaType = a.fetcher.Referrers, "application/vnd.oci.image.index.v1+json"
	}
	query := oci.ListQuery(r.URL.RawQuery)
	if len(query) > oci.MaxQuery {
		return &oci.PathError{Code: "UNSUPPORTED", Reason: fmt.Sprintf("the query is longer than %d bytes", oci.MaxQuery)}
	}
	p, err := ask(r.Context(), req.Ref, query)
	if err != nil {
		return err
	}
	noteWay(r, &oci.Provenance{Host: req.Registry})
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	if p.Filters != "" {
		h.Set("OCI-Filters-Applied", p.Filters)
	}
	if p.Next != "" {
		h.Set("Link", nextLink(r.URL.Path, req.NS, p.Next))
	}
	reply.Body(w, mediaType, p.Bytes) // never the type that the registry gave
	return nil
}

// nextLink is a link to the next page under the path that the client used.
func nextLink(path, ns string, query oci.Query) string {
	u := url.URL{Path: path, RawQuery: query.With(ns)}
	return "<" + u.String() + `>; rel="next"`
}
