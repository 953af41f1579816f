package upstreamtest

import (
	"net/http"
	"sync"
)

// A Fault says which requests go wrong, and how. The effects of one fault add up. Of
// several faults only the first that matches is applied.
type Fault struct {
	Match
	Skip       int  // this many matching requests pass first
	Times      int  // it applies to this many requests; 0: to all
	BeforeAuth bool // it applies before the login is checked, so also to requests that would be challenged

	// Instead of the right answer.

	// CutAtStart resets the connection before any answer. If the connection was kept
	// alive, net/http's client silently sends a GET again, so Times 1 may go unnoticed.
	CutAtStart bool
	Status     int    // this status, with Header and Body
	Body       string // for Status only
	// Wrap gives an answer of its own and returns true, or returns false for the usual
	// answer. It runs on the server's goroutine, so it must not call t.Fatal.
	Wrap func(w http.ResponseWriter, r *http.Request) bool

	// The header.
	Header      http.Header // added or replaced; nil values delete
	LieLength   int64       // added to Content-Length; < 0: the body is cut down to that, > 0: the body ends early
	NoLength    bool        // chunked, without Content-Length
	NoDigest    bool        // no Docker-Content-Digest
	WrongDigest bool        // Docker-Content-Digest names something else
	IgnoreRange bool        // 200 with the whole body for a Range
	WrongRange  bool        // 206 from another offset, with the right Content-Range, even if no Range was asked for

	// The body. Offsets and counts are in bytes.
	CutAfter           int64 // > 0: the connection is closed after this much of the body (after compression)
	CutReset           bool  // with CutAfter: closed by RST, which may lose what is still on its way
	Stall              bool  // sends StallAfter bytes of the body (0: only the header), then nothing until the client leaves or the test ends
	StallAfter         int64
	StallUntil         <-chan struct{} // ends the stall earlier when it is closed
	Corrupt            bool            // flips a bit of the blob's byte at CorruptAt, if that byte is sent
	CorruptAt          int64           // counted from the blob's start, also in a range
	Gzip               bool            // compressed, with Content-Encoding: gzip, whether asked for or not
	SlowBytesPerSecond int64           // > 0: no faster than that
}

// A fault counts what is left of a Fault.
type fault struct {
	Fault
	skip, left int // left < 0: without end
}

// faults are those of a registry, in order.
type faults struct {
	mu   sync.Mutex
	list []*fault
}

// Fault adds f after the faults already there. A request gets the first one that
// matches it, has skipped its Skip and has Times left.
func (s *faults) Fault(f Fault) {
	f.Header = f.Header.Clone()
	left := f.Times
	if left == 0 {
		left = -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, &fault{Fault: f, skip: f.Skip, left: left})
}

// ClearFaults removes all faults. Answers under way keep theirs.
func (s *faults) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = nil
}

// pick returns the fault for a request, nil if there is none, and counts it as used.
func (s *faults) pick(server string, req *http.Request, beforeAuth bool) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.list {
		if f.left == 0 || f.BeforeAuth != beforeAuth || !f.matches(server, req.Method, req.URL.Path) {
			continue
		}
		if f.skip > 0 {
			f.skip--
			continue
		}
		f.left = max(f.left-1, -1)
		return &f.Fault
	}
	return nil
}
