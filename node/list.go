package node

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

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
	list, err := ask(r.Context(), req.Ref, query)
	if err != nil {
		return err
	}
	defer func() { _ = list.Close() }() // only read
	noteWay(r, &list.Provenance)
	h := w.Header()
	h.Set("Cache-Status", list.CacheStatus(a.name, true))
	if list.Marked() {
		h.Set("Warning", fmt.Sprintf(`299 - "stale: the list of %s/%s is the last one before the registry failed"`, req.Registry, req.Repository))
	}
	h.Set("Cache-Control", "no-cache")
	if list.Page.Filters != "" {
		h.Set("OCI-Filters-Applied", list.Page.Filters)
	}
	if list.Page.Next != "" {
		h.Set("Link", nextLink(r.URL.Path, req.NS, list.Page.Next))
	}
	h.Set("Content-Type", mediaType) // never the type that the registry gave
	h.Set("Content-Length", strconv.FormatInt(list.Size, 10))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if err := list.Send(w); err != nil {
		noteFailure(r, err)
	}
	return nil
}

// nextLink is a link to the next page under the path that the client used.
func nextLink(path, ns string, query oci.Query) string {
	u := url.URL{Path: path, RawQuery: query.With(ns)}
	return "<" + u.String() + `>; rel="next"`
}
