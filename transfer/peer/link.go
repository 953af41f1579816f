package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Limits of a connection.
const (
	dialTime      = time.Second
	handshakeTime = 2 * time.Second
	idleTime      = 90 * time.Second // the server's is longer
	deadAfter     = 10 * time.Second // nothing acknowledged for so long
	bulkIdle      = 8                // connections kept for blobs
	controlIdle   = 2                // and for all else
	bulkBuffer    = 64 << 10
)

// A link is what a client keeps of one boot of a member: connections and
// health. A member that restarted, or shows another address or certificate,
// gets a new one, so that nothing of the old is used for it.
type link struct {
	member        Member
	life          context.Context // ends when the link is given up
	end           context.CancelFunc
	bulk, control *http.Transport
	pulse         pulse
}

// newLink returns a link to m. life bounds it.
func newLink(life context.Context, m Member, dial dialer) *link {
	m.Nonce = bytes.Clone(m.Nonce)
	l := &link{member: m}
	l.life, l.end = context.WithCancel(life)
	through := dial
	if m.Fingerprint != ([32]byte{}) {
		through = dial.secured(pinned(m.Fingerprint))
	}
	l.bulk = transport(through.to(m.Addr), bulkIdle)
	l.bulk.ReadBufferSize = bulkBuffer
	l.control = transport(through.to(m.Addr), controlIdle)
	return l
}

// fits reports whether the link is one to m as it is now.
func (l *link) fits(m Member) bool {
	return l.member.Addr == m.Addr && l.member.Fingerprint == m.Fingerprint && bytes.Equal(l.member.Nonce, m.Nonce)
}

// close gives the link up. Streams that are open go on.
func (l *link) close() {
	l.end()
	l.hangUp()
}

// hangUp closes the connections that nobody uses.
func (l *link) hangUp() {
	l.bulk.CloseIdleConnections()
	l.control.CloseIdleConnections()
}

// transport makes the connections for one purpose. It never looks at the
// environment for a proxy. HTTP/1.1 only, as for registries: each blob has a
// connection to itself, and the kernel copies at the other end.
func transport(dial dialer, idle int) *http.Transport {
	t := &http.Transport{
		DialContext:            dial,
		DisableCompression:     true,
		MaxIdleConns:           idle,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHeader,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// A dialer makes connections.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// A dialError says that no connection came about.
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

// control is a net.Dialer's: a connection on which nothing is acknowledged for
// so long is dead (tcp(7)). Where it can't be set, the keepalive has to do.
func control(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(deadAfter.Milliseconds()))
	})
}

// to leads to addr whatever the URL says, and marks its errors.
func (d dialer) to(addr string) dialer {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := d(ctx, network, addr)
		if err != nil {
			return nil, &dialError{err}
		}
		return conn, nil
	}
}

// secured does TLS over d's connections.
func (d dialer) secured(cfg *tls.Config) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTime)
		defer cancel()
		safe := tls.Client(conn, cfg)
		if err := safe.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", errors.Join(err, conn.Close()))
		}
		return safe, nil
	}
}
