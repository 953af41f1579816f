// Package memnet is an in-memory network for tests of gossip. Its hosts exchange
// memberlist's packets and streams, with latency and loss. They can be cut off from
// each other, hang, or die. The network waits by timers only, so in a
// testing/synctest bubble minutes pass at once. A network belongs to the bubble that
// it is made in.
//
// Start with memnet.go (the network), then transport.go (a host) and stream.go.
package memnet

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// The latency between two hosts.
const (
	leastLatency = 300 * time.Microsecond
	mostLatency  = 600 * time.Microsecond
)

// A Network connects hosts. Its methods are safe for concurrent use.
type Network struct {
	mu      sync.Mutex // guards the fields below; never held during I/O
	rand    *rand.Rand
	hosts   map[netip.AddrPort]*Transport
	hung    map[netip.Addr]bool
	side    map[netip.Addr]int // of a cut; 0: reaches all hosts
	loss    float64            // the probability that a packet gets lost
	packets bool               // false: only streams arrive
}

// New makes a network without hosts. All randomness comes from the seed.
func New(seed uint64) *Network {
	return &Network{
		rand: rand.New(rand.NewPCG(seed, seed)), hosts: map[netip.AddrPort]*Transport{},
		hung: map[netip.Addr]bool{}, side: map[netip.Addr]int{}, packets: true,
	}
}

// Host starts a host at the address, "ip:port". It replaces any host at that address.
func (n *Network) Host(address string) *Transport {
	t := &Transport{
		net: n, at: netip.MustParseAddrPort(address),
		packets: newPackets(), streams: newStreams(), done: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[t.at] = t
	return t
}

// Cut splits the network: hosts on different sides can't reach each other. A host on
// no side reaches all. A cut replaces the one before; Cut() heals the network.
func (n *Network) Cut(sides ...[]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.side)
	for i, side := range sides {
		for _, ip := range side {
			n.side[netip.MustParseAddr(ip)] = i + 1
		}
	}
}

// Lose makes each packet get lost with the probability p.
func (n *Network) Lose(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = p
}

// Packets sets whether packets arrive, or only streams do.
func (n *Network) Packets(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packets = on
}

// Hang makes the host at that address hang, or wakes it. A hung host neither reads nor
// sends, but connections to it still succeed.
func (n *Network) Hang(ip string, hung bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hung[netip.MustParseAddr(ip)] = hung
}

// A link is what lies between two hosts for a packet or a stream.
type link struct {
	to      *Transport // nil: no host is there
	open    bool       // what is sent arrives
	hung    bool       // the other host hangs: only its kernel answers
	latency time.Duration
}

// link is called with n.mu held.
func (n *Network) link(from, to netip.AddrPort) link {
	a, b := n.side[from.Addr()], n.side[to.Addr()]
	linked := (a == 0 || b == 0 || a == b) && !n.hung[from.Addr()]
	return link{
		to: n.hosts[to], open: linked && !n.hung[to.Addr()], hung: linked && n.hung[to.Addr()],
		latency: leastLatency + time.Duration(n.rand.Int64N(int64(mostLatency-leastLatency))),
	}
}

// forStream returns the link for a stream.
func (n *Network) forStream(from, to netip.AddrPort) link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.link(from, to)
}

// forPacket returns the link for a packet, and whether the packet arrives.
func (n *Network) forPacket(from, to netip.AddrPort) (l link, arrives bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l = n.link(from, to)
	return l, l.to != nil && l.open && n.packets && n.rand.Float64() >= n.loss
}

// leave removes the host from the network, unless another one has replaced it.
func (n *Network) leave(t *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[t.at] == t {
		delete(n.hosts, t.at)
	}
}
