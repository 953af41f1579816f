package upstreamtest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

// A wire is the http.ResponseWriter of one answer. It counts what goes through it, and
// damages it as the fault says.
type wire struct {
	http.ResponseWriter
	r     *traffic
	req   *http.Request
	rec   *record
	fault *Fault // nil: healthy

	blob     bool  // the body is a blob's
	started  bool  // the header is out
	hijacked bool  // by a Fault.Wrap
	offset   int64 // in the blob, of the next byte that is given to Write
	out      int64 // body bytes sent
	limit    int64 // of out, from LieLength; < 0: none
	gzip     *gzip.Writer
}

// serve answers the request: by next, unless the fault has another answer.
func (w *wire) serve(next func(*wire, *http.Request)) {
	f := w.fault
	if f == nil {
		w.fault = &Fault{}
		next(w, w.req)
		return
	}
	switch {
	case f.CutAtStart:
		w.reset()
	case f.Wrap != nil && f.Wrap(w, w.req):
	case f.Status != 0:
		w.answer(f.Status, []byte(f.Body))
	default:
		next(w, w.alterRange())
	}
	if w.hijacked {
		return
	}
	if !w.started {
		w.WriteHeader(http.StatusOK)
	}
	if w.gzip != nil {
		_ = w.gzip.Close()
	}
}

// alterRange returns the request for another range than the client asked for.
func (w *wire) alterRange() *http.Request {
	w.req = w.req.Clone(w.req.Context())
	if w.fault.IgnoreRange {
		w.req.Header.Del("Range")
	}
	if w.fault.WrongRange {
		var start int64
		_, _ = fmt.Sscanf(w.req.Header.Get("Range"), "bytes=%d-", &start)
		start /= 2
		w.req.Header.Set("Range", fmt.Sprintf("bytes=%d-", max(start, 1)))
	}
	return w.req
}

// stream answers with a blob, whole or in part.
func (w *wire) stream(content io.ReadSeeker) {
	w.blob = true
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, w.req, "", time.Time{}, content)
}

// WriteHeader sends the header as the fault changes it.
func (w *wire) WriteHeader(status int) {
	if w.started {
		return
	}
	w.started = true
	w.blob = w.blob && status < 300
	f := w.effects()
	h := w.Header()
	_, _ = fmt.Sscanf(h.Get("Content-Range"), "bytes %d-", &w.offset)
	if f.NoDigest {
		h.Del("Docker-Content-Digest")
	}
	if f.WrongDigest {
		h.Set("Docker-Content-Digest", digest.FromString("upstreamtest: something else").String())
	}
	if f.Gzip {
		h.Set("Content-Encoding", "gzip")
		if w.req.Method != http.MethodHead {
			w.gzip = gzip.NewWriter(sender{w})
		}
	}
	if f.Gzip || f.NoLength {
		h.Del("Content-Length")
	}
	w.lie(h)
	for key, values := range f.Header {
		h[http.CanonicalHeaderKey(key)] = values // a key without values also stops net/http from adding its own
	}
	w.rec.status.Store(int64(status))
	w.ResponseWriter.WriteHeader(status)
	if f.NoLength || f.Gzip {
		w.flush() // otherwise net/http would count a short body itself
	}
	if f.Stall && f.StallAfter == 0 {
		w.stall()
	}
}

// effects returns the fault that changes the answer.
func (w *wire) effects() *Fault {
	if w.fault == nil { // a challenge: no fault is chosen before it
		return &Fault{}
	}
	return w.fault
}

// lie changes Content-Length as the fault says.
func (w *wire) lie(h http.Header) {
	n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	by := w.effects().LieLength
	if err != nil || by == 0 {
		return
	}
	n = max(n+by, 0)
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	if by < 0 {
		w.limit = n
	}
}

// Write sends a part of the body as the fault changes it.
func (w *wire) Write(p []byte) (int, error) {
	if !w.started {
		w.WriteHeader(http.StatusOK)
	}
	n, f := len(p), w.effects()
	if at := f.CorruptAt - w.offset; f.Corrupt && at >= 0 && at < int64(n) {
		p = bytes.Clone(p)
		p[at] ^= 1
	}
	w.offset += int64(n)
	if w.gzip != nil {
		return w.gzip.Write(p)
	}
	if err := w.send(p); err != nil {
		return 0, err
	}
	return n, nil
}

// A sender writes what the compression puts out.
type sender struct{ w *wire }

func (s sender) Write(p []byte) (int, error) {
	if err := s.w.send(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// send puts p on the connection, up to where the fault ends it.
func (w *wire) send(p []byte) error {
	f := w.effects()
	if w.limit >= 0 {
		p = p[:min(int64(len(p)), w.limit-w.out)]
	}
	for len(p) > 0 {
		n := int64(len(p))
		if f.CutAfter > 0 {
			n = min(n, f.CutAfter-w.out)
		}
		if f.Stall && w.out < f.StallAfter {
			n = min(n, f.StallAfter-w.out)
		}
		if f.SlowBytesPerSecond > 0 {
			n = min(n, max(f.SlowBytesPerSecond/20, 1))
			w.slow(n, f.SlowBytesPerSecond)
		}
		if err := w.put(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		w.afterPut(f)
	}
	return nil
}

// put counts before it writes, so that the bytes are counted when they arrive.
func (w *wire) put(p []byte) error {
	n := int64(len(p))
	w.count(n)
	w.out += n
	sent, err := w.ResponseWriter.Write(p)
	w.count(int64(sent) - n)
	return err
}

// count adds n bytes to what was sent.
func (w *wire) count(n int64) {
	w.rec.sent.Add(n)
	if w.blob {
		w.r.sent.Add(n)
	}
}

// afterPut does what the fault has for this place of the body.
func (w *wire) afterPut(f *Fault) {
	switch {
	case f.CutAfter > 0 && w.out >= f.CutAfter:
		w.flush()
		if f.CutReset {
			w.reset()
		}
		panic(http.ErrAbortHandler)
	case f.Stall && w.out == f.StallAfter:
		w.stall()
	}
}

// slow waits as long as the next n bytes take.
func (w *wire) slow(n, perSecond int64) {
	w.flush()
	done := make(chan struct{})
	timer := time.AfterFunc(time.Duration(n)*time.Second/time.Duration(perSecond), func() { close(done) })
	defer timer.Stop()
	w.await(done)
}

// stall sends what there is and waits until the stall, the client or the test ends.
func (w *wire) stall() {
	w.flush()
	w.await(w.fault.StallUntil)
}

// await returns when done is closed. If the client leaves or the test ends, it cuts
// the connection.
func (w *wire) await(done <-chan struct{}) {
	select {
	case <-done:
	case <-w.req.Context().Done():
		panic(http.ErrAbortHandler)
	case <-w.r.closing:
		panic(http.ErrAbortHandler)
	}
}

// reset closes the connection by RST. Over HTTP/2 it resets the stream.
func (w *wire) reset() {
	conn, _, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		if t, ok := conn.(*tls.Conn); ok {
			conn = t.NetConn() // without a close_notify
		}
		if t, ok := conn.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// flush sends what is buffered.
func (w *wire) flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Flush sends what is buffered, for Fault.Wrap.
func (w *wire) Flush() {
	if !w.started {
		w.WriteHeader(http.StatusOK)
	}
	w.flush()
}

// Hijack hands the connection to a Fault.Wrap.
func (w *wire) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = err == nil
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (w *wire) Unwrap() http.ResponseWriter { return w.ResponseWriter }
