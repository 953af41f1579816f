package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// A dialer makes connections.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// A dialError says that no connection could be made.
type dialError struct{ cause error }

func (e *dialError) Error() string { return e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

// dialTCP is the dialer of real nodes.
func dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTime,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
		Control:         control,
	}
	return d.DialContext(ctx, network, addr)
}

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall does not name.
const tcpUserTimeout = 18

// control is a net.Dialer's. It makes the kernel give up a connection on which
// nothing is acknowledged for deadTime (tcp(7)).
func control(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(deadTime.Milliseconds()))
	})
}

// to connects to addr whatever the URL says, and marks its errors.
func (d dialer) to(addr string) dialer {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := d(ctx, network, addr)
		if err != nil {
			return nil, &dialError{err}
		}
		return conn, nil
	}
}

// secured does TLS over d's connections. A handshake may take that long.
func (d dialer) secured(cfg *tls.Config, handshake time.Duration) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshake)
		defer cancel()
		safe := tls.Client(conn, cfg)
		if err := safe.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", errors.Join(err, conn.Close()))
		}
		return safe, nil
	}
}
