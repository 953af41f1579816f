// Package cluster is a node among the others: who they are, who is asked for
// what, what they report, and how a node leaves them.
//
// [Open] takes the node's place among the members; a node without a cluster in
// its config is a cluster of one. [Cluster.Router] then tells the rooms that
// fetch whom to ask, and [Cluster.Serve] answers what other members ask.
// [Cluster.Reports], [Cluster.Describe] and [Cluster.Owner] ask all members for
// people who want to know. [Cluster.HandOver] gives the node's blobs to those
// who keep them when it leaves for good.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/figures"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/peer"
	"oci-proxy/transfer/trace"
)

// Registries are what this node's config says of registries, and the shards that
// hold their content.
type Registries interface {
	// Shards lists the shards. Several registries may share one.
	Shards() []*grants.Shard
	// ByShard lists the configured registries, those that share a shard together.
	ByShard() [][]string
	// Configured reports whether this node is configured for the registry.
	Configured(registry string) bool
	// Asks reports whether this node may ask the registry.
	Asks(registry string) bool
}

// Config is what a Cluster works with. All fields but Hear, Asked, Refuses, Examine, Certificates, Busy and Seams are needed.
type Config struct {
	Node       *config.Config // of the whole node; its Cluster is nil for a node on its own
	Dir        string         // where the node's identity and the known members are kept
	Name       string         // what the node calls itself
	Version    string         // of this program, as other members are told
	Registries Registries
	// Hear hears how a member's way to a registry is. It answers at once. Nil: nobody
	// wants to know.
	Hear func(id, registry string, way mesh.Way)
	// Asked is as peer.ClientConfig.Asked.
	Asked func(kind, outcome string, took time.Duration)
	// Pause hears that a registry has asked another member to be left alone for a time.
	Pause func(registry string, d time.Duration)
	// Refuses is as peer.ServerConfig.Refuses.
	Refuses func(user oci.User, ref oci.Ref) error
	// Examine answers what another member asks about this node, as peer.ServerConfig.Examine.
	Examine func(ctx context.Context, question []byte) (any, error)
	// Certificates is as peer.ServerConfig.Certificates. Not nil: this node keeps some.
	Certificates func(ctx context.Context, sender string, question []byte) (any, error)
	// Busy reports whether clients are being served: copies for other members wait then.
	Busy func() bool
	// Tracer is as peer.ServerConfig.Tracer.
	Tracer *trace.Tracer
	Log    *slog.Logger
	Seams  Seams
}

// Seams are where tests reach in. Zero fields change nothing.
type Seams struct {
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // makes connections to other nodes
	View func(now *membership.View) *membership.View                       // what requests are routed by
	// Listen listens for other nodes, Gossip changes what gossip is begun with.
	Listen func(network, addr string) (net.Listener, error)
	Gossip func(*membership.Config)
	// ReportAge is for how long reports are passed on.
	ReportAge time.Duration
	Patience  int // as peer.ClientConfig.Patience
	// SkewTime is after how long members of different versions are told of.
	SkewTime time.Duration
	// CopyAfter is how long after a blob has come it is copied, Settle how long after the ring
	// has changed all that is held is looked at, and Rescue how long after a member is lost what
	// this node may hold alone is.
	CopyAfter, Settle, Rescue time.Duration
	// TellAfter is how long after a change of the ring members are told what this node holds.
	TellAfter time.Duration
	Many      int // up to how many members all are asked for a blob; 0: mesh.Many
}

// A Cluster is a node's place among the others.
type Cluster struct {
	cfg     Config
	since   time.Time
	network *network // nil for a node on its own
	router  *router  // nil for a node on its own
	reports *reports
	copies  *copies // nil for a node on its own
	// directories are nil for a node on its own.
	directories *directories
	marks       *Marks
	own         func() *figures.Node    // set by Serve
	keeper      Keeper                  // set by Serve
	telling     chan struct{}           // slots for telling of pauses
	ending      atomic.Bool             // the node restarts
	leaving     atomic.Bool             // the node leaves for good
	offered     atomic.Pointer[offered] // what HandOver offered, once it is done
}

// Open takes the node's place. Other members' requests wait until Serve is
// called. Close the Cluster.
func Open(cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg, since: time.Now(), marks: newMarks(nil), telling: make(chan struct{}, tellPauses)}
	if cfg.Node.Cluster == nil {
		return c, nil
	}
	var err error
	if c.network, err = openNetwork(cfg); err != nil {
		return nil, err
	}
	view := c.network.members.View
	if seen := cfg.Seams.View; seen != nil {
		view = func() *membership.View { return seen(c.network.members.View()) }
	}
	client := c.network.client
	c.router = &router{view: view, alive: c.network.alive, client: client, lies: func(id string) bool { return peer.Lies(client, id) }, askers: newAskers(cfg.Registries.Configured), settle: func(ctx context.Context) { settle(ctx, c) }}
	c.directories = newDirectories(&cfg, c.network, c.router)
	c.router.directories = c.directories
	c.marks = newMarks(c.network.members.View)
	c.copies = newCopies(&cfg, c.network, c.router)
	c.reports = newReports(c.network, cmp.Or(cfg.Seams.ReportAge, reportAge))
	return c, nil
}

// An Outlet is a node's own way out, as it is lent to other members.
type Outlet struct {
	Upstream oci.Upstream                   // nil: the node lends none
	Asks     func(registry string) bool     // whether it asks a registry for others
	Way      func(registry string) mesh.Way // how the way there is
}

