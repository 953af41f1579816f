package node

import (
	"net/http"
	"path"
	"strings"
)

// Handler returns every URL that the node answers.
func (n *Node) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_/health", n.health)
	mux.HandleFunc("GET /_/ready", n.readiness)
	mux.Handle("GET /_/stats", n.access.guard(http.HandlerFunc(n.stats)))
	mux.Handle("GET /_/cluster", n.access.guard(http.HandlerFunc(n.clusterState)))
	mux.Handle("GET /_/owner/{digest}", n.access.guard(http.HandlerFunc(n.owner)))
	mux.Handle("POST /_/leave", n.operator(n.leave))
	mux.Handle("GET /_/metrics", n.access.guard(n.metrics()))
	mux.Handle("/", n.page)
	return n.logged(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		unread(w, r)
		if reason := misframed(r); reason != "" {
			refuseMisframed(w, reason)
			return
		}
		// The mux would redirect a path that is not clean, and what it led to
		// would depend on who cleans; there is nothing under such a path.
		if r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/") {
			n.v2(w, r)
			return
		}
		if path.Clean(r.URL.Path) != r.URL.Path {
			n.page.ServeHTTP(w, r) // which has no such file
			return
		}
		mux.ServeHTTP(w, r)
	}))
}
