package node

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"oci-proxy/node/metrics"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// countAnswer counts an answer to a client, also for those who watch.
func countAnswer(n *Node, a metrics.Answer) {
	n.metrics.Answered(a)
	if a.Pull && a.Code < http.StatusBadRequest {
		n.events.live.Answered(a.First)
	}
}

// answer is what is counted of a request that was answered.
func (l requestLog) answer(r *http.Request, rec *record, w *wire.Paced, start time.Time) metrics.Answer {
	a := metrics.Answer{Kind: cmp.Or(rec.kind, otherKind(r)), Code: cmp.Or(rec.status, http.StatusOK), Pull: rec.kind != ""}
	if !a.Pull {
		return a
	}
	a.Registry, a.Source, a.Stale = l.label(rec.ref.Registry), "error", rec.stale()
	if rec.way != nil {
		a.Source = source(rec.way)
	}
	a.Whole = time.Since(start)
	a.First = a.Whole
	if began := w.Began(); !began.IsZero() {
		a.First = began.Sub(start)
	}
	return a
}

// stale reports whether the answer was the registry's last word while it fails.
func (rec *record) stale() bool {
	if rec.way != nil {
		return rec.way.Marked()
	}
	e, ok := oci.AsError(rec.err)
	return ok && !e.Told.IsZero() && oci.KindOf(e.Err) != oci.Offline
}

// pullKind is the kind of a pull in metrics.
func pullKind(req *oci.Request) string {
	switch {
	case req.Resource == oci.BlobResource:
		return "blob"
	case req.Resource == oci.TagsResource:
		return "tags"
	case req.Resource == oci.ReferrersResource:
		return "referrers"
	case req.Tag != "":
		return "tag"
	default:
		return "manifest"
	}
}

// otherKind is the kind of a request that is no pull.
func otherKind(r *http.Request) string {
	switch path := r.URL.Path; {
	case path == "/v2" || path == "/v2/":
		return "ping"
	case strings.HasPrefix(path, "/v2/"):
		return "unknown"
	case strings.HasPrefix(path, "/_/"):
		return "control"
	default:
		return "page"
	}
}
