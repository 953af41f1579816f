// Package node is the process: it builds the rooms from the config, answers HTTP
// at the clients' port, and ends in order.
//
// A request enters by routes.go, which lists every URL there is, and is let in by
// node/gate. A request of the registry API is understood and answered by the api
// (api.go): manifest.go, blob.go, list.go; failure.go turns every failure into
// an OCI error. Everything under /_/ is answered by the reports (reports.go),
// which read the figures of the other rooms. requests.go logs a line for each
// request.
//
// What a registry is, where its content lies and how it is treated stands in
// registries.go. The other nodes are behind node/cluster. run.go serves and
// drains.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/gate"
	"oci-proxy/node/keeper"
	"oci-proxy/node/metrics"
	"oci-proxy/node/page"
	"oci-proxy/node/rules"
	"oci-proxy/transfer"
	"oci-proxy/transfer/archive"
	"oci-proxy/transfer/egress"
	"oci-proxy/transfer/mirrors"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
	"oci-proxy/transfer/upstream"
)

// A Node is one node.
type Node struct {
	cfg        *config.Config
	log        *slog.Logger
	registries *registries
	cluster    *cluster.Cluster
	upstream   *upstream.Client
	ways       *egress.Ways
	egress     *egress.Egress   // nil for a node on its own
	mirrors    *mirrors.Mirrors // over client, nil if no registry has mirrors
	client     oci.Upstream     // over upstream: what asks one host, over several connections where the config says so
	archive    *archive.Archive // over all of them, nil if none is configured
	fetcher    *transfer.Fetcher
	gate       *gate.Gate
	rules      *rules.Rules // who may pull what
	metrics    *metrics.Metrics
	cert       *certificate // of the clients' port, in files; nil for plain HTTP and for acme
	acme       *acme        // what gets the certificates of the clients' port, nil if nothing does
	passwords  atomic.Pointer[passwords]
	page       atomic.Pointer[http.Handler]
	guide      atomic.Pointer[guide]
	reloads    reloads
	api        *api
	reports    *reports
	warmer     *warmer
	keeper     *keeper.Keeper
	steward    *steward
	doctor     *doctor
	events     *events
	ready      atomic.Bool
	pulls      pulls
	leaving    chan struct{} // closed when the node is to leave its cluster for good
	leaveOnce  sync.Once
	tell       func(Stage)   // what Run has come to
	tracer     *trace.Tracer // nil: nothing is traced
}

// Version is this program's, as other members and readers of the page are told.
// Set it before New.
var Version = "dev"

// Revision is the commit that this program was built from, as metrics tell. Set it before New.
var Revision = "unknown"

// proxyName is what a node without a cluster calls itself in Cache-Status.
const proxyName = "oci-proxy"

// New builds a node. It does not serve clients yet, but its cache directories are
// open and it is a member of its cluster: call Run, or Close.
func New(cfg *config.Config, log *slog.Logger) (*Node, error) { return build(cfg, log, seams{}) }

// seams are where tests reach in. Zero fields change nothing.
type seams struct {
	cluster.Seams
	transfer func(*transfer.Config) // changes what the fetcher is built with
	limits   *gate.Limits           // what clients share
	version  string                 // of the program, as members are told; "": Version
	patience time.Duration          // as that of hooks
}

