package node

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxPulls bounds the pulls answered at a time.
	maxPulls = 2048
	// filesOfPull is what one may take beside its connection: the file it reads,
	// and for a download the file it fills and the connection it comes by.
	filesOfPull = 3
	// maxFiles bounds the budget where the system's limit is higher: an idle
	// connection takes some 20 KB of memory as well.
	maxFiles = 32 << 10
	// share is how many times as much as is free a client may hold: alone 4/5 of
	// all, so that whoever comes next finds room at once.
	share = 4
)

// errBusy says that a pull was refused because of others.
var errBusy = errors.New("no turn in time: the node is at its limits")

// A budget shares out what a node has, descriptors and pulls, among its
// clients. A connection without a request is worth less than a pull: when
// descriptors run low those go that have been idle for longest; if there are
// none new ones wait in the listener's backlog. Opening a file hence does not
// fail for want of descriptors, whatever clients do.
//
// When all pulls are taken, those who come wait for their turn: first the
// clients that have none running, then the others in turn. So who asks for a
// thousand at once waits for himself alone.
type budget struct {
	files, pulls, waiters int // at most
	patience              time.Duration
	refused               atomic.Int64

	mu      sync.Mutex
	changed *sync.Cond // a connection went, or has become idle
	conns   map[net.Conn]*list.Element
	idle    list.List // of net.Conn, the longest idle first
	active  int       // pulls
	queued  int
	clients map[client]*turns
	fresh   list.List // of *turns that wait and have nothing running
	others  list.List // of *turns that wait
}

// A client is who a pull is for: a login and an address together, since many
// machines may share the one or the other.
type client struct {
	user string
	from netip.Prefix
}

// turns are a client's pulls.
type turns struct {
	client client
	active int
	queue  list.List     // of *waiter
	in     *list.List    // fresh, others, or nil
	place  *list.Element // there
}

// A waiter is a pull that waits.
type waiter struct {
	ready   chan struct{} // closed when it may begin, or is refused
	refused bool
}

// newBudget shares out what a limit of so many open files leaves.
func newBudget(limit int, patience time.Duration) *budget {
	reserve := min(max(limit/10, 128), limit/2) // for peers, gossip, tokens, the cache's own
	files := min(limit-reserve, maxFiles)
	b := &budget{
		// All pulls take half of the descriptors then, all who wait a quarter.
		files: files, pulls: min(max(files/8, 1), maxPulls), waiters: max(files/4, 1), patience: patience,
		conns: map[net.Conn]*list.Element{}, clients: map[client]*turns{},
	}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// openFiles is how many files this process may have open. Go raises the soft
// limit to the hard one before main.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // what nearly every system allows
	}
	return int(min(l.Cur, 1<<20))
}

// watch makes a server tell of its connections.
func (b *budget) watch(srv *http.Server) {
	srv.ConnState = b.state
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
}

type connKey struct{}

// connOf is the connection of a request, nil in tests without one.
func connOf(r *http.Request) net.Conn {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	return c
}

// state notes what becomes of a connection. For a new one it waits until there
// is room, and the listener with it.
func (b *budget) state(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch s {
	case http.StateNew:
		for b.used() >= b.files {
			if !b.closeIdle() {
				b.changed.Wait()
			}
		}
		b.conns[c] = b.idle.PushBack(c)
	case http.StateIdle:
		if place, ok := b.conns[c]; ok {
			b.unlist(place)
			b.conns[c] = b.idle.PushBack(c)
		}
	case http.StateClosed, http.StateHijacked:
		b.unlist(b.conns[c])
		delete(b.conns, c)
	default: // active: half a header may have come, which is worth no more
		return
	}
	b.changed.Broadcast()
}

// busy notes that a request is being answered. Its connection is closed no more
// until it is idle.
func (b *budget) busy(r *http.Request) {
	c := connOf(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	if place := b.conns[c]; place != nil {
		b.unlist(place)
		b.conns[c] = nil
	}
}

// The caller of the functions below holds the lock.

func (b *budget) unlist(place *list.Element) {
	if place != nil {
		b.idle.Remove(place)
	}
}

// used is how many descriptors are taken, or about to be.
func (b *budget) used() int { return len(b.conns) + filesOfPull*b.active }

// closeIdle closes the connection that has been idle for longest.
func (b *budget) closeIdle() bool {
	place := b.idle.Front()
	if place == nil {
		return false
	}
	c := b.idle.Remove(place).(net.Conn)
	delete(b.conns, c)
	closeNow(c)
	return true
}

// closeNow closes a connection without a word, which over TLS could take time.
func closeNow(c net.Conn) { _ = tcpOf(c).Close() } // it is lost either way

// cutNow ends what is sent over a connection by a clean FIN: a reset, which a
// close is where something has come that nobody read, can't be mended by clients.
func cutNow(c net.Conn) {
	if half, ok := tcpOf(c).(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // what is left of it ends with the request
		return
	}
	closeNow(c)
}

// tcpOf is the connection below TLS.
func tcpOf(c net.Conn) net.Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c
}

