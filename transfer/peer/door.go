package peer

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// maxStrangers bounds the connections over which no member has asked anything
// yet. Members too have such: dialled ahead, or just now.
const maxStrangers = 512

// A door keeps those who only connect from taking all of the node's
// descriptors: whoever has been there longest without a signed request goes.
type door struct {
	mu    sync.Mutex
	order list.List // of net.Conn
	place map[net.Conn]*list.Element
}

// watch makes a server tell of its connections.
func (d *door) watch(srv *http.Server) {
	srv.ConnState = d.note
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, doorKey{}, c) }
}

type doorKey struct{}

// note is told of each connection's state.
func (d *door) note(c net.Conn, s http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s {
	case http.StateNew:
		if d.place == nil {
			d.place = map[net.Conn]*list.Element{}
		}
		d.place[c] = d.order.PushBack(c)
		if d.order.Len() > maxStrangers {
			first := d.order.Front().Value.(net.Conn)
			d.forget(first)
			hangUp(first)
		}
	case http.StateClosed, http.StateHijacked:
		d.forget(c)
	case http.StateActive, http.StateIdle: // what has come may be anything
	}
}

// greet notes that a member asks over the request's connection.
func (d *door) greet(r *http.Request) {
	if c, ok := r.Context().Value(doorKey{}).(net.Conn); ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.forget(c)
	}
}

// forget is called with mu held.
func (d *door) forget(c net.Conn) {
	if place := d.place[c]; place != nil {
		d.order.Remove(place)
		delete(d.place, c)
	}
}

// hangUp closes a connection without a word, which over TLS could take time.
func hangUp(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	_ = c.Close() // it is lost either way
}
