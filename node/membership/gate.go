package membership

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// These bound what anybody who reaches the port can make this node hold.
// memberlist itself takes any number of streams, and reads up to 20 MiB of each
// before it knows the sender.
const (
	maxStream = 1 << 20 // bytes of a stream; a mesh of 1,500 needs that
	maxDrain  = 1 << 16 // bytes read of a stream that belongs elsewhere, so that its sender hears why
)

// How memberlist's traffic begins.
const (
	labelByte     = 244             // a label follows: its length, then its bytes
	encryptedByte = 10              // in a stream: four bytes of length follow
	cipherVersion = 1               // version 0 has padding whose length memberlist does not check
	cipherLeast   = 1 + 12 + 1 + 16 // version, nonce, one byte, tag
)

// A gate stands between the network and memberlist. It bounds what strangers can
// make the node hold. It also keeps out what would crash memberlist even when it
// is encrypted with the right key: an empty message, and padding longer than the
// message.
type gate struct {
	memberlist.Transport
	encrypted bool
	friend    func(netip.Addr) bool // reports whether a live member has the address
	head      []byte                // the label as it travels
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	strangers strangers
	kept      atomic.Bool   // the network outlives the gate
	done      chan struct{} // closed at the end
	passing   sync.WaitGroup
	die       sync.Once
}

// newGate makes a gate and starts to let in traffic. Shutdown ends it.
func newGate(network memberlist.Transport, label string, encrypted bool, friend func(netip.Addr) bool) *gate {
	g := &gate{
		Transport: network, encrypted: encrypted, friend: friend, head: header(label),
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{}),
	}
	g.passing.Go(g.passPackets)
	g.passing.Go(g.passStreams)
	return g
}

// header returns a label as it travels.
func header(label string) []byte { return append([]byte{labelByte, byte(len(label))}, label...) }

// elsewhere answers a stream of another cluster. It does not tell the id of this one.
var elsewhere = header(program + ":another cluster")

// PacketCh implements memberlist.Transport.
func (g *gate) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh implements memberlist.Transport.
func (g *gate) StreamCh() <-chan net.Conn { return g.streams }

// DialTimeout implements memberlist.Transport. The answer is bounded too: anybody
// may have a seed's address.
func (g *gate) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	conn, err := g.Transport.DialTimeout(address, timeout)
	if err != nil {
		return nil, err
	}
	return &gatedConn{Conn: conn, gate: g, outward: true, leave: func() {}}, nil
}

// Shutdown implements memberlist.Transport.
func (g *gate) Shutdown() error {
	var err error
	if !g.kept.Load() {
		err = g.Transport.Shutdown()
	}
	g.die.Do(func() { close(g.done) })
	g.passing.Wait()
	return err
}

// keep makes Shutdown leave the network open.
func (g *gate) keep() { g.kept.Store(true) }

// detach ends the gate and leaves the network open.
func (g *gate) detach() error {
	g.keep()
	return g.Shutdown()
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

// sound reports whether memberlist may see the packet. memberlist itself refuses
// packets without our label, and logs that.
func (g *gate) sound(packet []byte) bool {
	sealed, labelled := bytes.CutPrefix(packet, g.head)
	return !g.encrypted || !labelled || len(sealed) >= cipherLeast && sealed[0] == cipherVersion
}

// passStreams lets streams in.
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
		select {
		case g.streams <- c:
		case <-g.done:
			_ = c.Close() // memberlist has ended
			return
		}
	}
}

// admit returns the stream as memberlist may read it. A stranger's may end another.
func (g *gate) admit(conn net.Conn) net.Conn {
	var from netip.Addr
	if a, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		from = a.Addr().Unmap()
	}
	c := &gatedConn{Conn: conn, gate: g, leave: func() {}}
	if !from.IsValid() || !g.friend(from) {
		c.leave = g.strangers.enter(c, from)
	}
	return c
}

// A gatedConn fails as soon as what it reads can't come from a member.
type gatedConn struct {
	net.Conn
	gate    *gate
	outward bool   // this node dialled
	leave   func() // the stream ends
	came    int    // bytes read
	first   []byte // the first of them, which judge looks at
}

var (
	errStream    = errors.New("not a member's stream")
	errElsewhere = errors.New("it belongs to another cluster")
)

// Read implements net.Conn.
func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.came += n
	if most := max(len(c.gate.head)+6, len(elsewhere)); len(c.first) < most {
		c.first = append(c.first, p[:min(n, most-len(c.first))]...)
	}
	if bad := c.judge(); bad != nil {
		return 0, bad
	}
	return n, err
}

// judge checks what has been read so far.
func (c *gatedConn) judge() error {
	if c.came > maxStream {
		return fmt.Errorf("%w: it has more than %d bytes", errStream, maxStream)
	}
	if err := c.stray(); err != nil {
		return err
	}
	sealed, labelled := bytes.CutPrefix(c.first, c.gate.head)
	if !c.gate.encrypted || !labelled || len(sealed) < 5 || sealed[0] != encryptedByte {
		return nil
	}
	switch n := binary.BigEndian.Uint32(sealed[1:]); {
	case n < cipherLeast || n > maxStream:
		return fmt.Errorf("%w: it claims to have %d bytes", errStream, n)
	case len(sealed) > 5 && sealed[5] != cipherVersion:
		return fmt.Errorf("%w: its encryption has an unknown version", errStream)
	}
	return nil
}

// stray returns an error if the other end is a node of another cluster. If it dialled,
// it is told; else it has just said so.
func (c *gatedConn) stray() error {
	if c.outward {
		if bytes.HasPrefix(c.first, elsewhere) {
			return errElsewhere
		}
		return nil
	}
	label, ours := c.first, c.gate.head
	n := min(len(label), len(ours))
	if len(label) < 2+len(program) || !bytes.HasPrefix(label[2:], []byte(program)) || label[0] != labelByte || bytes.Equal(label[:n], ours[:n]) {
		return nil
	}
	if _, err := c.Conn.Write(elsewhere); err != nil {
		return fmt.Errorf("%w, and can't be told: %w", errElsewhere, err)
	}
	// Closing now, before the rest is read, would reset the stream and lose the answer.
	_, _ = io.CopyN(io.Discard, c.Conn, maxDrain)
	return errElsewhere
}

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// listen opens the network as memberlist would. It returns the address, with the port
// that it chose if c's is 0.
func listen(c *memberlist.Config) (memberlist.Transport, netip.AddrPort, error) {
	const tries = 10 // a port that is free for TCP may be taken for UDP
	for try := 1; ; try++ {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger})
		switch {
		case err == nil:
			at, err := netip.ParseAddr(c.BindAddr)
			return t, netip.AddrPortFrom(at, uint16(cmp.Or(c.BindPort, t.GetAutoBindPort()))), err
		case c.BindPort != 0 || try == tries || !strings.Contains(err.Error(), "address already in use"):
			return nil, netip.AddrPort{}, err
		}
	}
}

// friend reports whether another live member has the address.
func (r *roster) friend(a netip.Addr) bool {
	host := net.JoinHostPort(a.String(), "")
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, boots := range r.boots {
		for _, b := range boots {
			if id != r.self && b.member.alive && strings.HasPrefix(b.member.Gossip, host) {
				return true
			}
		}
	}
	return false
}
