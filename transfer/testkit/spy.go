package testkit

import (
	"io"
	"net"
	"os"
	"sync/atomic"
)

// A Spy is a TCP listener that counts what the kernel copies from files to its
// connections.
type Spy struct {
	net.Listener
	files atomic.Int64
}

// Files returns how many bytes the kernel copied from files.
func (s *Spy) Files() int64 { return s.files.Load() }

// Accept implements net.Listener.
func (s *Spy) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &SpiedConn{c.(*net.TCPConn), s}, nil
}

// A SpiedConn is a connection of a Spy.
type SpiedConn struct {
	*net.TCPConn
	spy *Spy
}

// ReadFrom is what net/http calls. A TCPConn uses sendfile only for an *os.File
// directly below one *io.LimitedReader.
func (c *SpiedConn) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if ok {
		_, ok = limited.R.(*os.File)
	}
	n, err := c.TCPConn.ReadFrom(src)
	if ok {
		c.spy.files.Add(n)
	}
	return n, err
}
