package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"oci-proxy/cache"
	"oci-proxy/node/config"
	"oci-proxy/node/health"
	"oci-proxy/node/metrics"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstream"
)

// registries are what the config says of registries, and the shards that hold
// their content. Directories are resolved once, when the node is built: a working
// directory that is renamed later, or a link that then points elsewhere, changes
// nothing.
type registries struct {
	now    atomic.Pointer[book]
	shards map[string]*grants.Shard // by directory
	others string                   // the directory of all other registries
	home   string                   // the directory of the node itself, which keeps its identity there
}

// A book is what one config says of registries. It does not change.
type book struct {
	cfg   *config.Config
	names oci.Names
	rules map[string][]grants.TagRule // for the tags of configured registries
	dirOf map[string]string           // the directory of each configured registry
}

// openRegistries opens a shard for each cache directory that the config names.
// Close the registries.
func openRegistries(cfg *config.Config, log *slog.Logger) *registries {
	r := &registries{shards: map[string]*grants.Shard{}, home: resolve(cfg.Defaults.CacheDir)}
	r.others = r.home
	r.use(cfg)
	for dir, opts := range r.options(log) {
		r.shards[dir] = grants.OpenShard(dir, opts)
	}
	if r.shards[r.others] == nil { // whitelist_mode, and no registry uses it
		r.others = r.now.Load().dirOf[cfg.DefaultRegistry]
	}
	return r
}

// use puts another config in force. Its registries lie in directories that are open.
func (r *registries) use(cfg *config.Config) {
	b := &book{cfg: cfg, names: names(cfg), rules: map[string][]grants.TagRule{}, dirOf: map[string]string{}}
	for _, one := range cfg.Registries {
		b.dirOf[one.Host] = resolve(one.CacheDir)
		for _, t := range one.Tags {
			b.rules[one.Host] = append(b.rules[one.Host], grants.TagRule{Match: t.Match, TagTTL: t.TTL, StaleIfError: t.StaleIfError})
		}
	}
	r.now.Store(b)
}

// rebound gives the stores the bounds of the config in force.
func (r *registries) rebound() {
	for dir, opts := range r.options(nil) {
		if shard := r.shards[dir]; shard != nil {
			shard.SetBounds(opts.Bound, opts.Shares)
		}
	}
}

// cfg is the config in force.
func (r *registries) cfg() *config.Config { return r.now.Load().cfg }

// names are how clients' names become registries' now.
func (r *registries) names() oci.Names { return r.now.Load().names }

// resolve returns the one name of a directory. If the working directory cannot be
// told, a relative name stays as it is: the store then says what is wrong.
func resolve(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return filepath.Clean(dir)
	}
	return abs
}

// windowsSize is how many bytes of memory all downloads together take that have no place
// on disk.
const windowsSize = 8 << 20

// options say how each directory's shard is opened. In whitelist_mode only
// registries that name the defaults' directory use it.
func (r *registries) options(log *slog.Logger) map[string]cache.Options {
	opts := map[string]cache.Options{}
	windows := cache.NewWindows(windowsSize) // one for all shards
	add := func(dir string, one config.Registry) {
		o, ok := opts[dir]
		if !ok {
			o = cache.Options{Bound: one.CacheMaxSize, Shares: map[string]int64{}, Verify: max(r.cfg().VerifyInterval, time.Nanosecond), Group: r.group, MaxIdle: r.maxIdle, Windows: windows, Log: log}
		}
		if one.OwnBound > 0 {
			o.Shares[one.Host] = one.OwnBound
		}
		opts[dir] = o
	}
	if !r.cfg().WhitelistMode {
		add(r.others, r.cfg().Defaults)
	}
	for _, one := range r.cfg().Registries {
		add(r.now.Load().dirOf[one.Host], one)
	}
	return opts
}

// group says with whom a registry shares places for tags: with nobody if it is
// configured, else with all of its domain, since whoever has a domain has any number
// of hosts.
func (r *registries) group(registry string) cache.Group {
	if r.Configured(registry) {
		return cache.Group{Name: registry}
	}
	return cache.Group{Name: upstream.Domain(registry), Stranger: true}
}

