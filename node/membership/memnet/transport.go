package memnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// backlog bounds the packets and the streams that wait for a host.
const backlog = 1024

func newPackets() chan *memberlist.Packet { return make(chan *memberlist.Packet, backlog) }
func newStreams() chan net.Conn           { return make(chan net.Conn, backlog) }

// A Transport is a host on a network.
type Transport struct {
	net     *Network
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{} // closed when the host dies
	die     sync.Once
}

var _ memberlist.Transport = (*Transport)(nil)

// FinalAdvertiseAddr returns the address that is to be advertised, or else the host's
// own.
func (t *Transport) FinalAdvertiseAddr(ip string, _ int) (net.IP, int, error) {
	if a, err := netip.ParseAddr(ip); err == nil {
		return a.AsSlice(), int(t.at.Port()), nil
	}
	return t.at.Addr().AsSlice(), int(t.at.Port()), nil
}

// PacketCh returns the channel of packets that arrive.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh returns the channel of streams that others open.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteTo sends a packet, which may get lost.
func (t *Transport) WriteTo(b []byte, address string) (time.Time, error) {
	now := time.Now()
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return now, err
	}
	if t.dead() {
		return now, net.ErrClosed
	}
	l, arrives := t.net.forPacket(t.at, to, len(b))
	if !arrives {
		return now, nil
	}
	b = append([]byte(nil), b...)
	time.AfterFunc(l.latency, func() {
		p := &memberlist.Packet{Buf: b, From: net.UDPAddrFromAddrPort(t.at), Timestamp: time.Now()}
		select {
		case l.to.packets <- p:
		default: // the socket's buffer is full
		}
	})
	return now, nil
}

// DialTimeout opens a stream.
func (t *Transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	l := t.net.forStream(t.at, to)
	wait, failure := 2*l.latency, error(nil)
	switch {
	case t.dead():
		return nil, net.ErrClosed
	case !l.open && !l.hung:
		wait, failure = timeout, errTimeout
	case l.to == nil || l.to.dead():
		failure = fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	select {
	case <-time.After(wait):
	case <-t.done:
		return nil, net.ErrClosed
	}
	if failure != nil {
		return nil, failure
	}
	here, there := streamPair(t, l.to)
	if l.hung {
		return here, nil
	}
	select {
	case l.to.streams <- there:
		return here, nil
	default:
		return nil, errors.New("the backlog is full")
	}
}

var errTimeout = fmt.Errorf("dial: %w", syscall.ETIMEDOUT)

func (t *Transport) dead() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// Shutdown makes the host die without telling anybody.
func (t *Transport) Shutdown() error {
	t.die.Do(func() {
		t.net.leave(t)
		close(t.done)
	})
	return nil
}
