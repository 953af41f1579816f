// Package express answers the simplest requests faster than net/http does: GET and HEAD of
// what the node holds and is small, over connections without TLS.
//
// A [Lane] is a filter of what a [http.Server] reads. While net/http waits for another request
// over a connection, the lane looks at what comes (conn.go). If that is exactly one request of a
// strict form, and for something that is held, the lane gives it to the server's own handler,
// there and then (answer.go). All else net/http reads as it came, the first request of each
// connection too. Both ways lead to the same handler, and clients get the same answers, which the
// fuzz test compares byte for byte.
//
// Nothing is ever framed twice. What passes the lane must be one whole request without a body, in
// one piece, by net/http's own parser; after anything else the connection is net/http's for good.
package express

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/wait"
	"oci-proxy/transfer/wire"
)

// A Lane answers requests for what is held. Its methods may be called from any goroutine.
type Lane struct {
	srv     *http.Server
	held    func(path string) bool
	note    func(net.Conn, http.ConnState) // the server's own ConnState
	date    atomic.Pointer[stamp]
	under   atomic.Int64                 // answers under way
	closing atomic.Bool                  // no more begin
	port    atomic.Pointer[net.Listener] // of Listener, which may be called while Shutdown is
}

// New puts a lane before a server, which has a Handler, ConnState, ConnContext and IdleTimeout, and
// is to serve on Listener. held reports without I/O whether the handler has what a path names at
// hand, so that it does not wait long for anybody but the client: it hears that the client has left
// only when it writes.
func New(srv *http.Server, held func(path string) bool) *Lane {
	l := &Lane{srv: srv, held: held, note: srv.ConnState}
	within := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		ctx = within(ctx, c)
		if mine, ok := c.(*conn); ok {
			mine.ctx = context.WithValue(ctx, http.LocalAddrContextKey, c.LocalAddr())
		}
		return ctx
	}
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		if mine, ok := c.(*conn); ok && s == http.StateIdle {
			mine.fresh, mine.awake = false, !mine.retired
		}
		l.note(c, s)
	}
	return l
}

// Listener returns inner, whose TCP connections have the lane in front of the server. Call it once.
func (l *Lane) Listener(inner net.Listener) net.Listener {
	port := wire.Listener(inner)
	l.port.Store(&port)
	return listener{port, l}
}

type listener struct {
	net.Listener
	lane *Lane
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if under, ok := c.(*wire.Conn); ok {
		return &conn{Conn: under, lane: l.lane, fresh: true, awake: true}, nil
	}
	return c, err
}

// Close implements net.Listener. It fails only if Shutdown has closed the port.
func (l listener) Close() error {
	_ = l.Listener.Close()
	return nil
}

// poll is how often Shutdown looks whether answers are under way.
const poll = 5 * time.Millisecond

// Shutdown closes the listener and waits until the lane answers nobody, or ctx ends. From its begin on
// net/http has all requests. Call it before the server's Shutdown, which takes connections of the lane for idle.
func (l *Lane) Shutdown(ctx context.Context) error {
	l.closing.Store(true)
	if port := l.port.Load(); port != nil {
		_ = (*port).Close() // the server's Shutdown closes it again
	}
	for l.under.Load() > 0 {
		if err := wait.For(ctx, poll); err != nil {
			return err
		}
	}
	return nil
}

// enter counts an answer as under way. It reports false if none may begin.
func (l *Lane) enter() bool {
	if l.under.Add(1); l.closing.Load() {
		l.under.Add(-1)
		return false
	}
	return true
}

// A stamp is a second as the header Date tells it.
type stamp struct {
	second int64
	text   string
}

// dateOf is the header Date of a time.
func (l *Lane) dateOf(t time.Time) string {
	known := l.date.Load()
	if known == nil || known.second != t.Unix() {
		known = &stamp{t.Unix(), t.UTC().Format(http.TimeFormat)}
		l.date.Store(known)
	}
	return known.text
}