// maxIdle is how long content of a registry stays that nobody asks for, 0: for ever.
func (r *registries) maxIdle(registry string) time.Duration {
	one, _ := r.cfg().Registry(registry)
	return one.MaxIdle
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

// shard is where a registry's content lies. In whitelist_mode there may be no place
// for a registry that is not listed; members that ask for it all the same are
// answered from the default registry's.
func (r *registries) shard(registry string) *grants.Shard { return r.shards[r.dir(registry)] }

// Shard implements keeper.Shards.
func (r *registries) Shard(registry string) *grants.Shard { return r.shard(registry) }

// dir is the directory of a registry's content.
func (r *registries) dir(registry string) string {
	if dir, ok := r.now.Load().dirOf[config.Canonical(registry)]; ok && r.shards[dir] != nil {
		return dir
	}
	return r.others
}

// dirs lists the directories in order.
func (r *registries) dirs() []string { return slices.Sorted(maps.Keys(r.shards)) }

// Shards implements cluster.Registries.
func (r *registries) Shards() []*grants.Shard {
	var out []*grants.Shard
	for _, dir := range r.dirs() {
		out = append(out, r.shards[dir])
	}
	return out
}

// ByShard implements cluster.Registries.
func (r *registries) ByShard() [][]string {
	byDir := map[string][]string{}
	for _, one := range r.cfg().Registries {
		dir := r.now.Load().dirOf[one.Host]
		byDir[dir] = append(byDir[dir], one.Host)
	}
	var out [][]string
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		out = append(out, byDir[dir])
	}
	return out
}

// Configured implements cluster.Registries.
func (r *registries) Configured(registry string) bool {
	_, configured := r.cfg().Registry(registry)
	return configured
}

// Asks implements cluster.Registries.
func (r *registries) Asks(registry string) bool {
	return !r.cfg().WhitelistMode || r.Configured(registry)
}

// relays reports whether this node asks the registry for other members.
func (r *registries) relays(registry string) bool {
	one, _ := r.cfg().Registry(registry)
	return r.Asks(registry) && !one.Offline
}

// configured lists the configured registries.
func (r *registries) configured() []string {
	var out []string
	for _, one := range r.cfg().Registries {
		out = append(out, one.Host)
	}
	return out
}

// label is a registry's label in metrics.
func (r *registries) label(registry string) string {
	if one, configured := r.cfg().Registry(registry); configured {
		return one.Host
	}
	return metrics.Other
}

// bound is the bound of a registry's shard in bytes, 0 for none.
func (r *registries) bound(registry string) int64 {
	one, _ := r.cfg().Registry(registry)
	return one.CacheMaxSize
}

// kept is how many bytes of lists are kept, and may be.
type kept struct{ bytes, bound int64 }

// keptLists sums up the lists that the shards keep.
func (r *registries) keptLists() (all kept) {
	for _, s := range r.shards {
		bytes, bound := s.Pages.Used()
		all.bytes += bytes
		all.bound += bound
	}
	return all
}

// health lists what is wrong with the shards.
func (r *registries) health() (wrong []error) {
	for _, dir := range r.dirs() {
		if err := r.shards[dir].Health(); err != nil {
			wrong = append(wrong, ofDirectory(dir, err))
		}
	}
	return wrong
}

// ofDirectory is what is wrong with the shard in a directory, with its code.
func ofDirectory(dir string, err error) error {
	code := health.CacheDir
	if errors.Is(err, cache.ErrDiskFull) {
		code = health.DiskFull
	}
	return health.Because(code, fmt.Errorf("%s: %w", dir, err))
}

