package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/membership"
	"oci-proxy/ring"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/peer"
)

// maxDead is how many members may be found dead before somebody looks.
const maxDead = 128

// A network connects the node with the others: gossip, and the protocol that
// peers speak. It is there from openNetwork on; requests are answered from serve
// on.
type network struct {
	members  *membership.Membership
	client   *peer.Client
	listener net.Listener
	tls      *tls.Config // nil: peers speak plain HTTP
	server   atomic.Pointer[peer.Server]
	http     *http.Server
	id       string // of the cluster
	secrets  atomic.Pointer[[]string]
	dead     chan refusal // until somebody wants to know
	callers  callers
	sketches atomic.Pointer[[]membership.Sketch] // of them
	log      *slog.Logger
}

// openNetwork joins the others.
func openNetwork(cfg Config) (*network, error) {
	n := &network{log: cfg.Log, id: cfg.Node.Cluster.ID, dead: make(chan refusal, maxDead)}
	secrets := reveal(cfg.Node.Cluster.Secrets)
	n.use(secrets)
	var err error
	listen := cfg.Seams.Listen
	if listen == nil {
		listen = net.Listen
	}
	if n.listener, err = listen("tcp", cfg.Node.Cluster.PeerAddr); err != nil {
		return nil, fmt.Errorf("listening for peers on %s: %w", cfg.Node.Cluster.PeerAddr, err)
	}
	if err := n.join(cfg); err != nil {
		return nil, errors.Join(err, n.listener.Close())
	}
	self := n.self()
	n.client = peer.NewClient(peer.ClientConfig{
		Self: func() string { return n.self().ID }, SelfNonce: self.Nonce,
		Keys: membership.PeerKeys(cfg.Node.Cluster.ID, secrets), Member: n.member, Hear: cfg.Hear, Asked: cfg.Asked, Log: cfg.Log,
		Dial: cfg.Seams.Dial, Patience: cfg.Seams.Patience, Dead: n.died,
	})
	return n, nil
}

// A refusal says that the address of a boot of a member refuses connections.
type refusal struct {
	id   string
	boot uint64 // its epoch
}

// died hears of a refusal. Of more than maxDead gossip tells.
func (n *network) died(id string, boot uint64) {
	select {
	case n.dead <- refusal{id, boot}:
	default:
	}
}

// join makes the certificate for peers and begins to gossip.
func (n *network) join(cfg Config) error {
	var fingerprint [32]byte
	if cfg.Node.Cluster.PeerTLS {
		cert, sum, err := peer.NewCertificate()
		if err != nil {
			return fmt.Errorf("making the certificate for peers: %w", err)
		}
		n.tls, fingerprint = peer.ServerTLS(cert), sum
	}
	var err error
	with := gossip(cfg, n.listener.Addr().String(), fingerprint)
	if cfg.Seams.Gossip != nil {
		cfg.Seams.Gossip(&with)
	}
	if n.members, err = membership.Open(with); err != nil {
		return fmt.Errorf("joining the cluster: %w", err)
	}
	return nil
}

// gossip is the config as gossip takes it.
func gossip(cfg Config, peerAddr string, fingerprint [32]byte) membership.Config {
	node, cluster := cfg.Node, cfg.Node.Cluster
	return membership.Config{
		Cluster: cluster.ID, Dir: cfg.Dir, Name: cluster.Name, BindAddr: cluster.BindAddr, Advertise: cluster.Advertise,
		Seeds: cluster.Seeds, Secrets: reveal(cluster.Secrets), PeerAddr: peerAddr, Fingerprint: fingerprint, Zone: cluster.Zone,
		Version: cfg.Version, Weight: ring.Units(node.Defaults.CacheMaxSize), Size: ring.Size(node.Defaults.CacheMaxSize), Egress: cluster.Egress, Whitelist: node.WhitelistMode, Certificates: cfg.Certificates != nil,
		Registries: registriesOf(node), Log: cfg.Log,
	}
}

