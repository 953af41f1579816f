package wire

import (
	"cmp"
	"io"
	"net"
	"net/http"
	"syscall"
)

// CutShort ends what is sent over r's connection by a clean FIN. Clients mend
// that; they can't mend a reset, which a close becomes when something has come
// that nobody read. It reports false if the connection is not known.
func CutShort(r *http.Request) bool {
	c := connOf(r)
	if c == nil {
		return false
	}
	if half, ok := belowTLS(c).(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the rest of the connection ends with the request
	} else {
		hangUp(c)
	}
	return true
}

// EndByReset makes whatever ends r's connection a reset, a kill of this process too, until
// end is called. end(false) ends it so, and end(true) lets it end as others do: the answer
// is whole. To a client of HTTP/1.0, which knows no chunks, the end of the connection is
// the end of the answer (RFC 9112 section 8): only a reset tells a part from the whole. It
// does nothing if the connection is not known.
func EndByReset(r *http.Request) (end func(whole bool)) {
	c := connOf(r)
	tcp, ok := belowTLS(c).(interface{ SetLinger(sec int) error })
	if !ok {
		return func(bool) {}
	}
	_ = tcp.SetLinger(0) // it fails on a connection that has ended
	return func(whole bool) {
		if !whole {
			hangUp(c)
			return
		}
		_ = tcp.SetLinger(-1) // likewise
	}
}

// AwaitEnd waits until the client ends the connection, or the deadline for reading is over, and returns
// the error of either; the client's is io.EOF if all is well. What comes meanwhile stays to be read, and
// nobody hears of an end behind it.
func (c *Conn) AwaitEnd() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var end error
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if end = err; n == 0 {
			end = io.EOF
		}
		return n <= 0 && err != syscall.EAGAIN
	})
	return cmp.Or(err, end)
}

// hangUp closes a connection without TLS's last word, for which it could have to
// wait.
func hangUp(c net.Conn) { _ = belowTLS(c).Close() } // the connection is given up either way

// belowTLS is the connection that TLS runs over, or c itself.
func belowTLS(c net.Conn) net.Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c
}
