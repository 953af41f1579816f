package wire

import (
	"container/list"
	"context"
	"math"
	"net"
	"net/http"
	"sync"
)

// A Ledger knows the connections of a server. When there are too many, it closes the one
// that is worth least: the one that has been idle longest, and if none is idle the one that
// has been answered longest without being held. Half a header is no request. Whoever asks
// and does not read the answer is not idle, and would keep its connection for as long as
// answers may take: so only what else is bounded should be held.
type Ledger struct {
	maxIdle int

	mu      sync.Mutex // guards the fields below; never held during I/O
	changed *sync.Cond // a connection went or became idle, or the limit changed
	limit   int
	conns   map[net.Conn]*entry
	idle    list.List // of *entry, the one that has been idle longest first
	loose   list.List // of *entry: they carry requests, and are not held; the one that began first is first
}

// An entry is a connection that is open.
type entry struct {
	conn   net.Conn
	silent bool          // nothing has come over it
	kept   bool          // it is not closed, idle or not
	held   int           // how often Begin was called, and what it returned was not
	in     *list.List    // idle or loose; nil: it is held, or kept
	place  *list.Element // in it
}

// NewLedger returns a Ledger that allows limit connections, maxIdle of them
// idle. 0 means no bound. One beyond maxIdle closes the oldest. One beyond limit
// does too, or one that is not held, and waits in the listener's backlog if all are held.
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
		if !l.closeLeast() {
			l.changed.Wait()
		}
	}
	e := &entry{conn: c, silent: true}
	l.conns[c] = e
	l.rest(e)
	for l.idle.Len() > l.maxIdle && l.closeFirst(&l.idle) {
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

// Answer notes that r is being answered: its connection is closed to make room only if
// none is idle.
func (l *Ledger) Answer(r *http.Request) { l.change(connOf(r), l.loosen) }

// Begin holds r's connection while r is being answered: it is not closed to make room until
// end is called, or the connection is idle again.
func (l *Ledger) Begin(r *http.Request) (end func()) {
	c := connOf(r)
	l.change(c, func(e *entry) {
		e.held++
		l.out(e)
	})
	return func() {
		l.change(c, func(e *entry) {
			if e.held--; e.held <= 0 {
				l.loosen(e)
			}
		})
	}
}

// Keep notes that r's connection is never to be closed to make room.
func (l *Ledger) Keep(r *http.Request) {
	l.change(connOf(r), func(e *entry) {
		e.kept = true
		l.out(e)
	})
}

// Resize changes how many connections may be open, and closes those that are not held until
// they are no more than that.
func (l *Ledger) Resize(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	l.changed.Broadcast()
	for len(l.conns) > l.limit && l.closeLeast() {
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
	e.held = 0
	l.put(e, &l.idle)
}

// loosen makes a connection the last of those that carry a request and are not held.
func (l *Ledger) loosen(e *entry) {
	if e.held <= 0 {
		e.held = 0
		l.put(e, &l.loose)
	}
}

// put makes a connection the last in a list, unless it is kept.
func (l *Ledger) put(e *entry, in *list.List) {
	l.out(e)
	if !e.kept {
		e.in, e.place = in, in.PushBack(e)
	}
}

// out takes a connection out of the list that it is in.
func (l *Ledger) out(e *entry) {
	if e.in != nil {
		e.in.Remove(e.place)
		e.in, e.place = nil, nil
	}
}

// remove forgets a connection.
func (l *Ledger) remove(e *entry) {
	l.out(e)
	delete(l.conns, e.conn)
}

// closeLeast closes the connection that is worth least. It reports false if all are held.
func (l *Ledger) closeLeast() bool { return l.closeFirst(&l.idle) || l.closeFirst(&l.loose) }

// closeFirst closes the first connection of a list. It reports false if there is none. It
// lets go of the lock while it closes.
func (l *Ledger) closeFirst(of *list.List) bool {
	first := of.Front()
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
