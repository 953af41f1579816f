package node

import (
	"net/http"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
)

// A tracing records pulls as traces.
type tracing struct {
	node     string                     // the node's name
	tracer   *trace.Tracer              // nil: nothing is recorded
	balanced func(r *http.Request) bool // whether a request comes from one of trusted_proxies
}

// begin begins the span of a pull, and returns the request with it. The caller's own trace goes
// on only if the request comes from one of trusted_proxies: anybody else could have all its
// requests recorded, or put them into traces of others.
func (t tracing) begin(r *http.Request, req oci.Request) (*http.Request, trace.Span) {
	if t.tracer == nil {
		return r, trace.Span{}
	}
	var from http.Header
	if t.balanced(r) {
		from = r.Header
	}
	ctx, span := t.tracer.Begin(r.Context(), "pull "+pullKind(&req), from)
	recordOf(r).trace = span.ID()
	span.Set("oci_proxy.node", t.node)
	span.Set("oci_proxy.registry", req.Registry)
	span.Set("oci_proxy.repository", req.Repository)
	span.Set("oci_proxy.tag", req.Tag)
	span.Set("oci_proxy.digest", req.Digest.String())
	span.Set("http.request.method", r.Method)
	return r.WithContext(ctx), span
}

// end ends the span of a pull. err is why nothing could be answered.
func (t tracing) end(r *http.Request, span trace.Span, err error) {
	if !span.On() {
		return
	}
	rec := recordOf(r)
	if rec.way != nil {
		span.Set("oci_proxy.source", source(rec.way))
	}
	if err == nil {
		err = rec.err // of an answer that broke off
	}
	span.End(err)
}
