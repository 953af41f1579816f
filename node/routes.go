package node

import (
	"net/http"
	"path"
	"strings"
)

// A class is who may ask for a URL.
type class int

const (
	public    class = iota // everybody
	probe                  // everybody, by whatever name
	guarded                // who knows a login, if one is asked for
	operators              // who knows a login, or is on this machine where none is asked for
	pullers                // who knows a login, or comes from anonymous_from
)

// An endpoint is one URL, or all below one that ends with a slash.
type endpoint struct {
	pattern string // as http.ServeMux takes it
	class   class
	handler http.Handler
}

// endpoints are every URL that the node answers. There are no others.
func (n *Node) endpoints() []endpoint {
	return []endpoint{
		{"/v2/", pullers, http.HandlerFunc(n.v2)},
		// Probes come by an address, a service's name, or with no Host at all, and
		// learn nothing but how the node does.
		{"GET /_/health", probe, http.HandlerFunc(n.health)},
		{"GET /_/ready", probe, http.HandlerFunc(n.readiness)},
		{"GET /_/stats", guarded, http.HandlerFunc(n.stats)},
		{"GET /_/cluster", guarded, http.HandlerFunc(n.clusterState)},
		{"GET /_/owner/{digest}", guarded, http.HandlerFunc(n.owner)},
		{"GET /_/metrics", guarded, n.metrics()},
		{"POST /_/leave", operators, http.HandlerFunc(n.leave)},
		{"/", public, n.page},
	}
}

// admit puts in front of a handler what its class asks for. /v2/ does that
// itself, since a refusal there has more to say, and takes any name: what it
// serves is the same for all, and no browser runs it.
func (n *Node) admit(rt endpoint) http.Handler {
	h := rt.handler
	switch rt.class {
	case probe, pullers:
		return h
	case guarded:
		h = n.access.guard(h)
	case operators:
		h = n.operator(h)
	case public:
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !n.hosts.allow(r) {
			misdirected(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Handler returns every URL that the node answers.
func (n *Node) Handler() http.Handler {
	mux := http.NewServeMux()
	byPattern := map[string]http.Handler{}
	for _, rt := range n.endpoints() {
		byPattern[rt.pattern] = n.admit(rt)
		mux.Handle(rt.pattern, byPattern[rt.pattern])
	}
	return n.logged(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.budget.busy(r)
		protect(w.Header())
		unread(w, r)
		if reason := misframed(r); reason != "" {
			refuseMisframed(w, reason)
			return
		}
		// The mux would redirect a path that is not clean, and what it led to
		// would depend on who cleans; there is nothing under such a path.
		switch {
		case r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/"):
			byPattern["/v2/"].ServeHTTP(w, r)
		case path.Clean(r.URL.Path) != r.URL.Path:
			byPattern["/"].ServeHTTP(w, r) // which has no such file
		default:
			mux.ServeHTTP(w, r)
		}
	}))
}

// protect says of every answer that a browser must not run it, whatever type a
// registry gave it, nor tell others where it was; the page allows itself more. There is no header that lets
// other origins read anything.
func protect(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Referrer-Policy", "no-referrer")
}
