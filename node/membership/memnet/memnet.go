// Package memnet is an in-memory network for tests. Its hosts exchange memberlist's
// packets and streams, with latency, loss and a bound on what a host can send. They can
// be cut off from each other, hang, or die. The network waits by timers only, so in a
// testing/synctest bubble minutes pass at once. A network belongs to the bubble that
// it is made in.
//
// Start with memnet.go (the network), then transport.go (a host), stream.go and
// listener.go. oracle.go stands for memberlist where there are too many nodes for it.
package memnet

import (
	"encoding/binary"
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
	seed uint64

	mu      sync.Mutex // guards the fields below; never held during I/O
	rand    *rand.Rand
	hosts   map[netip.AddrPort]*Transport
	hung    map[netip.Addr]bool
	side    map[netip.Addr]int // of a cut; 0: reaches all hosts
	loss    float64            // the probability that a packet gets lost
	packets bool               // false: only streams arrive
	rate    int64              // bytes a second that a host's streams can send, 0: no bound
	free    map[netip.Addr]time.Time
	starved Turn // of all hosts
	sent    map[netip.AddrPort]Sent
}

// Sent is what a host has sent.
type Sent struct {
	Packets, PacketBytes int64
	StreamBytes          int64
}

// New makes a network without hosts. All randomness comes from the seed.
func New(seed uint64) *Network {
	return &Network{
		seed: seed, rand: rand.New(rand.NewPCG(seed, seed)), hosts: map[netip.AddrPort]*Transport{},
		hung: map[netip.Addr]bool{}, side: map[netip.Addr]int{}, packets: true,
		free: map[netip.Addr]time.Time{}, sent: map[netip.AddrPort]Sent{},
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

// Bound sets how many bytes a second a host's streams can send, all together; 0: no bound.
func (n *Network) Bound(rate int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rate = rate
}

// A Turn is when a starved host runs: for On, once each Each. Each host has its own moment for
// that. Without Each it always runs.
type Turn struct{ On, Each time.Duration }

// Starve makes all hosts send and read in their turn only, as on a machine with too many
// programs. Timers of the programs are not held up.
func (n *Network) Starve(t Turn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.starved = t
}

// runs returns when the host runs next, from t on. The caller holds n.mu.
func (n *Network) runs(host netip.Addr, t time.Time) time.Time {
	each := uint64(n.starved.Each)
	if each == 0 {
		return t
	}
	b := host.As16()
	in := (uint64(t.UnixNano()) + mix(n.seed^binary.BigEndian.Uint64(b[8:]))) % each
	if in < uint64(n.starved.On) {
		return t
	}
	return t.Add(time.Duration(each - in))
}

// carry returns when what a host sends at t leaves it, and sets the link's latency to when
// the other host reads it. The caller holds n.mu.
func (n *Network) carry(l *link, from, to netip.AddrPort, t time.Time) (left time.Time) {
	left = n.runs(from.Addr(), t)
	l.latency = n.runs(to.Addr(), left.Add(l.latency)).Sub(left)
	return left
}

// Sent returns what the hosts at an address, "ip:port", have sent so far.
func (n *Network) Sent(address string) Sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[netip.MustParseAddrPort(address)]
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
		latency: leastLatency + time.Duration(n.draw(from, to)%uint64(mostLatency-leastLatency)),
	}
}

// draw returns a number that depends on the seed, the two hosts and the moment, and on
// nothing else: in what order goroutines of one moment come does not matter.
func (n *Network) draw(from, to netip.AddrPort) uint64 {
	x := n.seed
	for _, a := range []netip.AddrPort{from, to} {
		b := a.Addr().As16()
		x = mix(x^binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:])
		x = mix(x + uint64(a.Port()))
	}
	return mix(x ^ uint64(time.Now().UnixNano()))
}

// mix is splitmix64's last step: each bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// piece is how much of a stream a host sends before another of its streams has its turn.
const piece = bulk

// bulk is from how many bytes on a piece has to wait for its turn. Less is a message, which
// gets through at once, as it would where streams have equal shares.
const bulk = 1 << 10

// send returns the link for a piece of a stream, and when the piece has left the host.
func (n *Network) send(from, to netip.AddrPort, size int) (l link, left time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sent[from]
	s.StreamBytes += int64(size)
	n.sent[from] = s
	left = time.Now()
	if n.rate > 0 && size >= bulk {
		if free := n.free[from.Addr()]; free.After(left) {
			left = free
		}
		left = left.Add(time.Duration(float64(size) / float64(n.rate) * float64(time.Second)))
		n.free[from.Addr()] = left
	}
	l = n.link(from, to)
	left = n.carry(&l, from, to, left)
	return l, left
}

// forStream returns the link for a stream.
func (n *Network) forStream(from, to netip.AddrPort) link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.link(from, to)
}

// forPacket returns the link for a packet of that size, and whether the packet arrives.
func (n *Network) forPacket(from, to netip.AddrPort, size int) (l link, arrives bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sent[from]
	s.Packets, s.PacketBytes = s.Packets+1, s.PacketBytes+int64(size)
	n.sent[from] = s
	l = n.link(from, to)
	now := time.Now()
	l.latency += n.carry(&l, from, to, now).Sub(now)
	return l, l.to != nil && l.open && n.packets && n.rand.Float64() >= n.loss
}

// count counts what a host has sent.
func (n *Network) count(from netip.AddrPort, what Sent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sent[from]
	n.sent[from] = Sent{s.Packets + what.Packets, s.PacketBytes + what.PacketBytes, s.StreamBytes + what.StreamBytes}
}

// leave removes the host from the network, unless another one has replaced it.
func (n *Network) leave(t *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[t.at] == t {
		delete(n.hosts, t.at)
	}
}
