package upstreamtest

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Request is one that has arrived at a server.
type Request struct {
	Server                        string // "registry", "token" or "cdn"
	Method, Path, RawQuery, Proto string
	Header                        http.Header
	User                          string // of the login by which it was let in, "" for guests
	Status                        int    // answered; 0 while there is no answer
	Sent                          int64  // bytes of the answer's body so far
}

// A Match chooses requests. A zero field matches all.
type Match struct {
	Method   string
	PathPart string // part of the path (without the query)
	Server   string // "registry", "token" or "cdn"
}

// matches reports whether m chooses the request.
func (m Match) matches(server string, method, path string) bool {
	return (m.Method == "" || m.Method == method) && (m.Server == "" || m.Server == server) && strings.Contains(path, m.PathPart)
}

// A record is a request and what has been answered so far.
type record struct {
	Request
	status, sent atomic.Int64
}

// A hold makes the requests that match wait until it is released.
type hold struct {
	Match
	released chan struct{}
}

// traffic is what arrives at the servers.
type traffic struct {
	t       testing.TB
	closing chan struct{} // closed when the test ends: everything that waits gives up
	active  sync.WaitGroup
	sent    atomic.Int64 // bytes of blobs

	mu      sync.Mutex
	closed  bool
	holds   []*hold
	records []*record
	arrived chan struct{} // closed and replaced at each request
}

// newTraffic returns the traffic of a registry.
func newTraffic(t testing.TB) *traffic {
	return &traffic{t: t, closing: make(chan struct{}), arrived: make(chan struct{})}
}

// arrive records a request and returns the holds that it has to wait for. It is not
// ok once the test is over. If it is ok, the caller owes an active.Done.
func (f *traffic) arrive(server string, req *http.Request) (rec *record, held []*hold, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, nil, false
	}
	f.active.Add(1)
	rec = &record{Request: Request{
		Server: server, Method: req.Method, Path: req.URL.Path, RawQuery: req.URL.RawQuery,
		Proto: req.Proto, Header: req.Header.Clone(),
	}}
	f.records = append(f.records, rec)
	for _, h := range f.holds {
		if h.matches(server, req.Method, req.URL.Path) {
			held = append(held, h)
		}
	}
	close(f.arrived)
	f.arrived = make(chan struct{})
	return rec, held, true
}

// stop refuses further requests and ends those that wait.
func (f *traffic) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	close(f.closing)
}

// Requests returns all requests so far, in the order of their arrival. They include
// those to the token server and the CDN.
func (f *traffic) Requests() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]Request, 0, len(f.records))
	for _, rec := range f.records {
		q := rec.Request
		q.Status, q.Sent = int(rec.status.Load()), rec.sent.Load()
		all = append(all, q)
	}
	return all
}

// came notes whose login let a request in.
func (f *traffic) came(rec *record, user string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec.User = user
}

// Count returns how many requests have arrived with that method ("": any) and that
// part of the path ("": any), at any server.
func (f *traffic) Count(method, pathPart string) int {
	n, _ := f.count(Match{Method: method, PathPart: pathPart})
	return n
}

// count returns how many requests match, and the channel that is closed at the next
// arrival.
func (f *traffic) count(m Match) (n int, next <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rec := range f.records {
		if m.matches(rec.Server, rec.Method, rec.Path) {
			n++
		}
	}
	return n, f.arrived
}

// BytesSent returns how many bytes of blobs the registry and the CDN have sent.
func (f *traffic) BytesSent() int64 { return f.sent.Load() }

// Hold makes requests wait that match and arrive from now on. Nothing of their
// answer is sent until release is called, the client leaves or the test ends.
// Release may be called more than once.
func (f *traffic) Hold(match Match) (release func()) {
	h := &hold{Match: match, released: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds = append(f.holds, h)
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i, other := range f.holds {
			if other == h {
				f.holds = append(f.holds[:i:i], f.holds[i+1:]...)
				break
			}
		}
		close(h.released)
	})
}

// patience is how long WaitFor waits. It only ends tests that have failed anyway.
const patience = 2 * time.Minute

// WaitFor waits until n requests that match have arrived since the registry began,
// held ones included. It fails the test after two minutes.
func (f *traffic) WaitFor(match Match, n int) {
	f.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		have, next := f.count(match)
		if have >= n {
			return
		}
		select {
		case <-next:
		case <-timeout.C:
			f.t.Fatalf("upstreamtest: %d of %d requests %+v arrived within %v", have, n, match, patience)
		}
	}
}
