// Package simulator runs many nodes in one process, on a virtual clock, to measure what
// no cluster at hand is large enough for. It is for tests, in a testing/synctest bubble.
//
// A [World] is a cluster. Its nodes are the product's own rooms: membership with real
// gossip, the ring, routing, the peers' protocol over HTTP, flights, grants and shards on
// disk. The network between them is memnet's, and the registry counts what it sends. For
// more nodes than gossip can be run for, memnet's Oracle stands for memberlist; all above
// it is real. To keep bytes few, each stands for [Scale] bytes,
// unless the Config says otherwise.
//
// A [Spread] is another matter: one layer of gigabytes on its way to all nodes, over links
// that are shared fairly, as a fluid. Only the decisions are the product's there.
//
// Start with simulator.go (a cluster), then host.go (a node), registry.go, events.go (what
// happens to a cluster), trials.go (what else is asked of it), fluid.go (links) and spread.go.
package simulator

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/node/cluster"
	"oci-proxy/node/membership/memnet"
	"oci-proxy/ring"
)

// Scale is how many bytes a byte stands for in most Worlds.
const Scale = 1 << 10

// bandwidth is what a node of a World can send in a second: 10 Gb/s.
const bandwidth = 1_250_000_000

// Config says what a World is made of.
type Config struct {
	Seed   uint64
	Nodes  int
	Blobs  int    // in a range of the registry's
	Ranges int    // of blobs that it has, 0: one; see World.Renew
	Size   int    // of each blob, in bytes; 0: they differ
	Bound  int64  // of a node's disk, in bytes; 0: none that matters
	True   bool   // each byte stands for itself
	Dir    string // for the nodes' disks
	Oracle bool   // stands for gossip
	Many   int    // as cluster.Seams.Many
}

// scale is how many bytes a byte stands for.
func (c *Config) scale() float64 {
	if c.True {
		return 1
	}
	return Scale
}

// A World is a cluster and its registry. It belongs to one bubble. End it.
type World struct {
	cfg      Config
	net      *memnet.Network
	oracle   *memnet.Oracle // nil: real gossip
	registry *Registry
	pulls    sync.WaitGroup
	from     int           // the first blob of the range that clients pull; changes while nobody pulls
	agreed   time.Duration // how long it took after the last random event until all nodes had one ring

	mu     sync.Mutex // guards the fields below; never held during I/O
	hosts  []*Host    // all that there ever were
	last   *ring.Ring
	rings  *simplelru.LRU[uint64, []*ring.Ring] // those used last, by a sum of their members
	failed []error                              // pulls
	done   int                                  // pulls
	asks   map[string]int                       // requests between nodes, by kind
	given  int64                                // bytes of blobs that nodes which have stopped sent to others
}

// New makes a cluster, and returns when each node knows all.
func New(cfg Config) (*World, error) {
	rings, err := simplelru.NewLRU[uint64, []*ring.Ring](sharedRings, nil)
	if err != nil { // only for a size that is not positive
		panic(err)
	}
	w := &World{cfg: cfg, net: memnet.New(cfg.Seed), rings: rings, asks: map[string]int{}}
	w.net.Bound(int64(bandwidth / cfg.scale()))
	w.registry = newRegistry(w)
	if cfg.Oracle {
		w.oracle = memnet.NewOracle(w.net)
	}
	start := func() error {
		for range cfg.Nodes {
			if err := w.begin(); err != nil {
				return err
			}
		}
		return nil
	}
	if w.oracle == nil {
		if err := start(); err != nil {
			return w, err
		}
	} else if err := w.oracle.Form(start); err != nil {
		return w, err
	}
	return w, w.AwaitWhole(2 * time.Minute)
}

// begin starts a new node.
func (w *World) begin() error {
	i := len(w.all())
	h := &Host{
		world: w, i: i, ip: fmt.Sprintf("10.%d.%d.%d", i/62500, i/250%250, i%250+1), dir: filepath.Join(w.cfg.Dir, fmt.Sprintf("node-%d", i)),
		id: fmt.Sprintf("%016x%016x", rand.New(rand.NewPCG(w.cfg.Seed, uint64(i)+1000)).Uint64(), i),
	}
	if err := h.start(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts = append(w.hosts, h)
	return nil
}

// all lists the hosts.
func (w *World) all() []*Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.hosts)
}

// Living lists the nodes that run.
func (w *World) Living() []*Host {
	return slices.DeleteFunc(w.all(), func(h *Host) bool { return !h.up() })
}

// AwaitWhole waits until each node has a ring of just the living ones.
func (w *World) AwaitWhole(within time.Duration) error {
	for began := time.Now(); !w.whole(); {
		if time.Since(began) > within {
			return fmt.Errorf("%d nodes do not agree on a ring of themselves after %v", len(w.Living()), within)
		}
		<-time.After(100 * time.Millisecond)
	}
	return nil
}

// whole reports whether all living nodes see each other and no others.
func (w *World) whole() bool {
	living := w.Living()
	for _, h := range living {
		if v := h.view(); len(v.Members) != len(living) || v.Ring.Hash() != living[0].view().Ring.Hash() || h.node.Load().cluster.Size() != len(living) {
			return false
		}
	}
	return true
}

// sharedRings is how many rings nodes share.
const sharedRings = 512

// ringOf is (*ring.Ring).Next for nodes that share the rings that they build.
func (w *World) ringOf(old *ring.Ring, members []ring.Member) (*ring.Ring, error) {
	if len(members) == 1 {
		return ring.New(members) // each node begins with its own
	}
	key := sum(members)
	w.mu.Lock()
	defer w.mu.Unlock()
	var r *ring.Ring
	alike, _ := w.rings.Get(key)
	for _, one := range alike {
		if slices.Equal(one.Members(), members) {
			r = one
		}
	}
	if r == nil {
		var err error
		if w.last == nil {
			r, err = ring.New(members)
		} else {
			r, err = w.last.Next(members)
		}
		if err != nil {
			return nil, err
		}
		w.rings.Add(key, append(alike, r))
		w.last = r
	}
	if r.Hash() == old.Hash() {
		return old, nil
	}
	return r, nil
}

var summing = maphash.MakeSeed()

// sum tells sets of members apart, most of them, whatever their order.
func sum(members []ring.Member) (all uint64) {
	for _, m := range members {
		all += maphash.Comparable(summing, m)
	}
	return all
}

// pull makes a client pull a blob through a node. If that node fails the client, it goes
// to another one, as a load balancer would.
func (w *World) pull(h *Host, blob int) {
	w.pulls.Go(func() {
		var err error
		for try := range 5 {
			if err = h.pull(blob); err == nil {
				break
			}
			if h.up() && try > 0 {
				break
			}
			<-time.After(time.Duration(try+1) * 100 * time.Millisecond)
			if living := w.ready(); len(living) > 0 && !h.up() {
				h = living[(blob+try)%len(living)]
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.done++
		if err != nil {
			w.failed = append(w.failed, fmt.Errorf("blob %d by node %d: %w", blob, h.i, err))
		}
	})
}

// ready lists the nodes that clients are sent to.
func (w *World) ready() []*Host {
	return slices.DeleteFunc(w.Living(), func(h *Host) bool { return !h.open.Load() })
}

// Renew makes clients pull the next range of blobs from now on, which no node has.
func (w *World) Renew() { w.from += w.cfg.Blobs }

// Await waits until no client pulls.
func (w *World) Await() { w.pulls.Wait() }

// pick draws one of the nodes, nil if there is none: the one that draws the lowest lot. So
// that one of them is missing changes no other draw. Each draw has a number.
func (w *World) pick(among []*Host, number int) (best *Host) {
	lowest := uint64(0)
	for _, h := range among {
		if lot := rand.NewPCG(w.cfg.Seed<<32+uint64(number), uint64(h.i)).Uint64(); best == nil || lot < lowest {
			best, lowest = h, lot
		}
	}
	return best
}

// holders are the nodes that clients are sent to and that hold some blob of the range: what becomes of
// others says nothing. If none does, they are all.
func holders(w *World) []*Host {
	all := w.ready()
	some := slices.DeleteFunc(slices.Clone(all), func(h *Host) bool {
		return !slices.ContainsFunc(w.registry.blobs[w.from:][:w.cfg.Blobs], func(b blob) bool { return h.holds(b.ref.Digest) })
	})
	if len(some) == 0 {
		return all
	}
	return some
}

// AwaitCopies waits until no node has a blob that may need a second copy.
func AwaitCopies(w *World, within time.Duration) error {
	for began := time.Now(); ; {
		<-time.After(time.Second)
		waiting := int64(0)
		for _, h := range w.Living() {
			waiting += cluster.CopiesOf(h.node.Load().cluster).Waiting
		}
		switch {
		case waiting == 0:
			<-time.After(5 * time.Second) // those that are on their way
			return nil
		case time.Since(began) > within:
			return fmt.Errorf("%d blobs wait for second copies after %v", waiting, within)
		}
	}
}

// End kills all nodes, and waits until nothing of them runs.
func (w *World) End() error {
	w.Await()
	var errs []error
	for _, h := range w.Living() {
		errs = append(errs, h.kill())
	}
	<-time.After(time.Minute) // memberlist's last probes time out
	return errors.Join(errs...)
}

// Failed returns how many pulls there were since it was last asked, and why some failed.
func (w *World) Failed() (pulls int, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pulls, why = w.done, errors.Join(w.failed...)
	w.done, w.failed = 0, nil
	return pulls, why
}

// asked counts a request between nodes.
func (w *World) asked(kind, _ string, _ time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asks[kind]++
}

// stopped notes what a node sent to others.
func (w *World) stopped(n *running) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given += n.given()
}

// Traffic is what nodes said to each other.
type Traffic struct {
	Asks  map[string]int // requests, by kind
	Given int64          // bytes of blobs that they sent each other
	Words int64          // all other bytes between their ports for peers: questions, answers, headers
	Sent  memnet.Sent    // gossip
}

// TrafficOf returns what all nodes said to each other so far.
func TrafficOf(w *World) Traffic {
	w.mu.Lock()
	t := Traffic{Asks: maps.Clone(w.asks), Given: w.given}
	w.mu.Unlock()
	for _, h := range w.Living() {
		t.Given += h.node.Load().given()
	}
	for _, h := range w.all() {
		t.Words += w.net.Sent(h.ip+peersPort).StreamBytes + w.net.Sent(h.ip+":0").StreamBytes
		s := w.net.Sent(h.ip + gossipPort)
		t.Sent.Packets += s.Packets
		t.Sent.PacketBytes += s.PacketBytes
		t.Sent.StreamBytes += s.StreamBytes
	}
	t.Words -= t.Given
	return t
}

// DirectoryOf returns how many bytes a node's directory of holders takes in the middle.
func DirectoryOf(w *World) (bytes int64) {
	living := w.Living()
	for _, h := range living {
		bytes += int64(cluster.DirectoryOf(h.node.Load().cluster).Bytes)
	}
	return bytes / int64(max(1, len(living)))
}
