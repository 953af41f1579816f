package membership

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// A hose is the network of one host, on which a test sends.
type hose struct {
	memberlist.Transport
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (h hose) PacketCh() <-chan *memberlist.Packet { return h.packets }
func (h hose) StreamCh() <-chan net.Conn           { return h.streams }
func (h hose) Shutdown() error                     { return nil }

// A distant conn comes from a given address.
type distant struct {
	net.Conn
	from net.Addr
}

func (d distant) RemoteAddr() net.Addr { return d.from }

// open opens a stream from an address through the gate. there is nil if the gate
// refuses it.
func (h hose) open(g *gate, from string) (here, there net.Conn) {
	here, there = net.Pipe()
	h.streams <- distant{there, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	synctest.Wait()
	select {
	case c := <-g.streams:
		return here, c
	default:
		return here, nil
	}
}

func TestStrangersHoldNoMoreThanTheirStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hose{packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}
		g := newGate(h, true, func(a netip.Addr) bool { return a.String() == "10.0.0.1" })
		var held []net.Conn
		for range maxStrangers {
			_, c := h.open(g, "192.0.2.7:1")
			if c == nil {
				t.Fatalf("stream %d of a stranger was refused", len(held)+1)
			}
			held = append(held, c)
		}
		here, c := h.open(g, "192.0.2.8:1")
		if c != nil {
			t.Error("one stream of a stranger too many was let in")
		}
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the refused stream is not closed: %v", err)
		}
		for _, from := range []string{"10.0.0.1:5", "[::ffff:10.0.0.1]:6"} {
			if _, c = h.open(g, from); c == nil {
				t.Errorf("a member's stream from %s was refused", from)
			}
		}
		for range 2 { // the second Close must not give back another slot
			_ = held[0].Close()
		}
		if _, c = h.open(g, "192.0.2.8:1"); c == nil {
			t.Error("the slot of a closed stream was not given back")
		}
		if _, c = h.open(g, "192.0.2.8:1"); c != nil {
			t.Error("a slot was given back twice")
		}
		if err := g.Shutdown(); err != nil {
			t.Error(err)
		}
	})
}

func TestStreamsThatNoMemberSends(t *testing.T) {
	t.Parallel()
	said := func(n uint32, version byte) []byte {
		return append(binary.BigEndian.AppendUint32(append(bytes.Clone(hostileHead), encryptedByte), n), version)
	}
	for name, test := range map[string]struct {
		said []byte
		bad  bool
	}{
		"right":           {said(100, 1), false},
		"the longest":     {said(maxStream, 1), false},
		"too long":        {said(maxStream+1, 1), true},
		"four gigabytes":  {said(1<<32-1, 1), true},
		"empty":           {said(cipherLeast-1, 1), true},
		"other padding":   {said(100, 0), true},
		"plain":           {append(bytes.Clone(hostileHead), 6, 0, 0, 0, 0, 0), false}, // memberlist tells its sender why not
		"without a label": {[]byte{encryptedByte, 255, 255, 255, 255, 0}, false},       // here too
		"no end":          {make([]byte, maxStream+1), true},
	} {
		for _, step := range []int{1, 7, 1 << 21} {
			here, there := net.Pipe()
			go func() {
				for b := test.said; len(b) > 0; b = b[min(step<<10*min(1, len(b)>>12)+step, len(b)):] {
					if _, err := here.Write(b[:min(step<<10*min(1, len(b)>>12)+step, len(b))]); err != nil {
						return
					}
				}
				_ = here.Close()
			}()
			c := &gatedConn{Conn: there, gate: &gate{encrypted: true, head: hostileHead}, leave: func() {}}
			_, err := io.Copy(io.Discard, c)
			if errors.Is(err, errStream) != test.bad {
				t.Errorf("%s, in steps of %d: %v", name, step, err)
			}
			_ = c.Close()
		}
	}
}

// An attacker may replay the messages of a member that left long ago. The member
// is then seen for as long as it takes to find out that it does not answer, and
// no new member appears.
func TestReplayOfAMemberThatIsGone(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.form(3)
		gone := s.nodes[2]
		meta, name := *gone.meta.Load(), title(gone.self.ID, gone.self.Epoch)
		said := seal(1, derive([]string{secret}, forGossip)[0], append([]byte{byte(4)}, message(
			"Incarnation", 1, "Node", name, "Addr", []byte{10, 0, 0, 3}, "Port", 7946, "Meta", meta, "Vsn", []byte{1, 5, 2, 0, 0, 0})...), false)
		s.kill(2)
		s.pass(10 * time.Minute)
		if n := len(s.nodes[0].View().Members); n != 2 {
			s.Fatalf("%d members before", n)
		}
		thief := s.net.Host("192.0.2.1:7946")
		seen := time.Duration(0)
		for range 60 {
			if _, err := thief.WriteTo(said, ip(0)+":7946"); err != nil {
				s.Fatal(err)
			}
			s.pass(time.Second)
			if up(s.nodes[0].View()) > 2 {
				seen += time.Second
			}
		}
		s.Logf("during a minute of replays the member was seen for %v", seen)
		if seen > 20*time.Second {
			s.Errorf("the member that is gone was seen for %v", seen)
		}
		s.reach(time.Minute, "it is gone again", func() bool { return up(s.nodes[0].View()) == 2 && up(s.nodes[1].View()) == 2 })
		_ = thief.Shutdown()
	})
}
