package wire

import (
	"io"
	"net"
	"sync"
)

// Listener returns l, whose TCP connections are [Conn]s: they let an answer's header and a small body
// leave in one write, see [Paced]. net/http would make two of them: its buffer holds 4 KiB. It is for servers
// without TLS.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &Conn{TCPConn: tcp}, nil
	}
	return c, err
}

// A Conn is a connection of a Listener. It can hold an answer's header back until its body comes.
// Only the goroutine that answers writes.
type Conn struct {
	*net.TCPConn
	held    *[maxHeld]byte // what is held back; nil: nothing is to be
	n       int            // bytes of it
	parts   [2][]byte
	buffers net.Buffers // over parts
}

// maxHeld bounds the bytes that are held back: a header, and what net/http sends along with it. A
// larger one leaves in a write of its own. Each slow client keeps so much in memory.
const maxHeld = 2 << 10

var heldBuffers = sync.Pool{New: func() any { return new([maxHeld]byte) }}

// below is the Conn that a connection of another room is made of.
func (c *Conn) below() *Conn { return c }

// Write implements io.Writer.
func (c *Conn) Write(p []byte) (int, error) {
	if c.held != nil && c.n+len(p) <= maxHeld {
		c.n += copy(c.held[c.n:], p)
		return len(p), nil
	}
	return c.release(p)
}

// ReadFrom implements io.ReaderFrom.
func (c *Conn) ReadFrom(src io.Reader) (int64, error) {
	if m, ok := src.(*memory); ok {
		n, err := c.release(m.left)
		m.left = m.left[n:]
		return int64(n), err
	}
	if c.held != nil {
		if _, err := c.release(nil); err != nil {
			return 0, err
		}
	}
	return c.TCPConn.ReadFrom(src)
}

// release writes what is held back and then p, in one call of the system if it can, and returns how
// much of p it wrote. From now on nothing is held back.
func (c *Conn) release(p []byte) (int, error) {
	if c.held == nil {
		return c.TCPConn.Write(p)
	}
	c.parts = [2][]byte{c.held[:c.n], p}
	c.buffers = c.parts[:]
	n, err := c.buffers.WriteTo(c.TCPConn)
	n = max(n-int64(c.n), 0)
	heldBuffers.Put(c.held)
	c.parts, c.held, c.n = [2][]byte{}, nil, 0
	return int(n), err
}

// writeWhole writes p, a body or the first piece of one, by net/http's writer over c. The header goes with
// it, if it has not gone.
func (c *Conn) writeWhole(to io.ReaderFrom, p []byte) (int, error) {
	c.held = heldBuffers.Get().(*[maxHeld]byte)
	n, err := to.ReadFrom(&memory{p})
	if c.held != nil { // net/http had reasons to send less, or nothing
		if _, flushed := c.release(nil); err == nil {
			err = flushed
		}
	}
	return int(n), err
}

// A memory is a body that is all there.
type memory struct{ left []byte }

// Read implements io.Reader.
func (m *memory) Read(p []byte) (int, error) {
	if len(m.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.left)
	m.left = m.left[n:]
	return n, nil
}
