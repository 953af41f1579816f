// Package mesh is the other nodes of the cluster as sources of content.
//
// A [Router] knows who may be asked for what; a [Peer] is one node that can be
// asked; a [Holder] is this node when others ask it. [Mesh] puts them to use: it
// goes along the route to a blob, a manifest or a tag ([Along], [Direct]), peeks at
// nodes that may hold something, and watches each request to a peer so that one
// that hangs, crawls or lies costs a moment and not the pull (watch.go). The
// package knows neither sockets nor gossip.
package mesh

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"oci-proxy/transfer/oci"
)

// Config is what a Mesh works with.
type Config struct {
	Router Router                // the other members, nil for a node on its own
	Log    *slog.Logger          // needed
	Look   time.Duration         // how often a request to a peer is looked at, 0: 500 ms
	Drip   time.Duration         // how long a peer may bring next to nothing while this node could ask the registry, 0: 30 s
	Passed func(registry string) // counts a peer that could not help; may be nil
	// Reaches reports whether this node's own way out may lead to the registry. nil: it
	// always may.
	Reaches func(registry string) bool
}

// A Mesh asks the other nodes. Its methods may be called from any goroutine.
type Mesh struct {
	cfg      Config
	self     string
	suspects *suspects
	passed   tally
	left     tally                               // of those that fed this node
	lateness func(context.Context) time.Duration // how late this node is itself; tests change it
}

// New returns a Mesh.
func New(cfg Config) *Mesh {
	if cfg.Look == 0 {
		cfg.Look = look
	}
	if cfg.Drip == 0 {
		cfg.Drip = DripFor
	}
	if cfg.Router == nil {
		cfg.Router = alone{}
	}
	if cfg.Reaches == nil {
		cfg.Reaches = func(string) bool { return true }
	}
	if cfg.Passed == nil {
		cfg.Passed = func(string) {}
	}
	return &Mesh{cfg: cfg, self: cfg.Router.Self(), suspects: newSuspects(), lateness: lateness}
}

// alone routes for a node without a cluster.
type alone struct{}

func (alone) Self() string                  { return "" }
func (alone) Route(string, string) []Peer   { return onlyThis }
func (alone) Owner(string, string) Peer     { return nil }
func (alone) Holders(string, string) []Peer { return nil }
func (alone) Peer(string) Peer              { return nil }
func (alone) Members() []Peer               { return nil }
func (alone) Settle(context.Context)        {}

// onlyThis is the route of a node without a cluster. Nobody changes it.
var onlyThis = []Peer{nil}

// Self returns this node's id, "" for a node on its own.
func (m *Mesh) Self() string { return m.self }

// Drip returns how long a source may bring next to nothing before it is judged.
func (m *Mesh) Drip() time.Duration { return m.cfg.Drip }

// Route lists who is to get what key names, as Router.Route does.
func (m *Mesh) Route(registry, key string) []Peer { return m.cfg.Router.Route(registry, key) }

// Members lists all other members that are alive.
func (m *Mesh) Members() []Peer { return m.cfg.Router.Members() }

// Peer returns the member of that id, as Router.Peer does.
func (m *Mesh) Peer(id string) Peer { return m.cfg.Router.Peer(id) }

// Owner returns the other member whose the content is, as Router.Owner does.
func (m *Mesh) Owner(c oci.Content) Peer { return m.cfg.Router.Owner(c.Registry, c.Digest.String()) }

// Holders lists the other members to ask whether they hold the content, as Router.Holders
// does. It waits until this node knows them: one that has just joined is asked for content by
// members that know it, while it knows none, and would find nobody to ask but the registry.
func (m *Mesh) Holders(ctx context.Context, c oci.Content) []Peer {
	m.cfg.Router.Settle(ctx)
	return m.cfg.Router.Holders(c.Registry, c.Digest.String())
}

// Near is Holders for what key names: first come the members next to it on the ring,
// whether or not they may ask the registry.
func (m *Mesh) Near(registry, key string) []Peer { return m.cfg.Router.Holders(registry, key) }

// Leads reports whether this node is the first to get what key names.
func (m *Mesh) Leads(registry, key string) bool {
	route := m.Route(registry, key)
	return len(route) > 0 && route[0] == nil
}

// Only reports whether nobody but this node is to get what key names.
func (m *Mesh) Only(registry, key string) bool {
	route := m.Route(registry, key)
	return len(route) == 1 && route[0] == nil
}

// MayAsk reports whether this node may ask the registry for ref itself. It then
// need not put up with a bad peer.
func (m *Mesh) MayAsk(ref oci.Ref) bool {
	return slices.Contains(m.Route(ref.Registry, ref.Digest.String()), nil)
}

// PassOver logs and counts that a peer could not help.
func (m *Mesh) PassOver(ctx context.Context, ref oci.Ref, p Peer, err error) {
	m.cfg.Passed(ref.Registry)
	m.passed.add(reasonOf(err))
	m.cfg.Log.InfoContext(ctx, "peer passed over", "peer", p.Name(), "registry", ref.Registry, "image", ref.Repository, "tag", ref.Tag, "digest", ref.Digest.String(), "error", err)
}
