package config

import (
	"log/slog"
	"net/netip"
	"net/url"
	"time"
)

// configKeys describes what stands at the top of the file.
var configKeys = []key[Config]{
	one("port", portKind, "80", func(c *Config) *int { return &c.Port },
		"Port of the clients: /v2, /_/ and the page."),
	one("address", addressKind, "", func(c *Config) *string { return &c.Address },
		"Interface to listen on; empty: all."),
	many("trusted_proxies", cidrKind, func(c *Config) *[]netip.Prefix { return &c.TrustedProxies },
		"Load balancers whose X-Forwarded-For counts."),
	one("log_level", levelKind, "info", func(c *Config) *slog.Level { return &c.LogLevel },
		"Least level logged: debug, info, warn or error."),
	one("log_format", formatKind, "text", func(c *Config) *string { return &c.LogFormat },
		"How log lines look: text or json."),
	one("whitelist_mode", flagKind, "false", func(c *Config) *bool { return &c.WhitelistMode },
		"Only the registries listed and the default one may be asked."),
	one("default_registry", registryKind, DockerHub, func(c *Config) *string { return &c.DefaultRegistry },
		"Registry of image names that name none; it counts as configured."),
	one("base_url", baseKind, "", func(c *Config) *string { return &c.BaseURL },
		"How clients reach the proxy or its load balancer, for the page and for links."),
	many("allowed_hosts", hostKind, func(c *Config) *[]string { return &c.AllowedHosts },
		"Further names that the page and /_/ are reached by, as a browser sends them in Host; base_url's, localhost, IP addresses and the node's own are known."),
	one("tls.cert_file", pathKind, "", func(c *Config) *string { return &c.TLS.CertFile },
		"PEM file of the clients' port's certificate, its chain behind it; read again when it changes. Empty: plain HTTP."),
	one("tls.key_file", pathKind, "", func(c *Config) *string { return &c.TLS.KeyFile },
		"PEM file of that certificate's key; read again when it changes."),
	one("auth.username", userKind, "", func(c *Config) *string { return &c.Auth.Username },
		"User of the proxy itself; empty, and no htpasswd_file: no login is asked for."),
	one("auth.password", secretKind, "", func(c *Config) *Secret { return &c.Auth.Password },
		"Password of that user."),
	one("auth.password_file", pathKind, "", func(c *Config) *string { return &c.Auth.passwordFile },
		"File that holds the password instead; one newline at its end is cut."),
	one("auth.htpasswd_file", pathKind, "", func(c *Config) *string { return &c.Auth.HtpasswdFile },
		"File of further users, as htpasswd -B writes it (bcrypt alone); read again when it changes."),
	many("auth.anonymous_from", cidrKind, func(c *Config) *[]netip.Prefix { return &c.Auth.AnonymousFrom },
		"Clients that may pull without a login."),
	one("queue_timeout", durationKind, "120s", func(c *Config) *time.Duration { return &c.QueueTimeout },
		"How long a pull may wait for its turn when the node is at its limits; then it is refused."),
	one("shutdown_timeout", durationKind, "60s", func(c *Config) *time.Duration { return &c.ShutdownTimeout },
		"How long pulls in flight may take to end at a shutdown; then they are cut."),
	one("verify_interval", durationKind, "24h", func(c *Config) *time.Duration { return &c.VerifyInterval },
		"How long a chunk on disk counts as right once it was checked; 0: it is checked at each read."),
	section("defaults", func(l *loader, c *Config, n *node, path string) {
		fill(l, &c.Defaults, shared(registryKeys), n, path, "")
	}),
	section("registries", func(l *loader, _ *Config, n *node, _ string) { l.registries = n }),
	section("cluster", func(l *loader, c *Config, n *node, path string) {
		if c.Cluster == nil {
			c.Cluster = &Cluster{}
			preset(l, c.Cluster, clusterKeys)
		}
		fill(l, c.Cluster, clusterKeys, n, path, "")
	}),
}

