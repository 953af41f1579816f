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

// A conn is a connection whose reads pass the lane. net/http never reads it twice at a time, so
// what only reads touch needs no lock.
type conn struct {
	*wire.Conn
	lane    *Lane
	ctx     context.Context // of its requests, as net/http has it
	awake   bool            // net/http waits for a request and has no byte of it
	retired bool            // it is net/http's for good
	served  bool            // the lane has answered since it woke
	renewed time.Time       // when the lane set the deadline for reading
	writeBy time.Time       // the deadline for writing that the lane set, zero for none

	request *http.Request // of the last answer, used again
	fields  string        // the lines that its header was read from
	answer  answer
}

// Read implements net.Conn. It returns once net/http is needed.
func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if n == 0 {
			return n, err
		}
		switch c.serve(p[:n]) {
		case passed:
			return n, err
		case over:
			return 0, io.EOF
		case answered:
		}
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.lane.forget(c)
	return c.Conn.Close()
}

// A result is what became of bytes that were read.
type result int

const (
	passed   result = iota // they are net/http's
	answered               // they were a request, and are answered
	over                   // likewise, and the connection ends
)

// serve answers a request, or leaves it to net/http.
func (c *conn) serve(b []byte) result {
	if !c.awake {
		c.retired = true // net/http has a byte of a request already, or the rest of a body
		return passed
	}
	h, f := parse(b)
	if f != unclear {
		f = min(f, c.know(h.fields))
	}
	if f == simple && c.lane.held(h.path) && c.lane.enter(c) {
		return c.respond(h)
	}
	c.awake, c.retired = false, f == unclear
	c.pass()
	return passed
}

// know reads the fields of a request, unless they are those of the last one: clients repeat them.
// The handler changes no header of a request.
func (c *conn) know(fields []byte) form {
	if c.request != nil && string(fields) == c.fields {
		return simple
	}
	header, host, f := read(fields)
	if f != simple {
		return f
	}
	if c.request == nil {
		c.request = (&http.Request{
			URL: new(url.URL), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: c.RemoteAddr().String(),
		}).WithContext(&presence{Context: c.ctx, conn: c})
	}
	c.request.Header, c.request.Host, c.fields = header, host, string(fields)
	return simple
}

// respond answers a request.
func (c *conn) respond(h head) (r result) {
	now, keep := time.Now(), false
	defer func() { // after a panic, too: it ends the connection, as net/http has it
		if !c.lane.leave(c, keep) {
			r = over
		}
	}()
	if !c.served {
		c.served = true
		c.lane.note(c, http.StateActive)
	}
	if keep = c.handle(h, now); keep {
		c.rest(now)
	}
	return answered
}

// handle has the server's handler answer a request, and reports whether another may follow.
func (c *conn) handle(h head, now time.Time) bool {
	c.request.Method, c.request.RequestURI, c.request.URL.Path = h.method, h.path, h.path
	here := c.request.Context().(*presence)
	here.begin()
	defer here.end()
	c.answer.reset(c, h.method, now)
	defer c.answer.release()
	c.lane.srv.Handler.ServeHTTP(&c.answer, c.request)
	return c.answer.finish()
}

// rest makes the connection one that waits for a request.
func (c *conn) rest(now time.Time) {
	if now.Sub(c.renewed) > renewal {
		c.renewed = now
		idle := c.lane.srv.IdleTimeout
		if idle == 0 {
			idle = c.lane.srv.ReadTimeout
		}
		c.readWithin(now, idle)
	}
	c.lane.note(c, http.StateIdle)
}

// pass makes the connection what net/http left.
func (c *conn) pass() {
	if !c.served {
		return
	}
	c.lane.forget(c)
	first := c.lane.srv.ReadHeaderTimeout // a part of a head has come
	if first == 0 {
		first = c.lane.srv.ReadTimeout
	}
	c.readWithin(time.Now(), first)
	if !c.writeBy.IsZero() {
		_ = c.Conn.SetWriteDeadline(time.Time{}) // it fails on a connection that has ended
	}
	c.served, c.renewed, c.writeBy = false, time.Time{}, time.Time{}
}

// readWithin bounds reading; 0 is no bound.
func (c *conn) readWithin(now time.Time, d time.Duration) {
	by := time.Time{}
	if d > 0 {
		by = now.Add(d)
	}
	_ = c.SetReadDeadline(by) // it fails on a connection that has ended
}
