package express

import (
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// inOne is up to how many bytes a header and its body are copied together. Of more the
	// system is given both.
	inOne = 8 << 10
	// slack is the part of a deadline's time by which the one before may be earlier: then that
	// stays. To set one costs as much as a small answer's header.
	slack = 64
)

// fields is about how many an answer's header has.
const fields = 14

var buffers = sync.Pool{New: func() any { return new([inOne]byte) }}

// An answer is an http.ResponseWriter that answers as net/http's does. Informational answers,
// trailers, a Transfer-Encoding of the handler's own and a length that is none are not for it. A body
// whose length the handler does not tell ends with the connection (RFC 9112 section 6.3). All other fields of an
// answer that has no body are the handler's.
type answer struct {
	conn   *conn
	header http.Header
	head   bool // to a HEAD
	now    time.Time

	status  int
	length  int64 // Content-Length, -1 for none
	written int64 // bytes of the body
	sealed  bool  // the header is complete
	close   bool  // the connection ends
	buffer  *[inOne]byte
	out     []byte // what was not sent yet, in buffer if it fits
	failed  error
}

// newAnswer returns the answer to a request that came at a time.
func newAnswer(c *conn, method string, now time.Time) *answer {
	a := &answer{conn: c, header: make(http.Header, fields), head: method == http.MethodHead, now: now, length: -1, buffer: buffers.Get().(*[inOne]byte)}
	a.out = a.buffer[:0]
	return a
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// SetWriteDeadline is for http.ResponseController.
func (a *answer) SetWriteDeadline(t time.Time) error {
	if later := t.Sub(a.conn.writeBy); !t.IsZero() && later >= 0 && later < time.Until(t)/slack {
		return nil
	}
	a.conn.writeBy = t
	return a.conn.SetWriteDeadline(t)
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status != 0 {
		return
	}
	a.status = status
	if n, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64); err == nil && n >= 0 && a.bodied() {
		a.length = n
	} else {
		delete(a.header, "Content-Length")
	}
	a.close = strings.EqualFold(a.header.Get("Connection"), "close")
	a.out = append(strconv.AppendInt(append(a.out, "HTTP/1.1 "...), int64(status), 10), ' ')
	text := http.StatusText(status)
	if text == "" {
		text = "status code " + strconv.Itoa(status)
	}
	a.out = append(append(a.out, text...), "\r\n"...)
	for _, name := range a.names() {
		for _, v := range a.header[name] {
			a.field(name, v)
		}
	}
}

// names are those in the header in order: mostly those of the answer before.
func (a *answer) names() []string {
	same := len(a.conn.names) == len(a.header)
	for i := 0; same && i < len(a.header); i++ {
		_, same = a.header[a.conn.names[i]]
	}
	if !same {
		a.conn.names = slices.Sorted(maps.Keys(a.header))
	}
	return a.conn.names
}

var oneLine = strings.NewReplacer("\n", " ", "\r", " ")

// field appends a field of the header.
func (a *answer) field(name, value string) {
	if strings.IndexByte(value, '\n') >= 0 || strings.IndexByte(value, '\r') >= 0 {
		value = oneLine.Replace(value)
	}
	a.out = append(append(a.out, name...), ": "...)
	a.out = append(append(a.out, textproto.TrimString(value)...), "\r\n"...)
}

// bodied reports whether the answer may have a body.
func (a *answer) bodied() bool {
	return a.status >= 200 && a.status != http.StatusNoContent && a.status != http.StatusNotModified
}

// seal completes the header with what only the server knows. first is how the body begins: without
// it there is none.
func (a *answer) seal(first []byte) {
	a.sealed = true
	if _, ok := a.header["Date"]; !ok {
		a.field("Date", a.conn.lane.dateOf(a.now))
	}
	if _, ok := a.header["Content-Type"]; !ok && len(first) > 0 {
		a.field("Content-Type", http.DetectContentType(first))
	}
	if len(first) == 0 && a.length < 0 && a.bodied() && !a.head {
		a.length = 0
		a.field("Content-Length", "0")
	}
	if last := a.conn.lane.closing.Load() || a.length < 0 && a.bodied() && !a.head; last && !a.close {
		a.close = true
		a.field("Connection", "close")
	}
	a.out = append(a.out, "\r\n"...)
}

// Write implements io.Writer.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.written += int64(len(p))
	switch {
	case len(p) == 0:
		return 0, nil
	case !a.bodied():
		return 0, http.ErrBodyNotAllowed
	case a.length >= 0 && a.written > a.length:
		return 0, http.ErrContentLength
	case a.failed != nil:
		return 0, a.failed
	}
	if !a.sealed {
		a.seal(p)
	}
	return a.send(p), a.failed
}

// send sends a part of the body: at once if it is the last one, or large. It returns how much of it
// is on its way.
func (a *answer) send(p []byte) int {
	header, size := len(a.out), len(p)
	switch {
	case a.head:
		return size
	case header+len(p) <= inOne:
		if a.out = append(a.out, p...); a.written < a.length {
			return size
		}
		p = nil
	}
	return min(max(a.flush(p)-header, 0), size)
}

// flush sends what was not sent yet, and p, and returns how much of both it sent.
func (a *answer) flush(p []byte) (sent int) {
	switch {
	case a.failed != nil:
	case len(p) > 0:
		var n int64
		n, a.failed = (&net.Buffers{a.out, p}).WriteTo(a.conn.TCPConn)
		sent = int(n)
	case len(a.out) > 0:
		sent, a.failed = a.conn.TCPConn.Write(a.out)
	}
	a.out = a.buffer[:0]
	return sent
}

// finish ends the answer, and reports whether another may follow over the connection.
func (a *answer) finish() bool {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if !a.sealed {
		a.seal(nil)
	}
	whole := a.head || a.length < 0 || a.length == a.written
	a.flush(nil)
	keep := a.failed == nil && whole && !a.close
	buffers.Put(a.buffer)
	a.buffer, a.out, a.failed = nil, nil, net.ErrClosed // a handler that goes on has no connection
	return keep
}