// begin waits for a pull's turn. Call end when it is answered.
func (b *budget) begin(ctx context.Context, who client) (end func(), err error) {
	w := &waiter{ready: make(chan struct{})}
	b.mu.Lock()
	t := b.clients[who]
	if t == nil {
		t = &turns{client: who}
		b.clients[who] = t
	}
	t.queue.PushBack(w)
	b.queued++
	b.file(t)
	b.dispatch()
	if b.queued > b.waiters {
		b.refuseOne()
	}
	b.mu.Unlock()
	if err := b.wait(ctx, t, w); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { b.end(t) }), nil
}

// wait waits until w is ready.
func (b *budget) wait(ctx context.Context, t *turns, w *waiter) error {
	select { // mostly nobody waits
	case <-w.ready:
		return b.outcome(w)
	default:
	}
	timer := time.NewTimer(b.patience)
	defer timer.Stop()
	err := errBusy
	select {
	case <-w.ready:
		return b.outcome(w)
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if b.withdraw(t, w) {
		if errors.Is(err, errBusy) {
			b.refused.Add(1)
		}
		return err
	}
	return b.outcome(w) // at the last moment
}

func (b *budget) outcome(w *waiter) error {
	if w.refused {
		b.refused.Add(1)
		return errBusy
	}
	return nil
}

// withdraw takes a waiter back, unless it is ready already.
func (b *budget) withdraw(t *turns, w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := t.queue.Front(); e != nil; e = e.Next() {
		if e.Value == w {
			t.queue.Remove(e)
			b.queued--
			b.file(t)
			return true
		}
	}
	return false
}

// end gives a pull's place to the next.
func (b *budget) end(t *turns) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active--
	t.active--
	b.file(t)
	b.dispatch()
	b.changed.Broadcast()
}

// The caller of the functions below holds the lock.

// file puts a client where its turn is looked for: nowhere if it wants none.
func (b *budget) file(t *turns) {
	var in *list.List
	switch {
	case t.queue.Len() == 0:
		if t.active == 0 {
			delete(b.clients, t.client)
		}
	case t.active == 0:
		in = &b.fresh
	default:
		in = &b.others
	}
	if in == t.in {
		return
	}
	if t.in != nil {
		t.in.Remove(t.place)
	}
	if t.in = in; in != nil {
		t.place = in.PushBack(t)
	}
}

// dispatch lets as many begin as there is room for.
func (b *budget) dispatch() {
	for b.active < b.pulls {
		t := b.next()
		if t == nil {
			return
		}
		w := t.queue.Remove(t.queue.Front()).(*waiter)
		b.queued--
		b.active++
		t.active++
		if t.in == &b.others {
			b.others.MoveToBack(t.place)
		}
		b.file(t)
		for b.used() > b.files && b.closeIdle() {
		}
		close(w.ready)
	}
}

// next is the client whose turn it is.
func (b *budget) next() *turns {
	if e := b.fresh.Front(); e != nil {
		return e.Value.(*turns)
	}
	for e := b.others.Front(); e != nil; e = e.Next() {
		if t := e.Value.(*turns); t.active < share*(b.pulls-b.active) {
			return t
		}
	}
	return nil
}

// refuseOne refuses the last of those who wait for the client that has most.
func (b *budget) refuseOne() {
	var most *turns
	for _, in := range []*list.List{&b.others, &b.fresh} {
		for e := in.Front(); e != nil; e = e.Next() {
			if t := e.Value.(*turns); most == nil || t.queue.Len() > most.queue.Len() {
				most = t
			}
		}
	}
	w := most.queue.Remove(most.queue.Back()).(*waiter)
	b.queued--
	b.file(most)
	w.refused = true
	close(w.ready)
}

// figures are how many connections there are, pulls under way and waiting.
func (b *budget) figures() (conns, active, queued int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns), b.active, b.queued
}
