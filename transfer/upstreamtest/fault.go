package upstreamtest

import (
	"net/http"
)

// A Fault says which requests go wrong, and how. Several effects of one fault
// add up; of several faults only the first that matches is applied.
type Fault struct {
	Match
	Skip       int  // lets this many matching requests pass first
	Times      int  // applies to so many requests; 0: to every one
	BeforeAuth bool // also seen by requests that would be challenged

	// Instead of the right answer.

	// CutAtStart resets the connection before any answer. On a kept-alive one
	// net/http's client silently tries a GET again: Times 1 may go unnoticed.
	CutAtStart bool
	Status     int    // this status, with Header and Body
	Body       string // for Status only
	// Wrap answers in its own way and returns true, or returns false for the
	// usual answer. It runs on the server's goroutine: no t.Fatal in it.
	Wrap func(w http.ResponseWriter, r *http.Request) bool

	// The header.
	Header      http.Header // added or replacing; nil values delete
	LieLength   int64       // added to Content-Length; <0: the body is cut down to it, >0: it ends early
	NoLength    bool        // chunked, without Content-Length
	NoDigest    bool        // no Docker-Content-Digest
	WrongDigest bool        // Docker-Content-Digest names something else
	IgnoreRange bool        // 200 with the whole body for a Range
	WrongRange  bool        // 206 from another offset, truly told in Content-Range, even if no Range was asked for

	// The body. Offsets and counts are in bytes.
	CutAfter           int64 // >0: the connection is closed after so much body (after compression)
	CutReset           bool  // with CutAfter: by RST; what is then still on its way may be lost
	Stall              bool  // sends StallAfter bytes of body (0: only the header), then nothing until client or test end
	StallAfter         int64
	StallUntil         <-chan struct{} // ends the stall before that when it is closed; nil: nothing does
	Corrupt            bool            // flips a bit of the byte at CorruptAt of the blob, if that is sent
	CorruptAt          int64           // counted from the blob's start also in a range
	Gzip               bool            // compressed, with Content-Encoding: gzip, asked for or not
	SlowBytesPerSecond int64           // >0: no faster than that
}

// A fault counts what is left of a Fault.
type fault struct {
	Fault
	skip, left int // left <0: without end
}

// Fault adds f behind the faults already there. The first that matches a
// request, has skipped its Skip and has Times left is applied.
func (r *Registry) Fault(f Fault) {
	f.Header = f.Header.Clone()
	left := f.Times
	if left == 0 {
		left = -1
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &fault{Fault: f, skip: f.Skip, left: left})
}

// ClearFaults removes all faults; answers under way keep theirs.
func (r *Registry) ClearFaults() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

// pick returns the fault for a request, nil if there is none. It uses it up.
func (r *Registry) pick(server string, req *http.Request, beforeAuth bool) *Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
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
