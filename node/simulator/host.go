package simulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/figures"
	"oci-proxy/node/membership"
	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// The ports of a host.
const (
	gossipPort = ":7946"
	peersPort  = ":7947"
)

// A Host is a machine of a World, on which a node runs or not. It keeps its address, its
// disk and its node's identity.
type Host struct {
	world       *World
	i           int
	ip, dir, id string
	node        atomic.Pointer[running]
	living      atomic.Bool
	open        atomic.Bool                            // clients are sent to it
	kept        atomic.Pointer[map[digest.Digest]bool] // what was on its disk when it last stopped
}

// A running is a node that runs.
type running struct {
	cluster *cluster.Cluster
	fetcher *transfer.Fetcher
	shard   *grants.Shard
	end     context.CancelFunc
	tasks   sync.WaitGroup
}

// copying is as node.copying.
type copying struct {
	oci.Archive
	cluster *cluster.Cluster
}

// Offer implements oci.Archive.
func (c copying) Offer(k oci.Kept) { cluster.Kept(c.cluster, k) }

func (h *Host) up() bool               { return h.living.Load() }
func (h *Host) view() *membership.View { return h.node.Load().cluster.Members().View() }

// start starts a node on the host. Clients are sent to it once it has met the others.
func (h *Host) start() error {
	if err := h.identify(); err != nil {
		return err
	}
	cfg, err := h.config()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	n := &running{shard: grants.OpenShard(h.dir, cache.Options{Bound: cfg.Defaults.CacheMaxSize, Log: log})}
	n.cluster, err = cluster.Open(cluster.Config{
		Node: cfg, Dir: h.dir, Name: cfg.Cluster.Name, Version: "simulated", Registries: n, Log: log,
		Pause: func(string, time.Duration) {}, Asked: h.world.asked, Seams: h.seams(),
	})
	if err != nil {
		return errors.Join(fmt.Errorf("starting node %d: %w", h.i, err), n.shard.Close())
	}
	n.fetcher = transfer.New(transfer.Config{
		Upstream: h.world.registry, Archive: copying{oci.NoArchive{}, n.cluster}, Log: log, Mesh: n.cluster.Router(),
		Site: func(string) grants.Site { return grants.Site{Shard: n.shard} },
	})
	n.cluster.Serve(n.fetcher.Holder(), cluster.Outlet{}, func() *figures.Node { return &figures.Node{} }, nil)
	h.node.Store(n)
	var ctx context.Context
	ctx, n.end = context.WithCancel(context.Background())
	n.tasks.Go(func() { cluster.KeepCopies(ctx, n.cluster) })
	n.tasks.Go(func() { cluster.KeepDirectory(ctx, n.cluster) })
	h.living.Store(true)
	go func() {
		n.cluster.AwaitOthers(context.Background())
		h.open.Store(h.node.Load() == n && h.up())
	}()
	return nil
}

// identify gives the node an identity that the seed decides.
func (h *Host) identify() error {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(h.dir, "node-id"), []byte(h.id+"\n"), 0o600)
}

// seeds are three nodes that run. At first they are the first three, which begin soon.
func (h *Host) seeds() string {
	seeds := []string{"10.0.0.1" + gossipPort, "10.0.0.2" + gossipPort, "10.0.0.3" + gossipPort}
	if living := h.world.Living(); len(living) >= len(seeds) {
		for i := range seeds {
			seeds[i] = living[(h.i+i)%len(living)].ip + gossipPort
		}
	} else {
		for i, one := range living {
			seeds[i] = one.ip + gossipPort
		}
	}
	return "'" + strings.Join(seeds, "', '") + "'"
}

// config is the node's config.
func (h *Host) config() (*config.Config, error) {
	bound := cmp.Or(h.world.cfg.Bound, 10<<30)
	text := fmt.Sprintf("default_registry: %s\ndefaults: {cache_dir: %q, cache_max_size: %d}\nregistries: {%s: {}}\n"+
		"cluster: {name: node-%d, bind_addr: %q, peer_addr: %q, peer_tls: false, secret: a secret of the simulator, seeds: [%s]}\n",
		registryHost, h.dir, bound, registryHost, h.i, h.ip+gossipPort, h.ip+peersPort, h.seeds())
	return config.Parse("simulator.yaml", []byte(text), nil)
}