// build is New with seams.
func build(cfg *config.Config, log *slog.Logger, test seams) (*Node, error) {
	n := &Node{cfg: cfg, log: log, ways: egress.NewWays(), rules: rules.New(cfg), metrics: metrics.New(Version, Revision), leaving: make(chan struct{}), tell: func(Stage) {}, reloads: newReloads()}
	if err := n.open(test); err != nil {
		return nil, errors.Join(err, n.close(context.Background()))
	}
	sites := sites{n.registries, n.upstream.Low, n.cluster.Private}
	fetch, err := fetching(n, sites)
	if err != nil {
		return nil, errors.Join(err, n.close(context.Background()))
	}
	if test.transfer != nil {
		test.transfer(&fetch)
	}
	n.fetcher = transfer.New(fetch)
	for _, r := range cfg.Registries { // first, so that strangers' names do not use up the places for counters
		n.fetcher.Expect(r.Host)
	}
	n.reports = &reports{
		registries: n.registries, cluster: n.cluster, fetcher: n.fetcher, upstream: n.upstream, standings: standings{n.registries, n.upstream, n.mirrors}, archive: n.archive, gate: n.gate, cert: n.cert, acme: n.acme, passwords: &n.passwords, reloads: &n.reloads, ready: &n.ready, sites: sites,
		pulls: &n.pulls, began: time.Now(),
	}
	n.api = &api{
		name: nameOf(cfg), hit: []string{oci.Provenance{Origin: oci.Hit}.CacheStatus(nameOf(cfg), false)}, names: n.registries.names, asks: n.registries.Asks, rules: n.rules, gate: n.gate, fetcher: n.fetcher,
		sites: sites, pulls: &n.pulls, totals: n.reports.totals, waited: n.metrics.PullWaited, tracing: tracing{nameOf(cfg), n.tracer, n.gate.FromBalancer},
	}
	n.events = newEvents(n, sites)
	n.reports.hour = n.events.live.Hour
	n.warmer = &warmer{n.fetcher, n.registries, n.gate, n.rules, sites, n.log, make(chan struct{}, 1)}
	n.keeper = keeper.New(n.registries, n.log)
	n.steward = newSteward(n, sites)
	n.doctor = &doctor{
		registries: n.registries, cluster: n.cluster, reports: n.reports, upstream: n.upstream, passwords: &n.passwords,
		mark: n.mark, gate: n.gate, log: n.log, slots: make(chan struct{}, doctorSlots),
	}
	n.acme.join(n.cluster)
	n.cluster.Serve(n.fetcher.Holder(), outlet(n), n.reports.own, n.keeper)
	return n, nil
}

// fetching is what the fetcher works with. It opens the rooms between it and the upstream client.
func fetching(n *Node, sites sites) (fetch transfer.Config, err error) {
	n.egress = newEgress(n)
	fetch = transfer.Config{Upstream: wayOut(n), Reaches: reaches(n), Site: sites.of, Log: n.log, Mesh: n.cluster.Router()}
	if n.cfg.Cluster != nil {
		fetch.Zone = n.cfg.Cluster.Zone
	}
	n.archive, err = newArchive(n.cfg, fetch.Upstream, func(registry string) bool { return sites.of(registry).Private }, n.log)
	fetch.Archive = oci.NoArchive{}
	if n.archive != nil {
		fetch.Upstream, fetch.Archive = n.archive, n.archive
	}
	fetch.Archive = copying{fetch.Archive, n.cluster}
	return fetch, err
}

// open opens the rooms below the fetcher. If it fails, close closes those that
// are open.
func (n *Node) open(test seams) (err error) {
	if n.tracer, err = trace.Open(nameOf(n.cfg), Version, n.log); err != nil {
		return err
	}
	limits := gate.SystemLimits()
	if test.limits != nil {
		limits = *test.limits
	}
	if n.gate, err = gate.New(n.cfg, limits, n.log); err != nil {
		return err
	}
	if n.cert, err = openCertificate(n.cfg, n.log); err != nil {
		return err
	}
	none := noPasswords()
	n.passwords.Store(none)
	logins, err := openPasswords(n.cfg, none, n.log)
	if err != nil {
		return err
	}
	n.passwords.Store(logins)
	hooks := hooksOf(n)
	hooks.patience = test.patience
	if n.upstream, err = upstream.New(upstreams(n.cfg, logins, hooks, n.log)); err != nil {
		return fmt.Errorf("setting up the registries: %w", err)
	}
	logins.begin(n.cfg, none)
	n.client = withLanes(n.cfg, n.upstream, n.log)
	n.mirrors = newMirrors(n.cfg, n.client, n.log)
	n.registries = openRegistries(n.cfg, n.log)
	showPage(n, n.cfg)
	if n.acme, err = openACME(n.cfg, n.registries.home, n.registries.cfg, n.log); err != nil {
		return err
	}
	n.cluster, err = cluster.Open(cluster.Config{
		Node: n.cfg, Dir: n.registries.home, Name: nameOf(n.cfg), Version: cmp.Or(test.version, Version), Registries: n.registries, Hear: n.ways.Hear, Asked: n.metrics.PeerAsked, Pause: n.upstream.Pause, Refuses: n.rules.Refuse,
		Examine: n.examine, Certificates: n.acme.answers(), Busy: func() bool { return n.pulls.underWay() > 0 }, Tracer: n.tracer, Log: n.log, Seams: test.Seams,
	})
	return err
}

