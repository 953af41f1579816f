package upstreamtest

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Request is one that has arrived at one of the servers.
type Request struct {
	Server                        string // "registry", "token" or "cdn"
	Method, Path, RawQuery, Proto string
	Header                        http.Header
	Status                        int   // answered; 0 while there is no answer
	Sent                          int64 // bytes of the answer's body so far
}

// A Match chooses requests; zero fields match all.
type Match struct {
	Method   string
	PathPart string // is part of the path, which has no query
	Server   string // "registry", "token" or "cdn"
}

func (m Match) matches(server string, method, path string) bool {
	return (m.Method == "" || m.Method == method) && (m.Server == "" || m.Server == server) && strings.Contains(path, m.PathPart)
}

type record struct {
	Request
	status, sent atomic.Int64
}

type hold struct {
	Match
	released chan struct{}
}

// arrive records a request and returns the holds it has to wait for. It is not
// ok when the test is over; if it is, r.active.Done is due.
func (r *Registry) arrive(server string, req *http.Request) (rec *record, held []*hold, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, false
	}
	r.active.Add(1)
	rec = &record{Request: Request{
		Server: server, Method: req.Method, Path: req.URL.Path, RawQuery: req.URL.RawQuery,
		Proto: req.Proto, Header: req.Header.Clone(),
	}}
	r.records = append(r.records, rec)
	for _, h := range r.holds {
		if h.matches(server, req.Method, req.URL.Path) {
			held = append(held, h)
		}
	}
	close(r.arrived)
	r.arrived = make(chan struct{})
	return rec, held, true
}

// Requests returns all requests so far in the order of their arrival, those of
// the token server and the CDN among them.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Request, 0, len(r.records))
	for _, rec := range r.records {
		q := rec.Request
		q.Status, q.Sent = int(rec.status.Load()), rec.sent.Load()
		all = append(all, q)
	}
	return all
}

// Count returns how many requests have arrived with that method ("": any) and
// that part of the path ("": any), at whatever server.
func (r *Registry) Count(method, pathPart string) int {
	n, _ := r.count(Match{Method: method, PathPart: pathPart})
	return n
}

// count also returns the channel that is closed at the next arrival.
func (r *Registry) count(m Match) (n int, next <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.records {
		if m.matches(rec.Server, rec.Method, rec.Path) {
			n++
		}
	}
	return n, r.arrived
}

// BytesSent returns the bytes of blobs sent in all answers of registry and CDN.
func (r *Registry) BytesSent() int64 { return r.sent.Load() }

// Hold makes requests that match and arrive from now on wait, before anything
// of their answer is sent, until release is called, the client goes or the
// test ends. Release may be called more than once.
func (r *Registry) Hold(match Match) (release func()) {
	h := &hold{Match: match, released: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds = append(r.holds, h)
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, other := range r.holds {
			if other == h {
				r.holds = append(r.holds[:i:i], r.holds[i+1:]...)
				break
			}
		}
		close(h.released)
	})
}

// WaitFor waits until n requests that match have arrived, counted from the
// start of the registry, held ones included. It fails the test after 20 s.
func (r *Registry) WaitFor(match Match, n int) {
	r.t.Helper()
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	for {
		have, next := r.count(match)
		if have >= n {
			return
		}
		select {
		case <-next:
		case <-timeout.C:
			r.t.Fatalf("upstreamtest: %d of %d requests %+v arrived within 20s", have, n, match)
		}
	}
}