// registriesOf are the configured registries, as members are told of them.
func registriesOf(cfg *config.Config) (known []membership.Registry) {
	for _, r := range cfg.Registries {
		known = append(known, membership.Registry{Host: r.Host, Login: len(r.Logins()) > 0, Private: r.Private})
	}
	return known
}

// reveal unwraps secrets, to derive keys from them.
func reveal(secrets []config.Secret) []string {
	var out []string
	for _, s := range secrets {
		out = append(out, s.Reveal())
	}
	return out
}

// self is this node as the others are told of it.
func (n *network) self() membership.Member { return n.members.View().Self }

// alive reports whether a member is alive at this moment.
func (n *network) alive(id string) bool {
	m, ok := n.members.Member(id)
	return ok && m.Alive()
}

// caller returns a member that is asking this node. Until end is called it can be asked, though
// gossip may say that it is dead.
func (n *network) caller(id string) (p mesh.Peer, end func()) {
	if id == n.self().ID {
		return nil, func() {}
	}
	return n.client.Peer(id), n.callers.enter(id)
}

// member is what the peers' protocol has to know of a member that can be asked.
func (n *network) member(id string) (peer.Member, bool) {
	m, ok := n.members.Member(id)
	if !ok || !m.Alive() && !n.callers.has(id) {
		return peer.Member{}, false
	}
	return n.asPeer(&m), true
}

// known is what the peers' protocol has to know of a member that asks. One that is down, as
// far as gossip knows, lives if it can ask.
func (n *network) known(id string) (peer.Member, bool) {
	m, ok := n.members.Member(id)
	if !ok {
		return peer.Member{}, false
	}
	return n.asPeer(&m), true
}

// asPeer is a member as the peers' protocol knows it.
func (n *network) asPeer(m *membership.Member) peer.Member {
	return peer.Member{ID: m.ID, Name: m.Name, Addr: m.Peer, Nonce: m.Nonce, Boot: m.Epoch, Fingerprint: m.Fingerprint, Key: n.key(m)}
}

// use notes the secrets in use.
func (n *network) use(secrets []string) {
	sketches := membership.Sketches(secrets)
	n.secrets.Store(&secrets)
	n.sketches.Store(&sketches)
}

// key is the number of the first secret that the member accepts too: while
// secrets are being replaced it may not know the first one yet.
func (n *network) key(m *membership.Member) int {
	return max(0, slices.IndexFunc(*n.sketches.Load(), m.Accepts))
}

// serve answers other members from now on. It completes cfg.
func (n *network) serve(cfg peer.ServerConfig) {
	cfg.Nonce, cfg.Keys, cfg.Member, cfg.Log = n.self().Nonce, membership.PeerKeys(n.id, *n.secrets.Load()), n.known, n.log
	s := peer.NewServer(cfg)
	n.server.Store(s)
	n.http = s.HTTP(n.tls)
	go func() {
		var err error
		if n.tls != nil {
			err = n.http.ServeTLS(n.listener, "", "")
		} else {
			err = n.http.Serve(n.listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("the peers' port failed: other nodes get no more answers from this node until it restarts", "error", err)
		}
	}()
}

// asked returns when another member last asked this node something.
func (n *network) asked() time.Time {
	if s := n.server.Load(); s != nil {
		return s.LastAsked()
	}
	return time.Time{}
}

// rekey replaces the secrets.
func (n *network) rekey(secrets []config.Secret) error {
	words := reveal(secrets)
	if err := n.members.Rekey(words); err != nil {
		return fmt.Errorf("replacing the cluster's secrets: %w", err)
	}
	keys := membership.PeerKeys(n.id, words)
	n.server.Load().SetKeys(keys)
	n.client.SetKeys(keys)
	n.use(words)
	return nil
}

// close ends what members have under way, and tells them.
func (n *network) close(ctx context.Context) error {
	var errs []error
	if n.http == nil {
		errs = append(errs, n.listener.Close())
	} else if err := n.http.Shutdown(ctx); err != nil {
		errs = append(errs, n.http.Close())
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTime)
	defer cancel()
	errs = append(errs, n.members.Close(last))
	n.client.Close()
	return errors.Join(errs...)
}
