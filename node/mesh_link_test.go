package node

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// links are the paths of requests between the nodes of a test, one for each direction.
// Gossip takes other paths, so a trouble of a link does not disturb it.
type links struct {
	mu  sync.Mutex
	at  map[string]int // nodes by their peers' address
	all map[[2]int]*link
	tap func([]byte) // sees everything that goes over them, if it is set before the nodes start
}

// A tapped connection shows all its bytes to tap.
type tapped struct {
	net.Conn
	tap func([]byte)
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.tap(p[:n])
	return n, err
}

func (c tapped) Write(p []byte) (int, error) {
	c.tap(p)
	return c.Conn.Write(p)
}

// of returns the link for requests of node from to node to.
func (l *links) of(from, to int) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, ok := l.all[[2]int{from, to}]
	if !ok {
		one = &link{changed: make(chan struct{})}
		l.all[[2]int{from, to}] = one
	}
	return one
}

// is notes which node has that address.
func (l *links) is(addr string, node int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at[addr] = node
}

// dial returns how a node makes connections.
func (l *links) dial(from int) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		l.mu.Lock()
		to := l.at[addr]
		l.mu.Unlock()
		one := l.of(from, to)
		if now, _ := one.look(); now.cut {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		d := net.Dialer{Timeout: patience}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if l.tap != nil {
			conn = tapped{conn, l.tap}
		}
		f := &faultyConn{Conn: conn, link: one, closed: make(chan struct{})}
		f.hangUp = sync.OnceValue(func() error { close(f.closed); return conn.Close() })
		return f, nil
	}
}

// A trouble is what is wrong with a link. The zero value is no trouble.
type trouble struct {
	cut    bool  // connections are refused and reset
	silent bool  // nothing gets through, as with a stopped process
	rate   int64 // bytes per second, at most; 0: no limit
}

// A link has a trouble, or none.
type link struct {
	mu      sync.Mutex
	now     trouble
	changed chan struct{} // closed when now changes
}

func (l *link) set(f trouble) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = f
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) look() (now trouble, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// A faultyConn is a connection over a link.
type faultyConn struct {
	net.Conn
	link   *link
	closed chan struct{}
	hangUp func() error

	mu   sync.Mutex
	kept []byte // written while the link was silent
}

// Close implements net.Conn.
func (c *faultyConn) Close() error { return c.hangUp() }

// Read implements net.Conn. What arrived is held back for as long as the link is in
// trouble.
func (c *faultyConn) Read(p []byte) (int, error) {
	if now, _ := c.link.look(); now.rate > 0 {
		p = p[:min(len(p), 16<<10)]
	}
	n, err := c.Conn.Read(p)
	for {
		now, changed := c.link.look()
		switch {
		case now.cut:
			_ = c.hangUp() // as a reset does
			return 0, syscall.ECONNRESET
		case now.silent:
			select {
			case <-changed:
				continue
			case <-c.closed:
				return 0, net.ErrClosed
			}
		case now.rate > 0:
			select {
			case <-time.After(time.Duration(n) * time.Second / time.Duration(now.rate)):
			case <-c.closed:
				return 0, net.ErrClosed
			}
		}
		if ferr := c.flush(); ferr != nil && err == nil {
			err = ferr
		}
		return n, err
	}
}

// Write implements net.Conn. A writer does not notice at once that nobody reads.
func (c *faultyConn) Write(p []byte) (int, error) {
	now, _ := c.link.look()
	switch {
	case now.cut:
		_ = c.hangUp() // as a reset does
		return 0, syscall.ECONNRESET
	case now.silent:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kept = append(c.kept, p...)
		return len(p), nil
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// flush sends what was written while the link was silent.
func (c *faultyConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.kept)
	c.kept = nil
	return err
}

// hang makes a node hang: no request to it and none of its own gets through.
func (c *testCluster) hang(i int) { c.around(i, trouble{silent: true}) }

// around puts a trouble on all links of a node.
func (c *testCluster) around(i int, f trouble) {
	for j := range c.nodes {
		if j != i {
			c.links.of(i, j).set(f)
			c.links.of(j, i).set(f)
		}
	}
}

// heal ends all troubles.
func (l *links) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.all {
		one.set(trouble{})
	}
}

// awaitHealthy waits until no node passes over another.
func (c *testCluster) awaitHealthy() {
	c.t.Helper()
	c.await("nobody is passed over", func() bool {
		for _, one := range c.running() {
			for _, other := range c.running() {
				if other != one && !one.node.cluster.Client().Healthy(other.node.cluster.Members().View().Self.ID) {
					return false
				}
			}
		}
		return true
	})
}

// A port is a listener that can be cut as a crash cuts it.
type port struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func openPort(addr string) (*port, error) {
	l, err := net.Listen("tcp", addr)
	return &port{Listener: l}, err
}

// Accept implements net.Listener.
func (p *port) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conns = append(p.conns, conn)
	}
	return conn, err
}

// cut resets all connections.
func (p *port) cut() {
	_ = p.Close() // it may be closed already
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it may be closed
		}
		_ = conn.Close()
	}
}
