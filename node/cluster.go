package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/node/config"
	"oci-proxy/node/membership"
	"oci-proxy/ring"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/peer"
)

// A cluster is what makes the node one of several.
type cluster struct {
	cfg      *config.Cluster
	members  *membership.Membership
	mesh     *router
	client   *peer.Client
	server   *peer.Server
	http     *http.Server
	listener net.Listener
	tls      *tls.Config
	census   census
	secrets  atomic.Pointer[[]string]

	leaving   chan struct{} // closed when the node is to leave for good
	leaveOnce sync.Once
}

// openCluster takes the node's place among the members. Peers' requests wait
// until serve is called.
func (n *Node) openCluster(cfg *config.Cluster, test seams) (err error) {
	c := &cluster{cfg: cfg, leaving: make(chan struct{})}
	secrets := reveal(cfg.Secrets)
	c.secrets.Store(&secrets)
	if c.listener, err = net.Listen("tcp", cfg.PeerAddr); err != nil {
		return fmt.Errorf("listening for peers on %s: %w", cfg.PeerAddr, err)
	}
	var fingerprint [32]byte
	if cfg.PeerTLS {
		cert, sum, err := peer.NewCertificate()
		if err != nil {
			return errors.Join(fmt.Errorf("making the peers' certificate: %w", err), c.listener.Close())
		}
		c.tls, fingerprint = peer.ServerTLS(cert), sum
	}
	if c.members, err = membership.Open(n.membership(cfg, c.listener.Addr().String(), fingerprint)); err != nil {
		return errors.Join(fmt.Errorf("joining the cluster: %w", err), c.listener.Close())
	}
	self := c.members.View().Self
	c.client = peer.NewClient(peer.ClientConfig{
		Self: self.ID, SelfNonce: self.Nonce, Keys: membership.PeerKeys(reveal(cfg.Secrets)), Member: c.member, Log: n.log, Dial: test.dial,
	})
	view := c.members.View
	if test.view != nil {
		view = func() *membership.View { return test.view(c.members.View()) }
	}
	c.mesh = &router{view: view, peer: c.client.Peer, healthy: c.client.Healthy, known: n.knownPrivate, note: n.notePrivate, own: n.configured}
	n.cluster = c
	return nil
}

// membership is the config as gossip takes it.
func (n *Node) membership(cfg *config.Cluster, peerAddr string, fingerprint [32]byte) membership.Config {
	var known []membership.Registry
	for _, r := range n.cfg.Registries {
		known = append(known, membership.Registry{Host: r.Host, Login: r.Username != "", Private: r.Private})
	}
	return membership.Config{
		Dir: storeDir(n.cfg.Defaults), Name: cfg.Name, BindAddr: cfg.BindAddr, Advertise: cfg.Advertise,
		Seeds: cfg.Seeds, Secrets: reveal(cfg.Secrets), PeerAddr: peerAddr, Fingerprint: fingerprint, Zone: cfg.Zone,
		Version: Version, Weight: ring.Units(n.cfg.Defaults.CacheMaxSize), Egress: cfg.Egress, Whitelist: n.cfg.WhitelistMode,
		Registries: known, Log: n.log,
	}
}

// privateKey is where it is noted, among the tags, that a registry is private.
// No tag's key begins like that.
func privateKey(registry string) string { return cache.Kept + "private " + registry }

// knownPrivate reports whether a member ever treated the registry as private.
func (n *Node) knownPrivate(registry string) bool {
	_, ok := n.store(registry).Tag(privateKey(registry))
	return ok
}

// notePrivate remembers, as long as the cache directory lives, that a member
// treats the registry as private.
func (n *Node) notePrivate(registry string) {
	n.store(registry).SetTag(cache.Tag{Key: privateKey(registry), Digest: digest.FromString(registry), Checked: time.Now()})
}

// reveal takes secrets out of their wrapping, for those who derive keys.
func reveal(secrets []config.Secret) []string {
	var out []string
	for _, s := range secrets {
		out = append(out, s.Reveal())
	}
	return out
}

