package node

import (
	"net/http"
	"path"
	"strings"

	"oci-proxy/node/gate"
	"oci-proxy/node/metrics"
)

// An endpoint is one URL, or everything below one that ends with a slash.
type endpoint struct {
	pattern string // as http.ServeMux takes it
	class   gate.Class
	handler http.Handler
}

// endpoints are all URLs that the node answers.
func (n *Node) endpoints() []endpoint {
	of := func(f http.HandlerFunc) http.Handler { return f }
	return []endpoint{
		{"/v2/", gate.Pullers, n.api},
		// Probes come by an address, by a service's name or without a Host. They learn
		// nothing but how the node is.
		{"GET /_/health", gate.Probe, of(n.reports.health)},
		{"GET /_/ready", gate.Probe, of(n.reports.readiness)},
		{"GET /_/stats", gate.Guarded, of(n.reports.stats)},
		{"GET /_/cluster", gate.Guarded, of(n.reports.members)},
		{"GET /_/upstreams", gate.Guarded, n.reports.standings},
		{"GET /_/events", gate.Guarded, n.events},
		{"GET /_/owner/{digest}", gate.Guarded, of(n.reports.owner)},
		{"GET /_/metrics", gate.Guarded, n.metrics.Handler(n.reports.snapshot)},
		{"POST /_/leave", gate.Operators, of(n.leave)},
		{"POST /_/forget", gate.Operators, of(n.forget)},
		{"POST /_/doctor", gate.Operators, n.doctor},
		{"POST /_/warm", gate.Operators, n.warmer},
		{"GET /_/images", gate.Guarded, of(n.steward.images)},
		{"GET /_/image", gate.Public, lookup{n.steward}}, // it judges the visitor as a pull does
		{"POST /_/purge", gate.Operators, of(n.steward.purge)},
		{"POST /_/pin", gate.Operators, of(n.steward.pin)},
		{"POST /_/unpin", gate.Operators, of(n.steward.unpin)},
		{"POST /_/verify", gate.Operators, of(n.steward.verify)},
		{"POST /_/import", gate.Operators, &importer{n.fetcher, n.registries, n.gate, n.rules, keptFor(n.cluster), n.log}},
		{"POST /_/reload", gate.Operators, of(func(w http.ResponseWriter, r *http.Request) { answerReload(n, w, r) })},
		// It tells no more than the page does.
		{"GET /_/setup/{client}", gate.Probe, of(func(w http.ResponseWriter, r *http.Request) { n.guide.Load().ServeHTTP(w, r) })},
		{"/", gate.Public, of(func(w http.ResponseWriter, r *http.Request) { (*n.page.Load()).ServeHTTP(w, r) })},
	}
}

// Handler answers all URLs of the node.
func (n *Node) Handler() http.Handler {
	mux := http.NewServeMux()
	byPattern := map[string]http.Handler{}
	for _, e := range n.endpoints() {
		byPattern[e.pattern] = audited(e, n.gate.Guard(e.class, e.handler))
		mux.Handle(e.pattern, byPattern[e.pattern])
	}
	return n.logged(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		if !n.gate.Screen(w, r) || n.looped(w, r) {
			return
		}
		// The mux would redirect a path that is not clean, and what that leads to would
		// depend on who cleans it. There is nothing under such a path.
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

// audited marks requests that change something, refused ones too, with what they ask for:
// the last part of their path.
func audited(e endpoint, h http.Handler) http.Handler {
	if e.class != gate.Operators {
		return h
	}
	action := path.Base(e.pattern)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noteAction(r, action)
		h.ServeHTTP(w, r)
	})
}

// logged logs each request that h answers.
func (n *Node) logged(h http.Handler) http.Handler {
	return requestLog{log: n.log, address: n.gate.Address, id: n.gate.RequestID, counted: func(a metrics.Answer) { countAnswer(n, a) }, label: n.registries.label}.around(h)
}

// protect keeps browsers from running any answer, whatever type a registry gave
// it, and from telling others where it came from. The page allows itself more. No
// header lets other origins read anything.
func protect(h http.Header) {
	h["X-Content-Type-Options"] = noSniffing
	h["Content-Security-Policy"] = noScripts
	h["Referrer-Policy"] = noReferrer
}
