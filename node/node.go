// Package node is the process: it builds the rooms from the config, answers
// HTTP, and ends in order.
//
// A request comes in by routes.go, is let in by access.go, and if it is one of
// the registry API is understood and answered by v2.go, manifest.go and blob.go.
// What fails becomes an OCI error in one place, failure.go. The rooms below
// count; stats.go and health.go report.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"oci-proxy/cache"
	"oci-proxy/node/config"
	"oci-proxy/node/membership"
	"oci-proxy/node/page"
	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstream"
)

// A Node is one node.
type Node struct {
	cfg      *config.Config
	name     string // what this node calls itself in Cache-Status
	log      *slog.Logger
	names    oci.Names
	stores   map[string]*cache.Store // by cache directory, however the config writes it
	upstream *upstream.Client
	fetcher  *transfer.Fetcher
	access   *access
	hosts    hosts
	budget   *budget
	cert     *watched[*tls.Certificate] // of the clients' port, nil for plain HTTP
	page     http.Handler
	ready    atomic.Bool
	pulls    pulls
	since    time.Time
	cluster  *cluster // nil for a node on its own
}

// Version is this program's, as other members and the page's users are told.
// Set it before New.
var Version = "dev"

// proxyName is how a node without a cluster calls itself in Cache-Status.
const proxyName = "oci-proxy"

// New builds a node. Clients are not served yet, but its cache directories are
// open, and it is a member of its cluster: call Run, or Close.
func New(cfg *config.Config, log *slog.Logger) (*Node, error) { return build(cfg, log, seams{}) }

// seams are where tests of a cluster reach in. Zero fields change nothing.
type seams struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error) // makes the connections to other nodes
	view func(now *membership.View) *membership.View                       // what requests are routed by
	look time.Duration                                                     // how often the Fetcher looks at requests to peers
}

// build is New with seams.
func build(cfg *config.Config, log *slog.Logger, test seams) (*Node, error) {
	access, err := newAccess(cfg, log)
	if err != nil {
		return nil, err
	}
	cert, err := newCertificate(cfg, log)
	if err != nil {
		return nil, err
	}
	client, err := upstream.New(registries(cfg, log))
	if err != nil {
		return nil, fmt.Errorf("setting up the registries: %w", err)
	}
	n := &Node{
		cfg: cfg, name: proxyName, log: log, upstream: client, stores: stores(cfg, log), since: time.Now(),
		access: access, hosts: newHosts(cfg), budget: newBudget(openFiles(), cfg.QueueTimeout), cert: cert,
	}
	n.names = names(cfg)
	n.page = page.New(cfg.BaseURL, cfg.DefaultRegistry, pageAliases(cfg))
	fetch := transfer.Config{Upstream: client, Store: n.store, Policy: n.policy, Log: log}
	if cfg.Cluster != nil {
		n.name = cfg.Cluster.Name
		if err := n.openCluster(cfg.Cluster, test); err != nil {
			client.Close()
			return nil, errors.Join(err, n.closeStores())
		}
		fetch.Mesh, fetch.Look, fetch.Drip = n.cluster.mesh, test.look, 60*test.look
	}
	n.fetcher = transfer.New(fetch)
	for _, r := range cfg.Registries { // counted from the start: strangers' names may use up the places
		n.fetcher.Sent(r.Host, oci.Hit, 0)
	}
	if n.cluster != nil {
		n.servePeers()
	}
	return n, nil
}

// registries are the configured registries as the upstream client takes them,
// and what one is that nobody configured.
func registries(cfg *config.Config, log *slog.Logger) ([]upstream.Registry, upstream.Registry, *slog.Logger) {
	var out []upstream.Registry
	for _, r := range cfg.Registries {
		u := upstreamRegistry(r)
		u.Configured = true
		out = append(out, u)
	}
	return out, upstreamRegistry(cfg.Defaults), log
}

func upstreamRegistry(r config.Registry) upstream.Registry {
	return upstream.Registry{
		Host: r.Host, Username: r.Username, Password: r.Password.Reveal(), Proxy: r.UpstreamProxy, CAFile: r.CAFile,
		Insecure: r.Insecure, FollowRedirects: r.FollowRedirects, RealmHosts: r.RealmHosts,
	}
}

// stores opens a store for each cache directory that the config names.
func stores(cfg *config.Config, log *slog.Logger) map[string]*cache.Store {
	opts := map[string]cache.Options{}
	registries := cfg.Registries
	if !cfg.WhitelistMode { // else nobody comes to the defaults' directory but those who name it
		registries = append([]config.Registry{cfg.Defaults}, registries...)
	}
	for _, r := range registries {
		dir := storeDir(r)
		o, ok := opts[dir]
		if !ok {
			o = cache.Options{Bound: r.CacheMaxSize, Shares: map[string]int64{}, Verify: max(cfg.VerifyInterval, time.Nanosecond), Log: log}
		}
		if r.OwnBound > 0 {
			o.Shares[r.Host] = r.OwnBound
		}
		opts[dir] = o
	}
	out := map[string]*cache.Store{}
	for dir, o := range opts {
		out[dir] = cache.Open(dir, o)
	}
	return out
}

// storeDir is the one name of the directory that a registry's content lies in:
// the config takes directories that are the same for one.
func storeDir(r config.Registry) string {
	if abs, err := filepath.Abs(r.CacheDir); err == nil {
		return abs
	}
	return filepath.Clean(r.CacheDir)
}