// registryKeys describes what stands below each registry, and (the shared ones)
// below defaults.
var registryKeys = []key[Registry]{
	one("auth.username", userKind, "", func(r *Registry) *string { return &r.Username },
		"User at the registry; empty: it is asked without a login."),
	one("auth.password", secretKind, "", func(r *Registry) *Secret { return &r.Password },
		"Password or token of that user."),
	one("auth.password_file", pathKind, "", func(r *Registry) *string { return &r.passwordFile },
		"File that holds the password instead; one newline at its end is cut."),
	one("ca_file", pathKind, "", func(r *Registry) *string { return &r.CAFile },
		"PEM file of certificate authorities to trust beside the system's."),
	one("private", flagKind, "false", func(r *Registry) *bool { return &r.Private },
		"Serve its content only for a repository that vouched for it. A login implies true, whatever stands here. Without a login, false in so many words also lifts the protection of content that was private before."),
	{path: "mirrors", shape: list, typ: "list of host[:port]", preset: "[]", set: setMirrors, doc: "Other places that hold the same repositories, in order of health: a host, or {host: …, tags: true} if trusted for tags too."},
	one("tag_ttl", durationKind, "0s", func(r *Registry) *time.Duration { return &r.TagTTL },
		"How long a checked tag is believed; 0: it is checked at each request."),
	one("stale_if_error", durationKind, "720h", func(r *Registry) *time.Duration { return &r.StaleIfError },
		"How long a tag's last manifest is served while upstream fails; 0: never."),
	one("offline", flagKind, "false", func(r *Registry) *bool { return &r.Offline },
		"Never ask upstream."),
	one("upstream_connections", parallelKind, "1", func(r *Registry) *int { return &r.UpstreamConnections },
		"Parallel ranges for a large blob."),
	many("realm_hosts", hostKind, func(r *Registry) *[]string { return &r.RealmHosts },
		"Token servers on another site that may see these credentials."),
	many("alias", partKind, func(r *Registry) *[]string { return &r.Alias },
		"Other first parts of a path that mean this registry."),
	asDefault(one("cache_dir", pathKind, "", func(r *Registry) *string { return &r.CacheDir },
		"Where content is kept; empty: /var/lib/oci-proxy for root, else oci-proxy in the user's cache directory.")),
	asDefault(one("cache_max_size", sizeKind, "10g", func(r *Registry) *int64 { return &r.CacheMaxSize },
		"Bound of the store in cache_dir, of a registry's own share if it shares it; 0: no bound.")),
	asDefault(one("upstream_proxy", proxyKind, "", func(r *Registry) **url.URL { return &r.UpstreamProxy },
		"Proxy to ask upstream through: http, https, socks5 or socks5h, with user:password@ if need be.")),
	asDefault(one("follow_redirects", flagKind, "true", func(r *Registry) *bool { return &r.FollowRedirects },
		"Whether the proxy follows redirects; false: they are handed to the client.")),
	asDefault(one("insecure", flagKind, "false", func(r *Registry) *bool { return &r.Insecure },
		"Plain http to this host and http redirects from it, or https unverified.")),
}

// clusterKeys describes what stands below cluster.
var clusterKeys = []key[Cluster]{
	one("name", textKind, "", func(c *Cluster) *string { return &c.Name },
		"Stable name of this node, 64 bytes at most; empty: the host's."),
	one("bind_addr", bindKind, "0.0.0.0:7946", func(c *Cluster) *string { return &c.BindAddr },
		"Where gossip is heard, TCP and UDP."),
	one("peer_addr", bindKind, "0.0.0.0:7947", func(c *Cluster) *string { return &c.PeerAddr },
		"Where other nodes get blobs; never the clients' port."),
	one("advertise", oneHostKind, "", func(c *Cluster) *string { return &c.Advertise },
		"Host or IP the others reach this node at, without a port; empty: bind_addr's if specific, else the first private address."),
	many("seeds", seedKind, func(c *Cluster) *[]string { return &c.Seeds },
		"Members to join by; a name stands for all its addresses."),
	one("secret", secretKind, "", func(c *Cluster) *Secret { return &c.secret },
		"Shared by all members, at least 16 characters. Needed unless every address is loopback and neither auth, a registry's login nor private is set."),
	one("secret_file", pathKind, "", func(c *Cluster) *string { return &c.secretFile },
		"File that holds the secret instead; one a line while rotating, the new one first."),
	many("secrets", secretKind, func(c *Cluster) *[]Secret { return &c.Secrets },
		"Secrets while rotating: the first is used, all are accepted."),
	one("peer_tls", flagKind, "true", func(c *Cluster) *bool { return &c.PeerTLS },
		"TLS between nodes; false: plain HTTP, still signed."),
	one("egress", flagKind, "true", func(c *Cluster) *bool { return &c.Egress },
		"Whether this node may ask upstream itself."),
	one("zone", textKind, "", func(c *Cluster) *string { return &c.Zone },
		"Where this node stands: a room, a site, a cloud's zone."),
}

// mirrorKeys describes a mirror that is more than a host.
var mirrorKeys = []key[Mirror]{
	one("host", hostKind, "", func(m *Mirror) *string { return &m.Host }, "The mirror's host."),
	one("tags", flagKind, "false", func(m *Mirror) *bool { return &m.Tags }, "Trusted for tags too."),
}

// A gap is something that has a key but no code behind it yet. It is refused:
// an operator who asks for a mesh must not silently get a single node.
type gap struct {
	path  string                        // below the registry, if it is a registry's
	asked func(*Config, *Registry) bool // of the whole config (nil Registry) or of one registry
}

// notYet lists this version's gaps. Closing one is to delete its line.
var notYet = []gap{
	{"mirrors", func(_ *Config, r *Registry) bool { return r != nil && len(r.Mirrors) > 0 }},
	{"upstream_connections", func(_ *Config, r *Registry) bool { return r != nil && r.UpstreamConnections > 1 }},
}
