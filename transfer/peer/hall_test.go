package peer

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A hall is a listener in memory.
type hall struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newHall() *hall {
	h := &hall{conns: make(chan net.Conn), done: make(chan struct{})}
	h.close = sync.OnceFunc(func() { close(h.done) })
	return h
}

func (h *hall) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *hall) Close() error   { h.close(); return nil }
func (h *hall) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// meet hands a connection to the server.
func (h *hall) meet(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
	}
}

// A script is a connection that sends a fixed text and then ends.
type script struct {
	said  *strings.Reader
	mu    sync.Mutex
	heard bytes.Buffer
	over  chan struct{}
	close func()
}

func (c *script) Read(p []byte) (int, error) { return c.said.Read(p) }
func (c *script) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard.Write(p)
}
func (c *script) Close() error        { c.close(); return nil }
func (c *script) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (c *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (c *script) SetDeadline(time.Time) error      { return nil }
func (c *script) SetReadDeadline(time.Time) error  { return nil }
func (c *script) SetWriteDeadline(time.Time) error { return nil }

// say sends said over a new connection and returns what comes back.
func (h *hall) say(said string, secure *tls.Config) string {
	if secure != nil {
		return h.whisper(said, secure)
	}
	c := &script{said: strings.NewReader(said), over: make(chan struct{})}
	c.close = sync.OnceFunc(func() { close(c.over) })
	h.meet(c)
	select {
	case <-c.over:
	case <-h.done:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard.String()
}

// whisper is say over TLS.
func (h *hall) whisper(said string, secure *tls.Config) string {
	here, there := net.Pipe()
	h.meet(there)
	_ = here.SetDeadline(time.Now().Add(5 * time.Second))
	conn := tls.Client(here, secure)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.WriteString(conn, said)
		_ = conn.CloseWrite()
	}()
	got, _ := io.ReadAll(io.LimitReader(conn, 1<<20))
	_ = here.Close()
	<-done
	return string(got)
}