// close closes the shards.
func (r *registries) close() error {
	var errs []error
	for _, s := range r.shards {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// sites say what each registry means at the moment. They do no I/O.
type sites struct {
	registries *registries
	low        func(registry string, percent int) bool // whether less than that percentage of its rate limit is left
	private    func(registry string) bool              // whether any member treats it as private now
}

// of is what a registry means now.
func (s sites) of(registry string) grants.Site {
	now := s.registries.now.Load()
	r, configured := now.cfg.Registry(registry)
	shard := s.registries.shard(registry)
	return grants.Site{
		TagTTL: r.TagTTL, StaleIfError: r.StaleIfError, Tags: now.rules[r.Host], Offline: r.Offline, Private: s.guards(r, shard, !configured),
		Stranger: !configured, PassOn: !r.FollowRedirects, Shard: shard,
		Mirrored: len(r.Mirrors) > 0 || now.cfg.Archive != nil, Spare: s.low(registry, r.RateLimitReserve),
	}
}

// guards reports whether a registry is private. Once it was, by this node's config
// or another member's, it stays so for as long as the cache directory lives: what
// came by a login is still here. Only `private: false` takes that back.
func (s sites) guards(r config.Registry, shard *grants.Shard, stranger bool) bool {
	marked := shard.MarkedPrivate(r.Host)
	switch {
	case r.Private || s.private(r.Host):
		if !marked {
			shard.MarkPrivate(r.Host, stranger)
		}
		return true
	case r.Public:
		shard.MarkPublic(r.Host) // also what a member said meanwhile, and says no more
		return false
	default:
		return marked
	}
}

// public reports whether anybody may pull from a registry.
func (s sites) public(registry string) bool {
	r, configured := s.registries.cfg().Registry(registry)
	return !s.guards(r, s.registries.shard(registry), !configured)
}

// hooks are what the upstream client calls.
type hooks struct {
	mark     func() string                          // the node's pseudonym in requests to registries
	limited  func(registry string, d time.Duration) // a registry asks to be left alone
	meter    func(registry string) upstream.Meter   // what counts the requests to a registry
	patience time.Duration                          // for a connection; 0: what suits a node in such a cluster
}

// meterOf returns what counts the requests to a registry; nil if nothing does.
func (h hooks) meterOf(registry string) upstream.Meter {
	if h.meter == nil {
		return nil
	}
	return h.meter(registry)
}

// upstreams are the configured registries as the upstream client takes them, and
// what any other registry is. hooks are what they call.
func upstreams(cfg *config.Config, files *passwords, hooks hooks, log *slog.Logger) ([]upstream.Registry, upstream.Registry, *slog.Logger) {
	var out []upstream.Registry
	patience := cmp.Or(hooks.patience, upstream.Patience)
	if cfg.Cluster != nil {
		patience = cmp.Or(hooks.patience, upstream.MeshPatience)
	}
	for _, r := range cfg.Registries {
		u := upstreamOf(r, hooks)
		u.Configured, u.Patience, u.Self, u.Meter = true, patience, ports(cfg), hooks.meterOf(r.Host)
		for _, a := range r.Logins() {
			u.Accounts = append(u.Accounts, upstream.Account{Name: a.Key, Username: a.Username, Password: a.Password.Reveal(), Source: files.of(r, a)})
		}
		out = append(out, u)
	}
	for _, host := range unlisted(cfg) {
		u := upstreamOf(cfg.Defaults, hooks)
		u.Host, u.Configured, u.Patience, u.Self = host, true, patience, ports(cfg)
		u.Meter = hooks.meterOf(host)
		u.FollowRedirects, u.AllowAddresses = true, cfg.AllowAddresses
		out = append(out, u)
	}
	others := upstreamOf(cfg.Defaults, hooks)
	others.Meter = hooks.meterOf(metrics.Other)
	others.AllowAddresses, others.Patience, others.Self = cfg.AllowAddresses, patience, ports(cfg)
	return out, others, log
}

// ports are where this node listens. An address that is a name counts as all.
func ports(cfg *config.Config) []netip.AddrPort {
	texts := []string{net.JoinHostPort(cfg.Address, strconv.Itoa(cfg.Port))}
	if cfg.Cluster != nil {
		texts = append(texts, cfg.Cluster.BindAddr, cfg.Cluster.PeerAddr)
	}
	var out []netip.AddrPort
	for _, text := range texts {
		host, number, err := net.SplitHostPort(text)
		if err != nil {
			continue // the config is checked
		}
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			continue
		}
		ip, err := netip.ParseAddr(host)
		if err != nil {
			ip = netip.IPv4Unspecified()
		}
		out = append(out, netip.AddrPortFrom(ip, uint16(port)))
	}
	return out
}

func upstreamOf(r config.Registry, hooks hooks) upstream.Registry {
	return upstream.Registry{
		Host: r.Host, Path: r.Path, Reserve: r.RateLimitReserve, Proxy: r.UpstreamProxy, CAFile: r.CAFile,
		Insecure: r.Insecure, FollowRedirects: r.FollowRedirects, RealmHosts: r.RealmHosts,
		AllowAddresses: r.AllowAddresses, Requests: r.UpstreamRequests, Rate: r.UpstreamRate, Mark: hooks.mark, Limited: hooks.limited,
	}
}
