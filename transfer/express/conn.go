package express

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"oci-proxy/transfer/wire"
)

// renewal is how often the deadline of an idle connection is set anew while the lane answers
// over it: each time costs as much as a small answer's header. A connection may end that much
// before its idle time is over.
const renewal = time.Second

// maxFields bounds what is remembered of a request's fields in bytes, for each idle connection.
const maxFields = 1 << 10

// A conn is a connection whose reads pass the lane. net/http never reads it twice at a time, so
// what only reads touch needs no lock.
type conn struct {
	*wire.Conn
	lane    *Lane
	ctx     context.Context // of its requests, as net/http has it
	fresh   bool            // net/http has answered nothing yet
	awake   bool            // it waits for a request and has no byte of it
	retired bool            // it is net/http's for good
	renewed time.Time       // when the lane set the deadline for reading
	writeBy time.Time       // the deadline for writing that the lane set, zero for none

	last   *http.Request // that was simple, nil for none
	fields string        // its lines after the first
	names  []string      // in the header of the last answer
}

// Read implements net.Conn. It returns once net/http is needed.
func (c *conn) Read(p []byte) (int, error) {
	if !c.awake && !c.retired && len(p) == 1 {
		// net/http answers, and reads a byte ahead to learn that the client leaves. To a fast client's
		// next request that byte must not be lost.
		return 0, c.AwaitEnd()
	}
	for {
		n, err := c.Conn.Read(p)
		if n == 0 {
			return n, err
		}
		h, simple := c.look(p[:n])
		if !simple || c.fresh || !c.lane.held(h.path) || !c.lane.enter() {
			c.pass()
			return n, err
		}
		if !c.respond(h) {
			return 0, io.EOF
		}
	}
}

// look reads bytes as a simple request, and reports whether they are one. If they are not surely
// one request, and nothing else, the connection is net/http's from now on.
func (c *conn) look(b []byte) (h head, simple bool) {
	if c.retired || !c.awake {
		c.retired = true
		return h, false
	}
	h, ok := parse(b)
	if ok && c.last != nil && string(h.fields) == c.fields { // clients repeat them, and the handler changes none
		return h, true
	}
	r, alone, simple := read(b)
	c.retired = !alone
	if !ok || !simple || len(h.fields) > maxFields {
		return h, false
	}
	r.RemoteAddr = c.RemoteAddr().String()
	c.last, c.fields = r, string(h.fields)
	return h, true
}

// respond has the server's handler answer a request, and reports whether the connection goes on.
func (c *conn) respond(h head) bool {
	defer c.lane.under.Add(-1) // after a panic, too: it ends the connection, as net/http has it
	now := time.Now()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	r := c.last.WithContext(ctx)
	r.Method, r.RequestURI, r.URL = h.method, h.path, &url.URL{Path: h.path}
	a := newAnswer(c, h.method, now)
	c.lane.srv.Handler.ServeHTTP(a, r)
	if !a.finish() || c.lane.closing.Load() {
		return false
	}
	c.rest(time.Now())
	return true
}

// rest makes the connection one that waits for a request.
func (c *conn) rest(now time.Time) {
	if now.Sub(c.renewed) > renewal {
		c.renewed = now
		_ = c.SetReadDeadline(now.Add(c.lane.srv.IdleTimeout)) // it fails on a connection that has ended
	}
	c.lane.note(c, http.StateIdle)
}

// pass makes the connection what net/http left.
func (c *conn) pass() {
	if !c.writeBy.IsZero() {
		_ = c.Conn.SetWriteDeadline(time.Time{}) // as above
	}
	c.awake, c.renewed, c.writeBy = false, time.Time{}, time.Time{}
}
