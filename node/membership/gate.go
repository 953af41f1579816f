package membership

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of what anybody who reaches the port can make this node hold: memberlist
// takes any number of streams, and of each 20 MiB before it knows the sender.
const (
	maxStream    = 1 << 20 // bytes of what a stream says: that of a mesh of 1,500
	maxStrangers = 64      // streams at a time from addresses of no member
)

// What memberlist's traffic looks like from outside.
const (
	labelByte     = 244 // a label follows: its length, then its bytes
	encryptedByte = 10  // in a stream: four bytes of length follow
	cipherVersion = 1   // the other one, 0, has padding that memberlist trusts
	cipherLeast   = 1 + 12 + 1 + 16
)

// A gate stands between the network and memberlist. It bounds what strangers
// can make the node hold, and keeps out what memberlist would die of although
// it is encrypted with the right key: an empty message, and padding that is
// longer than what it pads.
type gate struct {
	memberlist.Transport
	keyed   bool
	friend  func(netip.Addr) bool // a member that lives has that address
	head    []byte                // the label as it travels
	packets chan *memberlist.Packet
	streams chan net.Conn
	slots   chan struct{} // of strangers
	done    chan struct{} // closed when nothing comes any more
	passing sync.WaitGroup
	die     sync.Once
}

// newGate begins to let in what comes from the network. Shutdown ends it.
func newGate(network memberlist.Transport, keyed bool, friend func(netip.Addr) bool) *gate {
	g := &gate{
		Transport: network, keyed: keyed, friend: friend, head: append([]byte{labelByte, byte(len(label))}, label...),
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		slots: make(chan struct{}, maxStrangers), done: make(chan struct{}),
	}
	g.passing.Go(g.passPackets)
	g.passing.Go(g.passStreams)
	return g
}

// PacketCh implements memberlist.Transport.
func (g *gate) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh implements memberlist.Transport.
func (g *gate) StreamCh() <-chan net.Conn { return g.streams }

// DialTimeout implements memberlist.Transport. The answer is bounded too: who
// has a seed's address may be anybody.
func (g *gate) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	conn, err := g.Transport.DialTimeout(address, timeout)
	if err != nil {
		return nil, err
	}
	return &gatedConn{Conn: conn, gate: g, leave: func() {}}, nil
}

// Shutdown implements memberlist.Transport.
func (g *gate) Shutdown() error {
	err := g.Transport.Shutdown()
	g.die.Do(func() { close(g.done) })
	g.passing.Wait()
	return err
}

// passPackets lets packets in.
func (g *gate) passPackets() {
	in := g.Transport.PacketCh()
	for {
		select {
		case p := <-in:
			if !g.sound(p.Buf) {
				continue
			}
			select {
			case g.packets <- p:
			case <-g.done:
				return
			}
		case <-g.done:
			return
		}
	}
}

// sound reports whether memberlist may look at the packet. What is not even
// labelled it refuses itself, and says so.
func (g *gate) sound(packet []byte) bool {
	sealed, labelled := bytes.CutPrefix(packet, g.head)
	return !g.keyed || !labelled || len(sealed) >= cipherLeast && sealed[0] == cipherVersion
}

// passStreams lets streams in, of strangers no more than there are slots for.
func (g *gate) passStreams() {
	in := g.Transport.StreamCh()
	for {
		var conn net.Conn
		select {
		case conn = <-in:
		case <-g.done:
			return
		}
		c := g.admit(conn)
		if c == nil {
			_ = conn.Close() // whoever it is may come again
			continue
		}
		select {
		case g.streams <- c:
		case <-g.done:
			_ = c.Close() // nobody is there any more
			return
		}
	}
}

// admit lets the stream in, or returns nil.
func (g *gate) admit(conn net.Conn) net.Conn {
	leave := func() {}
	if a, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err != nil || !g.friend(a.Addr().Unmap()) {
		select {
		case g.slots <- struct{}{}:
			leave = func() { <-g.slots }
		default:
			return nil
		}
	}
	return &gatedConn{Conn: conn, gate: g, leave: sync.OnceFunc(leave)}
}

// A gatedConn ends when more comes than can be right.
type gatedConn struct {
	net.Conn
	gate  *gate
	leave func() // gives the slot back
	came  int    // bytes
	first []byte // as many of them as are looked at
}

var errStream = errors.New("no stream of a member")

// Read implements net.Conn.
func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.came += n
	if most := len(c.gate.head) + 6; len(c.first) < most {
		c.first = append(c.first, p[:min(n, most-len(c.first))]...)
	}
	if bad := c.judge(); bad != nil {
		return 0, bad
	}
	return n, err
}

// judge looks at what has come by now.
func (c *gatedConn) judge() error {
	if c.came > maxStream {
		return fmt.Errorf("%w: more than %d bytes", errStream, maxStream)
	}
	sealed, labelled := bytes.CutPrefix(c.first, c.gate.head)
	if !c.gate.keyed || !labelled || len(sealed) < 5 || sealed[0] != encryptedByte {
		return nil
	}
	switch n := binary.BigEndian.Uint32(sealed[1:]); {
	case n < cipherLeast || n > maxStream:
		return fmt.Errorf("%w: it would have %d bytes", errStream, n)
	case len(sealed) > 5 && sealed[5] != cipherVersion:
		return fmt.Errorf("%w: its encryption is another one", errStream)
	}
	return nil
}

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// network is what memberlist would make for the settings itself. It notes the
// port where that was free to choose.
func (m *Membership) network(c *memberlist.Config) (memberlist.Transport, error) {
	if m.cfg.Transport != nil {
		return m.cfg.Transport, nil
	}
	const tries = 10 // a port that is free for TCP may be taken for UDP
	for try := 1; ; try++ {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: log.New(m.murmur, "", 0)})
		switch {
		case err == nil && c.BindPort == 0:
			c.BindPort = t.GetAutoBindPort()
			c.AdvertisePort = c.BindPort
			return t, nil
		case err == nil:
			return t, nil
		case c.BindPort != 0 || try == tries || !strings.Contains(err.Error(), "address already in use"):
			return nil, err
		}
	}
}

// friend reports whether a member that lives has that address.
func (r *roster) friend(a netip.Addr) bool {
	for gossip := range r.gossips() {
		if at, err := netip.ParseAddrPort(gossip); err == nil && at.Addr().Unmap() == a {
			return true
		}
	}
	return false
}
