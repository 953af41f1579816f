package membership

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"oci-proxy/transfer/wait"
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

// open opens a stream from an address through the gate.
func (h hose) open(t *testing.T, g *gate, from string) (here, there net.Conn) {
	t.Helper()
	here, there = net.Pipe()
	h.streams <- distant{there, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	synctest.Wait()
	select {
	case c := <-g.streams:
		return here, c
	default:
		t.Fatalf("a stream from %s was refused", from)
		return nil, nil
	}
}

// ended reports whether the other end of a stream is closed.
func ended(here net.Conn) bool {
	_ = here.SetReadDeadline(time.Now().Add(time.Millisecond)) // in the bubble
	_, err := here.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

// A new stream always gets in. For it the oldest one ends, of the address that has its
// share or else of the one that has the most.
func TestStrangersEndTheirOldestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hose{packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}
		g := newGate(h, program, true, func(a netip.Addr) bool { return a.String() == "10.0.0.1" })
		open := func(from string) net.Conn { here, _ := h.open(t, g, from); return here }

		quiet := open("198.51.100.1:1")
		var one []net.Conn
		for i := range 100 {
			one = append(one, open([]string{"[2001:db8::1]:1", "[2001:db8::2]:1"}[i%2])) // one /64
		}
		for i, here := range one {
			if ended(here) != (i < 100-maxFromOne) {
				t.Fatalf("of 100 streams from one address, number %d has the wrong end", i)
			}
		}
		first := make([]net.Conn, 0, 50)
		for i := range 47 { // 64 in all
			first = append(first, open(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 1).String()))
		}
		last := open("192.0.2.8:1")
		if !ended(one[100-maxFromOne]) || ended(one[100-maxFromOne+1]) {
			t.Error("the oldest stream of the address that has the most has not ended, or another has")
		}
		for name, here := range map[string]net.Conn{"the first": quiet, "a single one": first[0], "the last": last} {
			if ended(here) {
				t.Errorf("%s stream has ended", name)
			}
		}
		for range 200 {
			open("10.0.0.1:5")
			open("[::ffff:10.0.0.1]:6")
		}
		if n := len(g.strangers.all); n != maxStrangers || ended(quiet) {
			t.Errorf("members' streams count as strangers': there are %d", n)
		}
		if err := g.Shutdown(); err != nil {
			t.Error(err)
		}
	})
}

// A stream that is closed no longer counts.
func TestAClosedStreamCountsNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := hose{packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}
		g := newGate(h, program, true, func(netip.Addr) bool { return false })
		_, first := h.open(t, g, "192.0.2.7:1")
		second, _ := h.open(t, g, "192.0.2.7:1")
		for range 2 {
			_ = first.Close()
		}
		for range maxFromOne - 1 {
			h.open(t, g, "192.0.2.7:1")
		}
		if n := len(g.strangers.all); n != maxFromOne || ended(second) {
			t.Errorf("%d streams, want %d", n, maxFromOne)
		}
		h.open(t, g, "192.0.2.7:1")
		if !ended(second) {
			t.Error("the share was exceeded")
		}
		if err := g.Shutdown(); err != nil {
			t.Error(err)
		}
	})
}

// Whatever strangers leave half said, a new member joins.
func TestAMemberJoinsBesideHalfStreams(t *testing.T) {
	t.Parallel()
	label := header(program)
	for name, test := range map[string]struct {
		hosts int
		said  []byte
		pause time.Duration // between two bytes
	}{
		"nothing":                        {1, nil, 0},
		"the label":                      {1, label, 0},
		"the label byte for byte":        {1, bytes.Repeat(label[:1], 40), 100 * time.Millisecond},
		"a megabyte announced":           {1, append(bytes.Clone(label), encryptedByte, 0, 16, 0, 0, 1), 0},
		"from 5 addresses":               {5, label, 0},
		"from 100 addresses, each a few": {100, label, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(s *sim) {
				s.form(2)
				ctx, stop := context.WithCancel(s.Context())
				var attack sync.WaitGroup
				for i := range 500 {
					thief := s.net.Host(fmt.Sprintf("192.0.2.%d:%d", 1+i%test.hosts, 1000+i))
					attack.Go(func() {
						for ctx.Err() == nil {
							half(ctx, thief, ip(0)+":7946", test.said, test.pause)
							_ = wait.For(ctx, 200*time.Millisecond)
						}
						_ = thief.Shutdown()
					})
				}
				s.pass(time.Second)
				began := time.Now()
				s.start(2)
				s.Logf("joined in %v", s.reach(5*time.Second, "each node sees all", s.whole))
				if time.Since(began) > 5*time.Second {
					s.Error("too late")
				}
				stop()
				attack.Wait()
			})
		})
	}
}

// half opens a stream, says the beginning of something, and waits until it is closed.
func half(ctx context.Context, from memberlist.Transport, to string, said []byte, pause time.Duration) {
	conn, err := from.DialTimeout(to, time.Second)
	if err != nil {
		_ = wait.For(ctx, 100*time.Millisecond)
		return
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	size := max(1, len(said))
	if pause > 0 {
		size = 1
	}
	for step := range slices.Chunk(said, size) {
		if _, err := conn.Write(step); err != nil {
			return
		}
		_ = wait.For(ctx, pause)
	}
	_, _ = conn.Read(make([]byte, 1))
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
		said := seal(1, derive(defaultCluster, []string{secret}, forGossip)[0], append([]byte{byte(4)}, message(
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

// Streams from the addresses of other members that live are no strangers'.
func TestFriendsAreWhereMembersLive(t *testing.T) {
	t.Parallel()
	r := newRoster(identity{newID(), 1}, time.Minute)
	six, own := someone(), someone()
	own.ID, own.Epoch = r.self, 1
	for m, at := range map[*Member]string{six: "2001:db8::9", own: "10.0.0.8"} {
		n := told(m)
		n.Addr = net.ParseIP(at)
		r.live(n)
	}
	four := someone()
	r.live(told(four)) // at 10.0.0.9
	want := func(at string, friend bool) {
		t.Helper()
		if r.friend(netip.MustParseAddr(at)) != friend {
			t.Errorf("%s is a friend: %v", at, !friend)
		}
	}
	want("10.0.0.9", true)
	want("2001:db8::9", true)
	for _, at := range []string{"10.0.0.90", "10.0.0.8", "1.10.0.0", "2001:db8::99", "2001:db8::"} {
		want(at, false)
	}
	r.lost(title(four.ID, four.Epoch))
	want("10.0.0.9", false)
}
