package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Fault says which requests go wrong, and how. Offsets count from the start of
// the blob, also in the answer to a Range. Of several faults that match, the
// first that has not been used up is applied.
type Fault struct {
	Name   string `json:"name"`   // as it stands in the log
	Method string `json:"method"` // "": any
	Path   string `json:"path"`   // a part of the path and query, unescaped
	Times  int    `json:"times"`  // how many requests it applies to; 0: all

	// Before the answer.
	Without string `json:"without"` // a header of the request to drop
	Wait    int    `json:"wait"`    // seconds to wait first

	// Instead of it.
	Status int `json:"status"` // this status
	Retry  int `json:"retry"`  // Retry-After in seconds

	// In it.
	NoLength bool   `json:"no_length"` // chunked, without Content-Length
	Flip     int64  `json:"flip"`      // > 0: the offset of a wrong byte
	Slow     int64  `json:"slow"`      // > 0: bytes a second, sent in small pieces
	End      string `json:"end"`       // the connection is "cut" (FIN) or "reset" (RST), or a "stall"
	At       int64  `json:"at"`        // at this byte of the body; 0: instead of an answer
}

// piece is how many bytes a slow answer sends at a time.
const piece = 4 << 10

// errFault is the error that ends a body.
var errFault = errors.New("the fault asked for")

// readFaults reads a Fault from each line.
func readFaults(in io.Reader) (faults []*Fault, err error) {
	lines := json.NewDecoder(in)
	lines.DisallowUnknownFields()
	for {
		f := new(Fault)
		if err := lines.Decode(f); errors.Is(err, io.EOF) {
			return faults, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading fault %d: %w", len(faults)+1, err)
		}
		if f.Times == 0 {
			f.Times = -1
		}
		faults = append(faults, f)
	}
}

// faulty makes the requests to h fail as faults say, and notes it in the log.
func faulty(h http.Handler, faults []*Fault) http.Handler {
	var mu sync.Mutex
	pick := func(r *http.Request) *Fault {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range faults {
			if f.Times != 0 && f.matches(r) {
				f.Times = max(f.Times-1, -1)
				return f
			}
		}
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := pick(r)
		if f == nil {
			h.ServeHTTP(w, r)
			return
		}
		if n, ok := w.(*noting); ok {
			n.fault = f.Name
		}
		f.serve(w, r, h)
	})
}

// matches reports whether the fault is for r.
func (f *Fault) matches(r *http.Request) bool {
	query, err := url.QueryUnescape(r.URL.RawQuery)
	if err != nil {
		query = r.URL.RawQuery
	}
	return (f.Method == "" || f.Method == r.Method) && strings.Contains(r.URL.Path+"?"+query, f.Path)
}

// serve answers r as the fault says.
func (f *Fault) serve(w http.ResponseWriter, r *http.Request, h http.Handler) {
	if f.Without != "" {
		r.Header.Del(f.Without)
	}
	if !pause(r, time.Duration(f.Wait)*time.Second) {
		panic(http.ErrAbortHandler) // the client has gone
	}
	body := &badBody{ResponseWriter: w, fault: f, request: r}
	switch {
	case f.Status != 0:
		if f.Retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(f.Retry))
		}
		http.Error(w, http.StatusText(f.Status), f.Status)
	case f.End != "" && f.At == 0:
		_ = body.end()
		panic(http.ErrAbortHandler) // so that net/http sends no answer
	default:
		h.ServeHTTP(body, r)
	}
}

// pause waits, and reports whether the client is still there.
func pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return r.Context().Err() == nil
	case <-r.Context().Done():
		return false
	}
}

// A badBody is an answer whose body the fault changes.
type badBody struct {
	http.ResponseWriter
	fault   *Fault
	request *http.Request
	pos     int64 // in the blob, of the next byte
}

// Unwrap lets http.ResponseController reach the writer below.
func (b *badBody) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// WriteHeader sees where in the blob the answer begins.
func (b *badBody) WriteHeader(status int) {
	if from, ok := strings.CutPrefix(b.Header().Get("Content-Range"), "bytes "); ok && status == http.StatusPartialContent {
		from, _, _ = strings.Cut(from, "-")
		b.pos, _ = strconv.ParseInt(from, 10, 64) // from the registry
	}
	if b.fault.NoLength {
		b.Header().Del("Content-Length")
	}
	b.ResponseWriter.WriteHeader(status)
	if b.fault.NoLength { // net/http must not add one either
		_ = http.NewResponseController(b.ResponseWriter).Flush() // the first Write reports the error
	}
}

// Write sends what the fault lets through.
func (b *badBody) Write(p []byte) (int, error) {
	f, sent := b.fault, 0
	for len(p) > 0 {
		n := int64(len(p))
		if f.Slow > 0 {
			n = min(n, piece)
		}
		if f.End != "" {
			n = min(n, f.At-b.pos)
		}
		if n <= 0 {
			return sent, b.end()
		}
		if err := b.send(p[:n]); err != nil {
			return sent, err
		}
		p, sent = p[n:], sent+int(n)
	}
	return sent, nil
}

// send sends one piece, with the wrong byte if that is in it.
func (b *badBody) send(p []byte) error {
	if at := b.fault.Flip - b.pos; b.fault.Flip > 0 && at >= 0 && at < int64(len(p)) {
		p = append([]byte(nil), p...)
		p[at] ^= 1
	}
	if _, err := b.ResponseWriter.Write(p); err != nil {
		return err
	}
	b.pos += int64(len(p))
	if b.fault.Slow == 0 {
		return nil
	}
	if !pause(b.request, time.Duration(len(p))*time.Second/time.Duration(b.fault.Slow)) {
		return errFault
	}
	return http.NewResponseController(b.ResponseWriter).Flush()
}

// end ends the answer as the fault says. What was sent before has arrived,
// except after a reset, which may overtake it.
func (b *badBody) end() error {
	c := http.NewResponseController(b.ResponseWriter)
	if b.fault.At > 0 {
		if err := c.Flush(); err != nil {
			return err
		}
	}
	switch b.fault.End {
	case "stall":
		<-b.request.Context().Done()
	case "reset":
		conn, _, err := c.Hijack()
		if err != nil {
			return err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it is closed next, whatever happens
		}
		_ = conn.Close() // that is the fault
	}
	return errFault
}
