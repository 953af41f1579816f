package memnet

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// An Oracle stands for memberlist where there are so many nodes that its packets would
// take too long to simulate. It knows all nodes, and calls each one's delegates as
// memberlist does, after delays as they were measured of memberlist with this
// program's settings. It counts as sent what memberlist would send. It belongs to the bubble that it is made in.
type Oracle struct {
	net *Network

	mu      sync.Mutex // guards the fields below; never held while a delegate is called
	nodes   map[netip.AddrPort]*Oracled
	forming bool
}

// NewOracle returns an Oracle for the hosts of a network.
func NewOracle(n *Network) *Oracle {
	return &Oracle{net: n, nodes: map[netip.AddrPort]*Oracled{}}
}

// Form calls start, which begins nodes, and then makes them all know each other at once.
// Else each would learn of the others one by one, which takes long to simulate.
func (o *Oracle) Form(start func() error) error {
	o.setForming(true)
	err := start()
	o.setForming(false)
	all := o.others(nil)
	for _, one := range all {
		for _, other := range all {
			one.hear(other.latest())
		}
	}
	return err
}

func (o *Oracle) setForming(forming bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forming = forming
}

// runs reports whether the node of that start still runs.
func (o *Oracle) runs(n *memberlist.Node) bool {
	ip, _ := netip.AddrFromSlice(n.Addr)
	o.mu.Lock()
	defer o.mu.Unlock()
	one := o.nodes[netip.AddrPortFrom(ip, n.Port)]
	return one != nil && one.settings.Name == n.Name
}

// An Oracled is one node. Its methods are those of *memberlist.Memberlist.
type Oracled struct {
	oracle   *Oracle
	settings *memberlist.Config
	at       netip.AddrPort
	done     chan struct{}
	once     sync.Once

	mu    sync.Mutex // guards the fields below, and keeps the delegate's calls in order
	self  *news
	known map[string]*news // by name
}

// A news is what is known of a node: the later version counts. All nodes share it, so nobody changes it.
type news struct {
	node    memberlist.Node
	version int
	gone    bool
}

// The delays, see Oracle. Those of what spreads by gossip are for the last node of many.
const (
	spreadLeast = 50 * time.Millisecond
	spreadMost  = 500 * time.Millisecond
	unevenness  = 300 * time.Millisecond // between the first and the last node that finds another dead
	exchange    = 10 * time.Second       // between push/pulls; beyond 32 nodes they are rarer
)

// The bytes, see Oracle.
const (
	probeBytes   = 120 // of a ping or an answer
	newsBytes    = 50  // of a change, beside the name and what the node says of itself
	packetBytes  = 30  // of a packet around its changes
	recordBytes  = 70  // of a node in a push/pull, beside the same two
	probePeriod  = time.Second
	probePackets = 2 // that a node sends in that time: its ping, and the answer to another's
)

// found is how long it takes to find a node dead among n.
func found(n int) time.Duration {
	return time.Duration((1.7 + 4*max(1, math.Log10(float64(n)))) * float64(time.Second))
}

// pause is between a node's push/pulls among n, as memberlist scales it.
func pause(n int) time.Duration {
	if n <= 32 {
		return exchange
	}
	return exchange * time.Duration(math.Ceil(math.Log2(float64(n))-math.Log2(32))+1)
}

// Create begins what memberlist.Create does.
func (o *Oracle) Create(c *memberlist.Config) (*Oracled, error) {
	at, err := netip.ParseAddrPort(net.JoinHostPort(c.AdvertiseAddr, strconv.Itoa(c.AdvertisePort)))
	if err != nil {
		return nil, err
	}
	one := &Oracled{oracle: o, settings: c, at: at, done: make(chan struct{}), known: map[string]*news{}}
	one.self = &news{node: memberlist.Node{
		Name: c.Name, Addr: at.Addr().AsSlice(), Port: at.Port(), Meta: c.Delegate.NodeMeta(memberlist.MetaMaxSize),
	}}
	o.mu.Lock()
	o.nodes[at] = one
	o.mu.Unlock()
	one.hear(one.self)
	go one.run()
	return one, nil
}

// run exchanges states now and then.
func (one *Oracled) run() {
	for first := true; ; first = false {
		d := pause(one.count())
		if first {
			d = time.Duration(one.oracle.net.draw(one.at, one.at) % uint64(d))
		}
		select {
		case <-time.After(d):
		case <-one.done:
			return
		}
		one.oracle.net.count(one.at, Sent{
			Packets: probePackets * int64(d/probePeriod), PacketBytes: probePackets * probeBytes * int64(d/probePeriod),
		})
		one.miss()
		if other := one.oracle.some(one); other != nil {
			one.exchange(other, false)
		}
	}
}

// miss finds nodes dead of whose end nobody told this one: it joined just then.
func (one *Oracled) miss() {
	for _, n := range one.everything() {
		if !one.oracle.runs(&n.node) {
			gone := &news{n.node, n.version + 1, true}
			time.AfterFunc(found(one.count()), func() { one.hear(gone) })
		}
	}
}

// some returns any other node.
func (o *Oracle) some(but *Oracled) *Oracled {
	o.mu.Lock()
	defer o.mu.Unlock()
	var best *Oracled
	lowest := uint64(0)
	for at, one := range o.nodes {
		if one == but || one.over() {
			continue
		}
		if x := o.net.draw(but.at, at); best == nil || x < lowest {
			best, lowest = one, x
		}
	}
	return best
}

// others lists the nodes that run, without one.
func (o *Oracle) others(but *Oracled) (all []*Oracled) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, one := range o.nodes {
		if one != but && !one.over() {
			all = append(all, one)
		}
	}
	return all
}