// member is what the peers' protocol has to know of a member.
func (c *cluster) member(id string) (peer.Member, bool) {
	m, ok := c.members.View().Member(id)
	if !ok || !m.Alive() {
		return peer.Member{}, false
	}
	return peer.Member{ID: m.ID, Name: m.Name, Addr: m.Peer, Nonce: m.Nonce, Fingerprint: m.Fingerprint, Key: c.key(m)}, true
}

// key is the number of the first secret that the member accepts too: while
// secrets are exchanged it may not know the first yet.
func (c *cluster) key(m *membership.Member) int {
	return max(0, slices.IndexFunc(*c.secrets.Load(), m.Accepts))
}

// peer is the member of that id as a transfer.Peer, nil if it can't be asked. It
// has just asked this node, so it lives.
func (c *cluster) peer(id string) mesh.Peer { return c.mesh.anyPeer(id) }

// servePeers answers peers from now on.
func (n *Node) servePeers() {
	c := n.cluster
	c.server = peer.NewServer(peer.ServerConfig{
		Name: n.name, Nonce: c.members.View().Self.Nonce, Keys: membership.PeerKeys(reveal(c.cfg.Secrets)),
		Member: c.member, Holder: n.fetcher.Holder(), Asks: n.asks, Peer: c.peer, Stats: func() any { return n.ownStats() }, Log: n.log,
	})
	c.http = c.server.HTTP(c.tls)
	ahead := dialledAhead{conns: map[net.Conn]struct{}{}}
	door := c.http.ConnState
	c.http.ConnState = func(conn net.Conn, s http.ConnState) {
		door(conn, s)
		ahead.note(conn, s)
	}
	c.http.RegisterOnShutdown(ahead.close)
	go func() {
		var err error
		if c.tls != nil {
			err = c.http.ServeTLS(c.listener, "", "")
		} else {
			err = c.http.Serve(c.listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("peers are not answered any more", "error", err)
		}
	}()
}

// dialledAhead are the connections that no request has come over yet. Other
// nodes have such, and a shutdown would wait five seconds for each.
type dialledAhead struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// note is told of each connection's state.
func (d *dialledAhead) note(conn net.Conn, s http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s == http.StateNew {
		d.conns[conn] = struct{}{}
	} else {
		delete(d.conns, conn)
	}
}

// close closes them.
func (d *dialledAhead) close() {
	d.mu.Lock()
	conns := slices.Collect(maps.Keys(d.conns))
	d.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // nothing was asked over it
	}
}

// PeerAddr is the address that peers reach the node at, "" without a cluster.
func (n *Node) PeerAddr() string {
	if n.cluster == nil {
		return ""
	}
	return n.cluster.members.View().Self.Peer
}

// GossipAddr is the address that gossip is heard at, "" without a cluster.
func (n *Node) GossipAddr() string {
	if n.cluster == nil {
		return ""
	}
	return n.cluster.members.View().Self.Gossip
}

// AwaitMembers waits until so many members are up as this node sees it, itself
// included, or ctx ends.
func (n *Node) AwaitMembers(ctx context.Context, many int) error {
	for {
		changed := n.cluster.members.Changed()
		up := n.cluster.size()
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

// Rekey exchanges the cluster's secrets: the first is used, all are accepted.
// A node without a cluster has none.
func (n *Node) Rekey(secrets []config.Secret) error {
	c := n.cluster
	if c == nil {
		return nil
	}
	if err := c.members.Rekey(reveal(secrets)); err != nil {
		return fmt.Errorf("exchanging the cluster's secrets: %w", err)
	}
	words := reveal(secrets)
	keys := membership.PeerKeys(words)
	c.server.SetKeys(keys)
	c.client.SetKeys(keys)
	c.secrets.Store(&words)
	return nil
}

// leaveTime bounds the last words to the other members.
const leaveTime = 3 * time.Second

// close ends the node's part in the cluster: peers' streams end or are cut at
// ctx's end, then the others are told.
func (c *cluster) close(ctx context.Context) error {
	var errs []error
	if c.http != nil {
		if err := c.http.Shutdown(ctx); err != nil {
			errs = append(errs, c.http.Close())
		}
	} else {
		errs = append(errs, c.listener.Close())
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	errs = append(errs, c.members.Close(last))
	c.client.Close()
	return errors.Join(errs...)
}
