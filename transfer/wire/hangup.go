package wire

import (
	"net"
	"net/http"
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
