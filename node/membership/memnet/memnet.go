// Package memnet is a network in memory for tests of gossip: hosts that speak
// memberlist's packets and streams, with latency and loss, that can be cut
// off from each other, hang, or die. It waits by timers only, so minutes pass
// at once in a testing/synctest bubble. A network belongs to the bubble it is
// made in.
//
// Start with memnet.go (the network), then transport.go (a host) and
// stream.go.
package memnet

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Latencies of a way between two hosts.
const (
	leastLatency = 300 * time.Microsecond
	mostLatency  = 600 * time.Microsecond
)

// A Network connects hosts. All its methods may be called at the same time.
type Network struct {
	mu      sync.Mutex
	rand    *rand.Rand
	hosts   map[netip.AddrPort]*Transport
	hung    map[netip.Addr]bool
	side    map[netip.Addr]int // 0: reaches all
	loss    float64
	packets bool
}

// New makes a network without hosts. What is random comes from seed.
func New(seed uint64) *Network {
	return &Network{
		rand: rand.New(rand.NewPCG(seed, seed)), hosts: map[netip.AddrPort]*Transport{},
		hung: map[netip.Addr]bool{}, side: map[netip.Addr]int{}, packets: true,
	}
}

// Host starts a host at the address, "ip:port". It takes the place of one that
// was there.
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

// Cut parts the network: hosts of different sides don't hear each other. Who
// is on no side hears all. It replaces the cut before; Cut() heals.
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

// Lose makes packets get lost, with the probability p.
func (n *Network) Lose(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = p
}

// Packets says whether there are packets at all, or streams only.
func (n *Network) Packets(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packets = on
}

// Hang makes a host of that address deaf and dumb, though dials to it succeed;
// or wakes it.
func (n *Network) Hang(ip string, hung bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hung[netip.MustParseAddr(ip)] = hung
}

// A way is what a packet or a stream meets between two hosts.
type way struct {
	to      *Transport // nil: nobody is there
	open    bool       // what is sent arrives
	hung    bool       // the other end's kernel answers, but nothing else
	latency time.Duration
}

// way is called with n.mu held.
func (n *Network) way(from, to netip.AddrPort) way {
	a, b := n.side[from.Addr()], n.side[to.Addr()]
	linked := (a == 0 || b == 0 || a == b) && !n.hung[from.Addr()]
	return way{
		to: n.hosts[to], open: linked && !n.hung[to.Addr()], hung: linked && n.hung[to.Addr()],
		latency: leastLatency + time.Duration(n.rand.Int64N(int64(mostLatency-leastLatency))),
	}
}

func (n *Network) find(from, to netip.AddrPort) way {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.way(from, to)
}

// toss is find for a packet, which may be lost on its way.
func (n *Network) toss(from, to netip.AddrPort) (way, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.way(from, to)
	return w, w.to != nil && w.open && n.packets && n.rand.Float64() >= n.loss
}

// leave takes the host off the network, unless another has its place.
func (n *Network) leave(t *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[t.at] == t {
		delete(n.hosts, t.at)
	}
}
