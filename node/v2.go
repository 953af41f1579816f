package node

import (
	"encoding/json"
	"net/http"
	"net/url"
	"oci-proxy/transfer/oci"
	"strconv"
	"strings"
)

// v2 answers a request of the registry API.
func (n *Node) v2(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	var who client
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, http.StatusMethodNotAllowed, ociError{Code: "UNSUPPORTED", Message: "this is a cache: push to the registry itself"})
		return
	case !n.access.anonymously(r):
		v := n.access.judge(r)
		if !v.ok {
			n.access.refuse(w, r, v)
			return
		}
		who.user = v.user
	}
	if r.URL.Path == "/v2" || r.URL.Path == "/v2/" {
		n.ping(w)
		return
	}
	req, err := oci.ParsePath(r.URL.EscapedPath(), r.URL.Query().Get("ns"), n.names)
	if err != nil {
		n.fail(w, r, req.Resource, err)
		return
	}
	n.pulls.begin()
	defer n.pulls.end()
	who.from = network(n.access.client(r))
	noteRef(r, &req.Ref)
	if req.NS != "" {
		w.Header().Set("OCI-Namespace", req.Registry)
	}
	if err := n.allowed(req.Registry); err != nil {
		n.fail(w, r, req.Resource, err)
		return
	}
	end, err := n.budget.begin(r.Context(), who)
	if err != nil {
		n.fail(w, r, req.Resource, err)
		return
	}
	defer end()
	if err := n.answer(w, r, req); err != nil {
		n.fail(w, r, req.Resource, err)
	}
}

// answer answers a request that is understood and allowed. An error means that
// nothing has been written.
func (n *Node) answer(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	switch req.Resource {
	case oci.BlobResource:
		if r.Method == http.MethodHead {
			return n.headBlob(w, r, req)
		}
		return n.getBlob(w, r, req)
	case oci.TagsResource, oci.ReferrersResource:
		return n.list(w, r, req)
	default:
		return n.manifest(w, r, req)
	}
}

// allowed refuses registries that are not listed, in whitelist_mode.
func (n *Node) allowed(registry string) error {
	if !n.asks(registry) {
		return &oci.Error{Kind: oci.Denied, Registry: registry, Reason: "the registry is not among those this proxy serves (whitelist_mode)"}
	}
	return nil
}

// asks reports whether this node may ask the registry at all, by its config.
func (n *Node) asks(registry string) bool { return !n.cfg.WhitelistMode || n.configured(registry) }

// configured reports whether this node is configured for the registry.
func (n *Node) configured(registry string) bool {
	_, yes := n.cfg.Registry(registry)
	return yes
}

// ping answers /v2/ without asking anyone: clients give up where it fails.
func (n *Node) ping(w http.ResponseWriter) {
	body, err := json.Marshal(n.totals())
	if err != nil {
		body = []byte("{}") // numbers: can't be
	}
	writeBody(w, "application/json", body)
}

// writeBody writes a whole answer.
func writeBody(w http.ResponseWriter, mediaType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client may have gone; net/http leaves the body of a HEAD out
}

// list answers a listing of tags or referrers with upstream's bytes, its link
// to the next page leading back to us.
func (n *Node) list(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	ask, mediaType := n.fetcher.Tags, "application/json"
	if req.Resource == oci.ReferrersResource {
		ask, mediaType = n.fetcher.Referrers, "application/vnd.oci.image.index.v1+json"
	}
	p, err := ask(r.Context(), req.Ref, oci.ListQuery(r.URL.Query()))
	if err != nil {
		return err
	}
	noteWay(r, &oci.Provenance{Host: req.Registry})
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	if p.Filters != "" {
		h.Set("OCI-Filters-Applied", p.Filters)
	}
	if p.Next != nil {
		h.Set("Link", nextLink(r.URL.Path, req.NS, p.Next))
	}
	writeBody(w, mediaType, p.Bytes) // and no other, whatever the registry says
	return nil
}

// nextLink is a link to the next page under the path that the client used.
func nextLink(path, ns string, query url.Values) string {
	if ns != "" {
		query.Set("ns", ns)
	}
	u := url.URL{Path: path, RawQuery: query.Encode()}
	return "<" + u.String() + `>; rel="next"`
}

// accepted takes the client's Accept lines apart: some clients send one line
// for each type, others one for all.
func accepted(h http.Header) []string {
	var out []string
	for _, line := range h.Values("Accept") {
		for t := range strings.SplitSeq(line, ",") {
			t, _, _ = strings.Cut(t, ";")
			if t = strings.ToLower(strings.TrimSpace(t)); t != "" {
				out = append(out, t)
			}
		}
	}
	return out
}
