// Package express answers the simplest requests faster than net/http does: GET and HEAD
// of what the node holds, over connections without TLS.
//
// A [Lane] is a filter of what a [http.Server] reads. While net/http waits for a request, the
// lane looks at what comes (conn.go). If that is exactly one request of a strict form (head.go),
// and for something that is held, the lane gives it to the server's own handler, there and then
// (answer.go). All else net/http reads as it came. Both ways meet the same handler, and clients
// get the same answer, which the fuzz test compares byte for byte.
//
// Nothing is ever framed by both. What the lane lets through must be one whole request without a
// body, in one piece; after anything else it leaves that connection to net/http for good.
package express

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/wire"
)

// A Lane answers requests for what is held. Its methods may be called from any goroutine.
type Lane struct {
	srv  *http.Server
	held func(path string) bool
	note func(net.Conn, http.ConnState) // the server's own ConnState
	date atomic.Pointer[stamp]

	closing atomic.Bool // set under mu
	mu      sync.Mutex  // guards the fields below; never held during I/O
	conns   map[*conn]bool
	ended   chan struct{} // has room for one; told of each answer's end once closing is set
}

// New puts a lane before a server, whose Handler, ConnState and ConnContext are set. The server
// is to serve on Listener. held reports whether the handler can answer for a path at once, as far
// as is known without I/O.
func New(srv *http.Server, held func(path string) bool) *Lane {
	l := &Lane{srv: srv, held: held, note: srv.ConnState, conns: map[*conn]bool{}, ended: make(chan struct{}, 1)}
	if l.note == nil {
		l.note = func(net.Conn, http.ConnState) {}
	}
	within := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if within != nil {
			ctx = within(ctx, c)
		}
		if mine, ok := c.(*conn); ok {
			mine.ctx = context.WithValue(ctx, http.LocalAddrContextKey, c.LocalAddr())
		}
		return ctx
	}
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		if mine, ok := c.(*conn); ok && s == http.StateIdle {
			mine.awake = !mine.retired
		}
		l.note(c, s)
	}
	return l
}

// Listener returns inner, whose TCP connections have the lane in front of the server.
func (l *Lane) Listener(inner net.Listener) net.Listener {
	return listener{wire.Listener(inner), l}
}

type listener struct {
	net.Listener
	lane *Lane
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if under, ok := c.(*wire.Conn); ok {
		return &conn{Conn: under, lane: l.lane, awake: true}, nil
	}
	return c, err
}

// Shutdown waits until the lane answers nobody, or ctx ends. From its begin on net/http has all
// requests, and connections over which the lane answered last are closed. Call it before the
// server's Shutdown, which would take them for idle, or for new.
func (l *Lane) Shutdown(ctx context.Context) error {
	l.mu.Lock()
	l.closing.Store(true)
	var idle []*conn
	for c, answering := range l.conns {
		if !answering {
			idle = append(idle, c)
		}
	}
	l.mu.Unlock()
	for _, c := range idle {
		_ = c.Close() // nothing is under way there
	}
	for l.answering() {
		select {
		case <-l.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// answering reports whether anybody is being answered.
func (l *Lane) answering() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, answering := range l.conns {
		if answering {
			return true
		}
	}
	return false
}

// enter notes that an answer begins. It reports false if none may begin.
func (l *Lane) enter(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing.Load() {
		return false
	}
	l.conns[c] = true
	return true
}

// leave notes that an answer has ended, and reports whether the connection stays.
func (l *Lane) leave(c *conn, stays bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = false
	if !l.closing.Load() {
		return stays
	}
	select {
	case l.ended <- struct{}{}:
	default: // Shutdown has not heard of the one before
	}
	return false
}

// forget notes that a connection is net/http's, or closed.
func (l *Lane) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// A stamp is a second as the header Date tells it.
type stamp struct {
	second int64
	text   []byte
}

// dateOf is the header Date of a time.
func (l *Lane) dateOf(t time.Time) []byte {
	known := l.date.Load()
	if known == nil || known.second != t.Unix() {
		known = &stamp{t.Unix(), t.UTC().AppendFormat(nil, http.TimeFormat)}
		l.date.Store(known)
	}
	return slices.Clip(known.text)
}
