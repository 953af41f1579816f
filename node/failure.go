package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"oci-proxy/node/gate"
	"oci-proxy/node/reply"
	"oci-proxy/node/rules"
	"oci-proxy/transfer/oci"
)

// statusGone stands in the log for a client that left before its answer.
const statusGone = 499

// fail answers a request of the registry API that failed with err. A client that
// is gone gets no answer, not even the 200 of a handler that just returns: it may
// have closed only its own half of the connection.
func fail(w http.ResponseWriter, r *http.Request, g *gate.Gate, resource oci.Resource, err error) {
	noteFailure(r, err)
	if r.Context().Err() != nil {
		noteStatus(r, statusGone)
		panic(http.ErrAbortHandler)
	}
	if p, ok := errors.AsType[*oci.PathError](err); ok {
		failPath(w, p)
		return
	}
	if errors.Is(err, gate.ErrBusy) {
		g.RefuseBusy(w, r, err.Error(), &reply.Detail{Reason: err.Error()})
		return
	}
	e, ok := errors.AsType[*oci.Error](err)
	if refusal, is := errors.AsType[*rules.Refusal](err); is {
		e, ok = &oci.Error{Kind: oci.Denied, Reason: refusal.Reason(), Registry: refusal.Registry}, true
	}
	switch {
	case ok && e.Kind == oci.Busy:
		g.RefuseBusy(w, r, message(e), &reply.Detail{Registry: e.Registry, Reason: e.Reason})
		return
	case ok:
	case errors.Is(err, context.Canceled): // a download was ended, not the client's request
		e = &oci.Error{Reason: "this node is shutting down"}
	default:
		e = &oci.Error{Reason: "internal error"}
	}
	if e.Inside != "" && recordOf(r).operator {
		own := *e
		own.Reason = e.Inside
		e = &own
	}
	failUpstream(w, resource, e)
}

// failUpstream answers with what the registry did wrong.
func failUpstream(w http.ResponseWriter, resource oci.Resource, e *oci.Error) {
	status, code := statusOf(e.Kind, resource)
	d := &reply.Detail{Registry: e.Registry, UpstreamHost: e.Host, UpstreamStatus: e.Status, Reason: e.Reason}
	if e.RetryAfter > 0 {
		d.RetryAfter = math.Ceil(e.RetryAfter.Seconds())
		w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfter)))
	} else if e.Kind == oci.Limited {
		w.Header().Set("Retry-After", strconv.Itoa(int(defaultRetry.Seconds())))
	}
	reply.Fail(w, status, reply.Error{Code: code, Message: message(e), Detail: d})
}

// message is what docker shows.
func message(e *oci.Error) string {
	m := e.Reason
	if e.Registry != "" {
		m = e.Registry + ": " + m
	}
	if e.Host != "" && e.Host != e.Registry {
		m += " (at " + e.Host + ")"
	}
	if e.Status != 0 {
		m += fmt.Sprintf(" [upstream answered %d]", e.Status)
	}
	return m
}

// failPath answers a path that names nothing.
func failPath(w http.ResponseWriter, p *oci.PathError) {
	status := http.StatusBadRequest
	code := p.Code
	if code == "NOT_FOUND" {
		status, code = http.StatusNotFound, "NAME_UNKNOWN"
	}
	reply.Fail(w, status, reply.Error{Code: code, Message: p.Reason, Detail: &reply.Detail{Reason: p.Reason}})
}

// statusOf is the one place where a kind of failure becomes a status and a code.
func statusOf(k oci.Kind, resource oci.Resource) (int, string) {
	switch k {
	case oci.NotFound:
		return http.StatusNotFound, unknown(resource)
	case oci.Denied:
		return http.StatusForbidden, "DENIED"
	case oci.Limited:
		return http.StatusTooManyRequests, "TOOMANYREQUESTS"
	case oci.Busy:
		return http.StatusServiceUnavailable, "UNAVAILABLE"
	case oci.Timeout, oci.Offline:
		return http.StatusGatewayTimeout, "UNAVAILABLE"
	case oci.Looped:
		return http.StatusLoopDetected, "UNAVAILABLE"
	default:
		return http.StatusBadGateway, "UNAVAILABLE"
	}
}

// unknown is the code for what upstream does not have.
func unknown(resource oci.Resource) string {
	switch resource {
	case oci.BlobResource:
		return "BLOB_UNKNOWN"
	case oci.TagsResource:
		return "NAME_UNKNOWN"
	default:
		return "MANIFEST_UNKNOWN"
	}
}
