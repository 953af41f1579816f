package wire

import (
	"container/list"
	"context"
	"math"
	"net"
	"net/http"
	"sync"
)

// A Ledger knows the connections of a server. A connection that carries no
// request is worth less than one that does: when there are too many, the one
// that has been idle longest is closed. Half a header is no request.
type Ledger struct {
	maxIdle int

	mu      sync.Mutex // guards the fields below; never held during I/O
	changed *sync.Cond // a connection went or became idle, or the limit changed
	limit   int
	conns   map[net.Conn]*entry
	idle    list.List // of *entry, the one that has been idle longest first
}

// An entry is a connection that is open.
type entry struct {
	conn   net.Conn
	silent bool          // nothing has come over it
	kept   bool          // it is not closed, idle or not
	place  *list.Element // in idle; nil: it carries a request, or is kept
}

// NewLedger returns a Ledger that allows limit connections, maxIdle of them
// idle. 0 means no bound. One beyond maxIdle closes the oldest. One beyond limit
// does too, and waits in the listener's backlog if none is idle.
func NewLedger(limit, maxIdle int) *Ledger {
	l := &Ledger{limit: unbounded(limit), maxIdle: unbounded(maxIdle), conns: map[net.Conn]*entry{}}
	l.changed = sync.NewCond(&l.mu)
	return l
}

// unbounded reads 0 as no bound.
func unbounded(n int) int {
	if n == 0 {
		return math.MaxInt
	}
	return n
}

// Watch makes srv tell the ledger of its connections.
func (l *Ledger) Watch(srv *http.Server) {
	srv.ConnState = l.note
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
}

type connKey struct{}

// connOf is the connection of a request, nil if no ledger watches its server.
func connOf(r *http.Request) net.Conn {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	return c
}

// note is http.Server.ConnState.
func (l *Ledger) note(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		l.add(c)
	case http.StateActive: // something has come, maybe half a header
		l.change(c, func(e *entry) { e.silent = false })
	case http.StateIdle:
		l.change(c, l.rest)
	case http.StateClosed, http.StateHijacked:
		l.change(c, l.remove)
	}
}

// add enters a new connection. It waits, and the listener with it, until there is
// room.
func (l *Ledger) add(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.conns) >= l.limit {
		if !l.closeOldest() {
			l.changed.Wait()
		}
	}
	e := &entry{conn: c, silent: true}
	l.conns[c] = e
	l.rest(e)
	for l.idle.Len() > l.maxIdle && l.closeOldest() {
	}
}

// change changes the entry of a connection that is in the ledger.
func (l *Ledger) change(c net.Conn, how func(*entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.conns[c]; e != nil {
		how(e)
		l.changed.Broadcast()
	}
}

// Begin notes that r is being answered: its connection is not closed until it is
// idle again.
func (l *Ledger) Begin(r *http.Request) { l.change(connOf(r), l.busy) }

// Keep notes that r's connection is never to be closed to make room.
func (l *Ledger) Keep(r *http.Request) {
	l.change(connOf(r), func(e *entry) {
		e.kept = true
		l.busy(e)
	})
}

// Resize changes how many connections may be open, and closes idle ones until
// they are no more than that.
func (l *Ledger) Resize(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	l.changed.Broadcast()
	for len(l.conns) > l.limit && l.closeOldest() {
	}
}

// CloseSilent closes the connections over which nothing has come. Peers dial
// ahead; a shutdown would wait five seconds for each of those.
func (l *Ledger) CloseSilent() {
	l.mu.Lock()
	var silent []net.Conn
	for c, e := range l.conns {
		if e.silent {
			silent = append(silent, c)
		}
	}
	l.mu.Unlock()
	for _, c := range silent {
		hangUp(c)
	}
}

// Len is how many connections are open.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// The caller of the methods below holds the lock.

// rest makes a connection the last in the order of idleness.
func (l *Ledger) rest(e *entry) {
	l.busy(e)
	if !e.kept {
		e.place = l.idle.PushBack(e)
	}
}

// busy takes a connection out of the order of idleness.
func (l *Ledger) busy(e *entry) {
	if e.place != nil {
		l.idle.Remove(e.place)
		e.place = nil
	}
}

// remove forgets a connection.
func (l *Ledger) remove(e *entry) {
	l.busy(e)
	delete(l.conns, e.conn)
}

// closeOldest closes the connection that has been idle longest. It reports false
// if none is idle. It lets go of the lock while it closes.
func (l *Ledger) closeOldest() bool {
	first := l.idle.Front()
	if first == nil {
		return false
	}
	e := first.Value.(*entry)
	l.remove(e)
	l.mu.Unlock()
	defer l.mu.Lock()
	hangUp(e.conn)
	return true
}
