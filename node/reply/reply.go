// Package reply writes the answers that look the same wherever in a node they
// are given: an OCI error ([Fail]), a whole body ([Body]) and a report ([JSON]).
package reply

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// An Error is the one error of an answer (OCI distribution spec, "Error codes").
type Error struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Detail  *Detail `json:"detail,omitempty"`
}

// A Detail says what failed and where, as far as that is known.
type Detail struct {
	Registry       string  `json:"registry,omitempty"`
	UpstreamHost   string  `json:"upstream_host,omitempty"`
	UpstreamStatus int     `json:"upstream_status,omitempty"`
	Reason         string  `json:"reason,omitempty"`
	RetryAfter     float64 `json:"retry_after,omitempty"` // seconds
	RequestID      string  `json:"request_id,omitempty"`  // as in the answer's header, see Fail
}

// Fail answers with one error. Nothing keeps it. Its detail names the request as the answer's
// header does, if that has a X-Request-Id.
func Fail(w http.ResponseWriter, status int, e Error) {
	if id := w.Header().Get("X-Request-Id"); id != "" {
		var d Detail
		if e.Detail != nil {
			d = *e.Detail
		}
		d.RequestID = id
		e.Detail = &d
	}
	body, err := json.Marshal(map[string][]Error{"errors": {e}})
	if err != nil { // strings and numbers always encode
		body = []byte(`{"errors":[]}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

// Body answers with a whole body.
func Body(w http.ResponseWriter, mediaType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client may be gone; net/http leaves the body of a HEAD out
}

// JSON answers with a report that is true only for the moment.
func JSON(w http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil { // strings and numbers always encode
		body = []byte("{}")
	}
	w.Header().Set("Cache-Control", "no-store")
	Body(w, "application/json", body)
}
