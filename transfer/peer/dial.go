package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"oci-proxy/transfer/wait"
)

// A dialer makes connections.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// A dialError says that no connection could be made.
type dialError struct{ cause error }

func (e *dialError) Error() string { return e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

// dialTCP is the dialer of real nodes.
func dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, end := wait.Within(ctx, dialTime, errLate)
	defer end()
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
		Control:         control,
	}
	conn, err := d.DialContext(ctx, network, addr)
	return conn, lateIf(ctx, err)
}

// lateIf returns err, or that it is late if that ended ctx.
func lateIf(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errLate) {
		return fmt.Errorf("connecting: %w", errLate)
	}
	return err
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
		ctx, end := wait.Within(ctx, handshake, errLate)
		defer end()
		safe := tls.Client(conn, cfg)
		if err := safe.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", errors.Join(lateIf(ctx, err), conn.Close()))
		}
		return safe, nil
	}
}