func (one *Oracled) over() bool {
	select {
	case <-one.done:
		return true
	default:
		return false
	}
}

// count is how many nodes the node knows.
func (one *Oracled) count() int {
	one.mu.Lock()
	defer one.mu.Unlock()
	return len(one.known)
}

// hear tells the node's delegates of news. Those that are not newer are ignored.
func (one *Oracled) hear(n *news) {
	one.mu.Lock()
	defer one.mu.Unlock()
	old, known := one.known[n.node.Name]
	if one.over() || known && (old.version >= n.version || n.gone && old.gone) || !known && n.gone {
		return
	}
	if !n.gone && one.settings.Alive != nil && one.settings.Alive.NotifyAlive(&n.node) != nil {
		return
	}
	one.known[n.node.Name] = n
	one.retell(n)
	switch events := one.settings.Events; {
	case n.gone:
		events.NotifyLeave(&n.node)
	case known && !old.gone:
		events.NotifyUpdate(&n.node)
	default:
		events.NotifyJoin(&n.node)
	}
}

// retell counts that the node tells others of news, as often as memberlist does.
func (one *Oracled) retell(n *news) {
	times := int64(one.settings.RetransmitMult) * int64(math.Ceil(math.Log10(float64(len(one.known)+1))))
	one.oracle.net.count(one.at, Sent{Packets: times, PacketBytes: times * int64(packetBytes+newsBytes+len(n.node.Name)+len(n.node.Meta))})
}

// spread tells all other nodes, each after its own delay.
func (one *Oracled) spread(n *news, least, most time.Duration) {
	for _, other := range one.oracle.others(one) {
		d := least + time.Duration(one.oracle.net.draw(one.at, other.at)%uint64(most-least))
		time.AfterFunc(d, func() { other.hear(n) })
	}
}

// Join exchanges states with the nodes at the addresses, "ip:port". It returns how many
// there were.
func (one *Oracled) Join(addresses []string) (joined int, err error) {
	for _, a := range addresses {
		at, wrong := netip.ParseAddrPort(a)
		if wrong != nil {
			return joined, wrong
		}
		one.oracle.mu.Lock()
		other, forming := one.oracle.nodes[at], one.oracle.forming
		one.oracle.mu.Unlock()
		<-time.After(4 * mostLatency)
		if forming {
			return len(addresses), nil
		}
		if other == nil || other.over() {
			err = fmt.Errorf("dial %s: %w", at, syscall.ECONNREFUSED)
			continue
		}
		joined++
		if other != one {
			one.exchange(other, true)
		}
	}
	if joined > 0 {
		return joined, nil
	}
	return 0, err
}

// exchange tells two nodes what the other knows, and the others of what was new.
func (one *Oracled) exchange(other *Oracled, join bool) {
	mine, theirs := one.everything(), other.everything()
	for _, n := range mine {
		other.hear(n)
	}
	for _, n := range theirs {
		one.hear(n)
	}
	a, b := one.settings.Delegate.LocalState(join), other.settings.Delegate.LocalState(join)
	one.oracle.net.count(one.at, Sent{StreamBytes: int64(len(a)) + records(mine)})
	one.oracle.net.count(other.at, Sent{StreamBytes: int64(len(b)) + records(theirs)})
	other.settings.Delegate.MergeRemoteState(a, join)
	one.settings.Delegate.MergeRemoteState(b, join)
	if join {
		one.spread(one.latest(), spreadLeast, spreadMost)
	}
}

// records is how many bytes nodes take in a push/pull.
func records(all []*news) (sum int64) {
	for i := range all {
		sum += int64(recordBytes + len(all[i].node.Name) + len(all[i].node.Meta))
	}
	return sum
}

// latest is what the node says of itself now.
func (one *Oracled) latest() *news {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.self
}

// everything is all that the node knows of those that live.
func (one *Oracled) everything() (all []*news) {
	one.mu.Lock()
	defer one.mu.Unlock()
	for _, n := range one.known {
		if !n.gone {
			all = append(all, n)
		}
	}
	return all
}

// renew makes the next version of what the node says of itself.
func (one *Oracled) renew(change func(self *news)) *news {
	one.mu.Lock()
	defer one.mu.Unlock()
	self := *one.self
	self.version++
	change(&self)
	one.self = &self
	return one.self
}

// UpdateNode tells the others what the node says of itself now.
func (one *Oracled) UpdateNode(time.Duration) error {
	self := one.renew(func(self *news) { self.node.Meta = one.settings.Delegate.NodeMeta(memberlist.MetaMaxSize) })
	one.hear(self)
	one.spread(self, spreadLeast, spreadMost)
	<-time.After(spreadMost)
	return nil
}

// Leave tells the others that the node goes.
func (one *Oracled) Leave(time.Duration) error {
	self := one.renew(func(self *news) { self.gone = true })
	one.spread(self, spreadLeast, spreadMost)
	<-time.After(spreadMost)
	return nil
}

// Shutdown ends the node. Others that it has not told find it dead later.
func (one *Oracled) Shutdown() (err error) {
	one.once.Do(func() {
		err = one.settings.Transport.Shutdown()
		gone := one.latest()
		close(one.done)
		one.oracle.forget(one)
		if !gone.gone {
			gone = &news{gone.node, gone.version + 1, true}
			after := found(one.count())
			one.spread(gone, after, after+unevenness)
		}
	})
	return err
}

// forget takes a node off the list, unless another one has its address.
func (o *Oracle) forget(one *Oracled) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nodes[one.at] == one {
		delete(o.nodes, one.at)
	}
}