// seams put the node on the World's network.
func (h *Host) seams() cluster.Seams {
	w := h.world
	return cluster.Seams{
		Many:   w.cfg.Many,
		Listen: func(_, address string) (net.Listener, error) { return w.net.Listen(address) },
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			return w.net.Dial(ctx, h.ip, address)
		},
		Gossip: func(c *membership.Config) {
			c.Transport, c.Rings = w.net.Host(c.BindAddr), w.ringOf
			if w.oracle != nil {
				c.Gossip = func(settings *memberlist.Config) (membership.Gossip, error) { return w.oracle.Create(settings) }
			}
		},
	}
}

// pull is a client's pull of a blob through the node.
func (h *Host) pull(blob int) error {
	n, b := h.node.Load(), h.world.registry.blobs[blob]
	a, err := n.fetcher.Blob(context.Background(), b.ref)
	if err != nil {
		return err
	}
	sum := digest.SHA256.Digester()
	_, err = a.Send(context.Background(), sum.Hash(), 0, -1)
	if err := errors.Join(err, a.Close()); err != nil {
		return err
	}
	if sum.Digest() != b.ref.Digest {
		return errWrong
	}
	return nil
}

var errWrong = errors.New("the client got wrong bytes")

// holds reports whether the host's disk has a blob. That of a node which does not run
// helps nobody.
func (h *Host) holds(d digest.Digest) bool {
	if !h.up() {
		kept := h.kept.Load()
		return kept != nil && (*kept)[d]
	}
	_, ok := h.node.Load().shard.Stat(d)
	return ok
}

// keep notes what is on the disk of a node that stops.
func (h *Host) keep(n *running) {
	kept := map[digest.Digest]bool{}
	for _, b := range n.shard.Blobs() {
		kept[b.Digest] = true
	}
	h.kept.Store(&kept)
}

// restart stops the node in order, and starts it again after a while.
func (h *Host) restart(down time.Duration) error {
	h.open.Store(false)
	h.node.Load().cluster.Restarting(context.Background())
	cluster.Secure(context.Background(), h.node.Load().cluster)
	err := h.stop()
	<-time.After(down)
	return errors.Join(err, h.start())
}

// leave makes the node hand over what it holds, and stop for good.
func (h *Host) leave() error {
	h.open.Store(false)
	_, err := h.node.Load().cluster.HandOver(context.Background())
	return errors.Join(err, h.stop())
}

// stop stops the node in order.
func (h *Host) stop() error {
	n := h.node.Load()
	h.open.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n.end()
	n.tasks.Wait()
	n.fetcher.Close(ctx)
	h.world.stopped(n)
	h.keep(n)
	err := n.cluster.Close(ctx)
	h.living.Store(false)
	return errors.Join(err, n.shard.Close())
}

// kill ends the node as kill -9 would.
func (h *Host) kill() error {
	n := h.node.Load()
	h.keep(n)
	h.living.Store(false)
	h.open.Store(false)
	now, cancel := context.WithCancel(context.Background())
	cancel()
	n.end()
	err := n.cluster.Kill()
	n.tasks.Wait()
	n.cluster.Client().Close()
	n.fetcher.Close(now)
	h.world.stopped(n)
	return errors.Join(err, n.shard.Close())
}

// Shards implements cluster.Registries.
func (n *running) Shards() []*grants.Shard { return []*grants.Shard{n.shard} }

// ByShard implements cluster.Registries.
func (n *running) ByShard() [][]string { return [][]string{{registryHost}} }

// Configured implements cluster.Registries.
func (n *running) Configured(registry string) bool { return registry == registryHost }

// Asks implements cluster.Registries.
func (n *running) Asks(string) bool { return true }

// given is how many bytes of blobs the node has sent to others.
func (n *running) given() (sum int64) {
	for _, c := range n.fetcher.Counters() {
		sum += c.ToPeersBytes.Load()
	}
	return sum
}
