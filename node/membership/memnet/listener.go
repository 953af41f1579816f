package memnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// dialTime bounds how long a host is dialled.
const dialTime = time.Second

// A listener takes the streams that others open to a host.
type listener struct {
	host   *Transport
	closed chan struct{}
	once   *sync.Once
}

// Listen makes a host at the address, "ip:port", for servers of other protocols.
func (n *Network) Listen(address string) (net.Listener, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, err
	}
	return listener{n.Host(address), make(chan struct{}), new(sync.Once)}, nil
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.host.streams:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Streams that are open go on.
func (l listener) Close() error {
	l.once.Do(func() {
		l.host.net.leave(l.host)
		close(l.closed)
	})
	return nil
}

// Addr implements net.Listener.
func (l listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.host.at) }

// Dial opens a stream to the address, "ip:port", for a host at the ip from.
func (n *Network) Dial(ctx context.Context, from, address string) (net.Conn, error) {
	t := &Transport{net: n, at: netip.AddrPortFrom(netip.MustParseAddr(from), 0), done: make(chan struct{})}
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled, 1)
	go func() {
		conn, err := t.DialTimeout(address, dialTime)
		done <- dialled{conn, err}
	}()
	select {
	case d := <-done:
		return d.conn, d.err
	case <-ctx.Done():
		go func() {
			if d := <-done; d.conn != nil {
				_ = d.conn.Close() // nobody wants it
			}
		}()
		return nil, errors.Join(context.Cause(ctx), ctx.Err())
	}
}