// names is how clients' names become registries'.
func names(cfg *config.Config) oci.Names {
	alias := map[string]string{}
	for _, r := range cfg.Registries {
		for _, a := range r.Alias {
			alias[a] = r.Host
		}
	}
	return oci.Names{
		Default: cfg.DefaultRegistry, Hub: config.DockerHub, Canonical: config.Canonical, Alias: alias,
		Known: func(host string) bool { _, ok := cfg.Registry(host); return ok },
	}
}

// pageAliases is the first alias of each registry that has one.
func pageAliases(cfg *config.Config) map[string]string {
	out := map[string]string{}
	for _, r := range cfg.Registries {
		if len(r.Alias) > 0 {
			out[r.Host] = r.Alias[0]
		}
	}
	return out
}

// store is where a registry's content lies. In whitelist_mode there may be no
// place for one that is not listed; peers that ask for it all the same are told
// of the default registry's.
func (n *Node) store(registry string) *cache.Store {
	r, _ := n.cfg.Registry(registry)
	if s, ok := n.stores[storeDir(r)]; ok {
		return s
	}
	r, _ = n.cfg.Registry(n.cfg.DefaultRegistry)
	return n.stores[storeDir(r)]
}

// policy is how a registry is treated.
func (n *Node) policy(registry string) transfer.Policy {
	r, configured := n.cfg.Registry(registry)
	private := r.Private || n.cluster != nil && n.cluster.mesh.private(registry)
	return transfer.Policy{TagTTL: r.TagTTL, StaleIfError: r.StaleIfError, Offline: r.Offline, Private: private, Stranger: !configured, PassOn: !r.FollowRedirects}
}

const (
	// headerTimeout is how long a client may take to send a request's header.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long a connection may be without a request.
	idleTimeout = 2 * time.Minute
	// maxHeader bounds a request's header in bytes.
	maxHeader = 32 << 10
)

// server is the clients' server.
func (n *Node) server() *http.Server {
	srv := &http.Server{
		Handler: n.Handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		TLSConfig: serverTLS(n.cert), ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	overTLS(srv)
	n.budget.watch(srv)
	return srv
}

// serve serves on l, over TLS if that is set up.
func serve(srv *http.Server, l net.Listener) error {
	if srv.TLSConfig != nil {
		return srv.ServeTLS(l, "", "")
	}
	return srv.Serve(l)
}

// Run serves on l until ctx ends, then drains: no pull under way is cut before
// the config's shutdown_timeout is over (see pulls.go). It closes the node.
func (n *Node) Run(ctx context.Context, l net.Listener) error {
	srv := n.server()
	served := make(chan error, 1)
	go func() { served <- serve(srv, l) }()
	if n.cluster != nil {
		hearing, stop := context.WithCancel(context.WithoutCancel(ctx))
		heard := make(chan struct{})
		go func() { defer close(heard); n.hearOthers(hearing) }()
		defer func() { stop(); <-heard }()
	}
	n.log.Info("serving", "address", l.Addr().String())
	err := n.awaitEnd(ctx, served)
	n.ready.Store(false)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.cfg.ShutdownTimeout)
	defer cancel()
	if err == nil {
		n.awaitQuiet(drain)
	}
	if cut := srv.Shutdown(drain); cut != nil {
		n.log.Warn("pulls cut at the end of shutdown_timeout", "error", cut)
		err = errors.Join(err, srv.Close())
	}
	return errors.Join(err, n.Close(drain))
}

// awaitEnd waits until the node is to drain, or serving has failed. Meanwhile
// the node becomes ready.
func (n *Node) awaitEnd(ctx context.Context, served <-chan error) error {
	met := n.met(ctx)
	for {
		select {
		case <-met:
			n.ready.Store(true)
			met = nil
		case err := <-served:
			return fmt.Errorf("serving: %w", err)
		case <-n.left():
			n.log.Info("draining", "at most", n.cfg.ShutdownTimeout)
			return nil
		case <-ctx.Done():
			n.log.Info("draining", "at most", n.cfg.ShutdownTimeout)
			if n.cluster != nil {
				n.cluster.members.Restarting(context.WithoutCancel(ctx))
			}
			return nil
		}
	}
}

// meetTime bounds how long a node that starts looks for others before it is ready.
const meetTime = 5 * time.Second

// met is closed when the node knows other members, or that there are none to be
// found. One that just started asks upstream for what others have.
func (n *Node) met(ctx context.Context) <-chan struct{} {
	met := make(chan struct{})
	if n.cluster == nil {
		close(met)
		return met
	}
	go func() {
		defer close(met)
		ctx, cancel := context.WithTimeout(ctx, meetTime)
		defer cancel()
		n.cluster.members.AwaitOthers(ctx)
	}()
	return met
}

// left is closed when the node is to leave its cluster for good.
func (n *Node) left() <-chan struct{} {
	if n.cluster == nil {
		return nil
	}
	return n.cluster.leaving
}

// Close ends downloads (letting them finish until ctx ends), says so to the
// other members, and closes the cache.
func (n *Node) Close(ctx context.Context) error {
	n.fetcher.Close(ctx)
	var errs []error
	if n.cluster != nil {
		errs = append(errs, n.cluster.close(ctx))
	}
	n.upstream.Close()
	return errors.Join(append(errs, n.closeStores())...)
}

// closeStores closes the cache.
func (n *Node) closeStores() error {
	var errs []error
	for _, s := range n.stores {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