// Serve answers other members from now on. holder is this node as they see it, out what
// it lends them, own returns its figures, and keeper does what operators want.
func (c *Cluster) Serve(holder mesh.Holder, out Outlet, own func() *figures.Node, keeper Keeper) {
	c.own, c.keeper = own, keeper
	if c.network == nil {
		return
	}
	c.network.serve(peer.ServerConfig{
		Name: c.cfg.Name, Holder: holder, Keeper: keeper, Asks: c.cfg.Registries.Asks, Refuses: c.cfg.Refuses,
		Out: out.Upstream, Relays: out.Asks, Way: out.Way, Peer: c.network.caller, Leaves: c.leaving.Load, Pause: c.cfg.Pause, Examine: c.cfg.Examine, Certificates: c.cfg.Certificates, Directory: c.directories.heard, Stats: func() any { return c.network.withRing(own()) }, Tracer: c.cfg.Tracer,
	})
}

// Router tells whom to ask. It is nil for a node on its own.
func (c *Cluster) Router() mesh.Router {
	if c.router == nil {
		return nil // and not an interface that holds nil
	}
	return c.router
}

// Relays returns what lists the members that may ask a registry for this node, by their own way out:
// first those that are to be asked first for what key names.
func Relays(c *Cluster) func(registry, key string) []mesh.Relayer {
	if c.router == nil {
		return func(string, string) []mesh.Relayer { return nil }
	}
	return c.router.Relays
}

// Marks are by which members' requests to registries are known again.
func (c *Cluster) Marks() *Marks { return c.marks }

// Private reports whether any member treats the registry's content as private now.
func (c *Cluster) Private(registry string) bool {
	return c.router != nil && c.router.asking(registry).private
}

// Members is what gossip knows, nil for a node on its own.
func (c *Cluster) Members() *membership.Membership {
	if c.network == nil {
		return nil
	}
	return c.network.members
}

// Client asks other members, nil for a node on its own.
func (c *Cluster) Client() *peer.Client {
	if c.network == nil {
		return nil
	}
	return c.network.client
}

// PeerAddr is the address that other members reach the node at, "" for a node on
// its own.
func (c *Cluster) PeerAddr() string {
	if c.network == nil {
		return ""
	}
	return c.network.self().Peer
}

// GossipAddr is the address of the node's gossip, "" for a node on its own.
func (c *Cluster) GossipAddr() string {
	if c.network == nil {
		return ""
	}
	return c.network.self().Gossip
}

// Size is how many members are up.
func (c *Cluster) Size() int {
	if c.network == nil {
		return 1
	}
	up := 0
	for _, m := range c.network.members.View().Members {
		if m.Up {
			up++
		}
	}
	return up
}

// Health returns all that is wrong with the node's place among the others, with codes.
func (c *Cluster) Health() (wrong []error) {
	if c.network == nil {
		return nil
	}
	now, v := time.Now(), c.network.members.View()
	all := append(c.network.members.Health(), c.reports.heard.health(v, c.network.asked(), now), skewed(v, c.since, now, cmp.Or(c.cfg.Seams.SkewTime, skewTime)))
	return slices.DeleteFunc(all, func(err error) bool { return err == nil })
}

// AwaitMembers waits until that many members are up, this node included.
func (c *Cluster) AwaitMembers(ctx context.Context, many int) error {
	for {
		var changed <-chan struct{} // nil: nothing changes for a node on its own
		if c.network != nil {
			changed = c.network.members.Changed()
		}
		up := c.Size()
		if up >= many {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d members, %d are up: %w", many, up, context.Cause(ctx))
		}
	}
}

// AwaitOthers waits until the node knows other members or found that there are
// none, for MeetTime at most. A node that just started would otherwise ask
// upstream for what the others have.
func (c *Cluster) AwaitOthers(ctx context.Context) {
	if c.network == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, MeetTime)
	defer cancel()
	c.network.members.AwaitOthers(ctx)
}

// settle waits until the View has all members that gossip knows, and until the others are met if
// this node has just started, for as long as AwaitOthers would.
func settle(ctx context.Context, c *Cluster) {
	ctx, cancel := context.WithTimeout(ctx, max(catchUpTime, MeetTime-time.Since(c.since)))
	defer cancel()
	membership.CatchUp(ctx, c.network.members)
}

// Restarting tells the others that this node stops only for a moment.
func (c *Cluster) Restarting(ctx context.Context) {
	c.ending.Store(true)
	if c.network != nil {
		c.network.members.Restarting(ctx)
	}
}

// Rekey replaces the cluster's secrets: the first is used, all are accepted. A
// node on its own has none.
func (c *Cluster) Rekey(secrets []config.Secret) error {
	if c.network == nil {
		return nil
	}
	return c.network.rekey(secrets)
}

// Reload tells the others what another config of this node says of registries. The rest of
// the config stays.
func Reload(c *Cluster, cfg *config.Config) {
	if c.network == nil {
		return
	}
	c.router.askers.forget()
	c.copies.turn(cfg.Cluster.Copies > 1 && !c.leaving.Load())
	membership.Serve(c.network.members, registriesOf(cfg), cfg.WhitelistMode)
}

// Close ends the node's part in the cluster: members' requests end, or are cut
// when ctx ends, and then the others are told.
func (c *Cluster) Close(ctx context.Context) error {
	if c.network == nil {
		return nil
	}
	c.reports.life.Close(ctx)
	return c.network.close(ctx)
}

// Kill ends the node's part in the cluster as a crash would, for tests.
func (c *Cluster) Kill() error {
	return errors.Join(c.network.members.Kill(), c.network.http.Close())
}
