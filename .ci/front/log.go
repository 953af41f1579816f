package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
)

// An entry is one answer as it stands in the log, written when its status is
// known: before a byte of the body has left, so that whoever has the body finds
// the entry. A request that ends without an answer has status 0.
type entry struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Query  string `json:"query,omitempty"`
	Status int    `json:"status"`
	Range  string `json:"range,omitempty"`
	Auth   string `json:"auth,omitempty"` // the scheme only
	Agent  string `json:"agent,omitempty"`
	Fault  string `json:"fault,omitempty"` // the name of the fault that struck
}

// logged writes an entry to out for every answer of h.
func logged(h http.Handler, out io.Writer) http.Handler {
	var mu sync.Mutex
	lines := json.NewEncoder(out)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		e := entry{
			Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
			Range: r.Header.Get("Range"), Auth: scheme, Agent: r.UserAgent(),
		}
		n := &noting{ResponseWriter: w}
		n.note = func(status int) {
			mu.Lock()
			defer mu.Unlock()
			e.Status, e.Fault = status, n.fault
			_ = lines.Encode(e) // A full disk fails the run elsewhere.
		}
		defer n.end()
		h.ServeHTTP(n, r)
	})
}

// A noting ResponseWriter tells note the status of the answer, once.
type noting struct {
	http.ResponseWriter
	note  func(status int)
	fault string // what the entry names as its fault
	done  bool
}

// end notes a request that got no answer.
func (n *noting) end() {
	if !n.done {
		n.note(0)
	}
}

// WriteHeader tells note the status, unless it only announces another one (1xx).
func (n *noting) WriteHeader(status int) {
	if !n.done && status >= http.StatusOK {
		n.done = true
		n.note(status)
	}
	n.ResponseWriter.WriteHeader(status)
}

// Write tells note 200 if no status was written before.
func (n *noting) Write(p []byte) (int, error) {
	if !n.done {
		n.WriteHeader(http.StatusOK)
	}
	return n.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the writer below.
func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }
