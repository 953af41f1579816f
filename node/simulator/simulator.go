// Package simulator runs many nodes in one process, on a virtual clock, to measure what
// no cluster at hand is large enough for. It is for tests, in a testing/synctest bubble.
//
// A [World] is a cluster. Its nodes are the product's own rooms: membership with real
// gossip, the ring, routing, the peers' protocol over HTTP, flights, grants and shards on
// disk. The network between them is memnet's, and the registry counts what it sends. For
// more nodes than gossip can be run for, memnet's Oracle stands for memberlist; all above
// it is real. To keep bytes few, each stands for [Scale] bytes.
//
// A [Spread] is another matter: one layer of gigabytes on its way to all nodes, over links
// that are shared fairly, as a fluid. Only the decisions are the product's there.
//
// Start with simulator.go (a cluster), then host.go (a node), registry.go, events.go (what
// happens to a cluster), fluid.go (links) and spread.go.
package simulator

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"oci-proxy/node/membership/memnet"
	"oci-proxy/ring"
)

// Scale is how many bytes a byte stands for in a World.
const Scale = 1 << 10

// bandwidth is what a node of a World can send in a second: 10 Gb/s.
const bandwidth = 1_250_000_000 / Scale

// Config says what a World is made of.
type Config struct {
	Seed   uint64
	Nodes  int
	Blobs  int    // that the registry has
	Dir    string // for the nodes' disks
	Oracle bool   // stands for gossip
	Many   int    // as cluster.Seams.Many
}

// A World is a cluster and its registry. It belongs to one bubble. End it.
type World struct {
	cfg      Config
	rand     *rand.Rand // of events; only the goroutine that makes them uses it
	net      *memnet.Network
	oracle   *memnet.Oracle // nil: real gossip
	registry *Registry
	pulls    sync.WaitGroup
	agreed   time.Duration // how long it took after the last random event until all nodes had one ring

	mu     sync.Mutex // guards the fields below; never held during I/O
	hosts  []*Host    // all that there ever were
	last   *ring.Ring
	rings  map[string]*ring.Ring // by their members
	failed []error               // pulls
	done   int                   // pulls
	asks   map[string]int        // requests between nodes, by kind
	given  int64                 // bytes of blobs that nodes which have stopped sent to others
}

// New makes a cluster, and returns when each node knows all.
func New(cfg Config) (*World, error) {
	w := &World{cfg: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 1)), net: memnet.New(cfg.Seed), rings: map[string]*ring.Ring{}, asks: map[string]int{}}
	w.net.Bound(bandwidth)
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

// ringOf is (*ring.Ring).Next for nodes that share the rings that they build.
func (w *World) ringOf(old *ring.Ring, members []ring.Member) (*ring.Ring, error) {
	var key strings.Builder
	for _, m := range members {
		fmt.Fprintf(&key, "%v ", m)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rings[key.String()]
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
		w.rings[key.String()], w.last = r, r
	}
	if r.Hash() == old.Hash() {
		return old, nil
	}
	return r, nil
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

// Await waits until no client pulls.
func (w *World) Await() { w.pulls.Wait() }

// any draws a node that clients are sent to, nil if there is none.
func (w *World) any(draw *rand.Rand) *Host {
	ready := w.ready()
	if len(ready) == 0 {
		return nil
	}
	return ready[draw.IntN(len(ready))]
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

// Failed returns how many pulls there were, and why some failed.
func (w *World) Failed() (pulls int, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done, errors.Join(w.failed...)
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

// Traffic returns what all nodes said to each other so far.
func (w *World) Traffic() Traffic {
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