// mark is the node's pseudonym in the requests that it sends to registries.
func (n *Node) mark() string { return n.cluster.Marks().Own() }

// examine answers what another member asks about this node. None asks before Serve.
func (n *Node) examine(ctx context.Context, question []byte) (any, error) {
	return n.doctor.answer(ctx, question)
}

// hooksOf are what the upstream client calls.
func hooksOf(n *Node) hooks {
	return hooks{
		mark:    n.mark,
		limited: func(registry string, d time.Duration) { cluster.TellPause(n.cluster, registry, d) },
		meter:   func(registry string) upstream.Meter { return n.metrics.Of(registry) },
	}
}

// nameOf is what the node calls itself in Cache-Status.
func nameOf(cfg *config.Config) string {
	if cfg.Cluster == nil {
		return proxyName
	}
	return cfg.Cluster.Name
}

// newPage is the page, which names the first alias of each registry.
func newPage(cfg *config.Config) http.Handler {
	alias := map[string]string{}
	for _, r := range cfg.Registries {
		if len(r.Alias) > 0 {
			alias[r.Host] = r.Alias[0]
		}
	}
	return page.New(cfg.BaseURL, cfg.DefaultRegistry, alias)
}

// showPage makes the page, and what clients are told at /_/setup/, that of a config.
func showPage(n *Node, cfg *config.Config) {
	h := newPage(cfg)
	n.page.Store(&h)
	n.guide.Store(&guide{cfg, n.cert})
}

// Close ends downloads (they may finish until ctx ends), tells the other members,
// and closes the cache.
func (n *Node) Close(ctx context.Context) error {
	n.fetcher.Close(ctx)
	return n.close(ctx)
}

// close closes the rooms that are open, from the top.
func (n *Node) close(ctx context.Context) error {
	var errs []error
	if n.keeper != nil {
		n.steward.close()
		n.keeper.Close()
	}
	n.acme.close(ctx)
	if n.cluster != nil {
		errs = append(errs, n.cluster.Close(ctx))
	}
	if n.archive != nil {
		n.archive.Close()
	}
	if n.egress != nil {
		n.egress.Close()
	}
	if n.mirrors != nil {
		n.mirrors.Close()
	}
	if n.upstream != nil {
		n.upstream.Close()
	}
	if p := n.passwords.Load(); p != nil {
		p.close()
	}
	if n.registries != nil {
		errs = append(errs, n.registries.close())
	}
	if n.gate != nil {
		n.gate.Close(ctx)
	}
	n.tracer.Close(ctx)
	return errors.Join(errs...)
}

// PeerAddr is the address that other members reach the node at, "" without a
// cluster.
func (n *Node) PeerAddr() string { return n.cluster.PeerAddr() }

// GossipAddr is the address of the node's gossip, "" without a cluster.
func (n *Node) GossipAddr() string { return n.cluster.GossipAddr() }

// AwaitMembers waits until that many members are up, this node included, or ctx
// ends.
func (n *Node) AwaitMembers(ctx context.Context, many int) error {
	return n.cluster.AwaitMembers(ctx, many)
}

// ReloadFrom tells the node where its config is. It is called before Run.
func (n *Node) ReloadFrom(s Source) { n.reloads.source = s }

// Reload reads the config again and puts in force what can change while the node runs: no
// pull is cut or refused for it. Changes name the keys that took effect, and those that need
// a restart and stay as they are until then. After an error nothing has changed: a config with
// any mistake in it is refused as a whole, and health says so until one is taken.
func (n *Node) Reload(ctx context.Context) (config.Changes, error) { return readAgain(ctx, n) }
