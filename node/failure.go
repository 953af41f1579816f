package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"oci-proxy/transfer/oci"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An ociError is one error of an answer (OCI distribution spec, "Error codes").
type ociError struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Detail  *detail `json:"detail,omitempty"`
}

// A detail says what failed where, as far as known.
type detail struct {
	Registry       string  `json:"registry,omitempty"`
	UpstreamHost   string  `json:"upstream_host,omitempty"`
	UpstreamStatus int     `json:"upstream_status,omitempty"`
	Reason         string  `json:"reason,omitempty"`
	RetryAfter     float64 `json:"retry_after,omitempty"` // seconds
}

// writeError writes an answer that holds one error.
func writeError(w http.ResponseWriter, status int, e ociError) {
	body, err := json.Marshal(map[string][]ociError{"errors": {e}})
	if err != nil { // strings and numbers: can't be
		body = []byte(`{"errors":[]}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

// statusGone stands in the log for a client that left before its answer.
const statusGone = 499

// fail answers a request of the registry API that failed with err. To a client
// that has gone it answers nothing, not even the 200 of a handler that just
// returns: it may have closed only its own half of the connection.
func (n *Node) fail(w http.ResponseWriter, r *http.Request, resource oci.Resource, err error) {
	noteFailure(r, err)
	if r.Context().Err() != nil {
		noteStatus(r, statusGone)
		panic(http.ErrAbortHandler)
	}
	if p, ok := errors.AsType[*oci.PathError](err); ok {
		failPath(w, p)
		return
	}
	if errors.Is(err, errBusy) {
		n.busy(w, r)
		return
	}
	e, ok := errors.AsType[*oci.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled): // a flight, and not the client
		e = &oci.Error{Reason: "the node is shutting down"}
	default:
		e = &oci.Error{Reason: "internal error"}
	}
	status, code := statusOf(e.Kind, resource)
	d := &detail{Registry: e.Registry, UpstreamHost: e.Host, UpstreamStatus: e.Status, Reason: e.Reason}
	if e.RetryAfter > 0 {
		d.RetryAfter = math.Ceil(e.RetryAfter.Seconds())
		w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfter)))
	} else if e.Kind == oci.Limited {
		w.Header().Set("Retry-After", strconv.Itoa(int(defaultRetry.Seconds())))
	}
	writeError(w, status, ociError{Code: code, Message: message(e), Detail: d})
}

// busyRetry is when who was refused may come again.
const busyRetry = 10 * time.Second

// busy answers a pull that got no turn, in the way that the client takes best:
// docker ends a pull at 429 and tries again after 503; containerd and those
// built on containers/image the other way round, but at once, so that their
// answer is held back for a moment.
func (n *Node) busy(w http.ResponseWriter, r *http.Request) {
	status, code := http.StatusServiceUnavailable, "UNAVAILABLE"
	if retriesAt429(r.UserAgent()) {
		status, code = http.StatusTooManyRequests, "TOOMANYREQUESTS"
		n.access.throttle.delay(r.Context().Done(), 2*time.Second)
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(busyRetry.Seconds())))
	writeError(w, status, ociError{Code: code, Message: errBusy.Error(), Detail: &detail{Reason: errBusy.Error(), RetryAfter: busyRetry.Seconds()}})
}

// retriesAt429 knows clients by how they begin to introduce themselves.
func retriesAt429(agent string) bool {
	agent = strings.ToLower(agent)
	return slices.ContainsFunc([]string{"containerd/", "containers/", "skopeo/", "podman/", "libpod/", "buildah/", "cri-o/"}, func(name string) bool {
		return strings.HasPrefix(agent, name)
	})
}

// defaultRetry is what a client is told where an upstream that limits us does
// not say for how long.
const defaultRetry = time.Minute

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
	writeError(w, status, ociError{Code: code, Message: p.Reason, Detail: &detail{Reason: p.Reason}})
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
	case oci.Timeout, oci.Offline:
		return http.StatusGatewayTimeout, "UNAVAILABLE"
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
