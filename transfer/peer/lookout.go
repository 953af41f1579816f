package peer

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"oci-proxy/transfer/wait"
)

// ErrDead says that the address of a member refuses connections.
var ErrDead = errors.New("nobody listens at its address any more")

// A lookout sees at once that a boot of a member is dead. When a process ends, its kernel
// ends its connections, idle ones too, and refuses new ones. So the end of a connection
// makes the lookout dial, and a refusal, also of a connection that somebody wanted, is
// told. Whoever is merely late, or can't be reached, is not told of.
type lookout struct {
	dial dialer
	addr string
	life context.Context // of the link
	own  *wait.Life      // of the looks
	tell func()          // answers at once

	looking, told atomic.Bool
}

// connect is the dialer of the lookout's connections.
func (l *lookout) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := l.dial(ctx, network, addr)
	switch {
	case err == nil:
		l.told.Store(false)
		return &guarded{Conn: conn, by: l}, nil
	case errors.Is(err, syscall.ECONNREFUSED) && l.life.Err() == nil && l.told.CompareAndSwap(false, true):
		l.tell()
	}
	return nil, err
}

// look finds out in the background whether anybody listens still. It looks twice: a process
// that is ending may close its connections before it stops to listen.
func (l *lookout) look() {
	if l.life.Err() != nil || !l.looking.CompareAndSwap(false, true) {
		return
	}
	l.own.Go(func() {
		defer l.looking.Store(false)
		for range 2 {
			conn, err := l.connect(l.life, "tcp", l.addr)
			if err != nil {
				return
			}
			_ = conn.Close() // nothing was asked
			if wait.For(l.life, lookStep) != nil {
				return
			}
		}
	})
}

// A guarded connection makes the lookout look when the member ends it.
type guarded struct {
	net.Conn
	by    *lookout
	ended atomic.Bool // by this node
}

// Close implements net.Conn.
func (g *guarded) Close() error {
	g.ended.Store(true)
	return g.Conn.Close()
}

// Read implements net.Conn.
func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if err != nil && !g.ended.Load() && !errors.Is(err, os.ErrDeadlineExceeded) {
		g.by.look()
	}
	return n, err
}
