package config

import (
	"log/slog"
	"net/netip"
	"net/url"
	"time"
)

// configKeys describes the keys at the top of the file.
var configKeys = []key[Config]{
	one("port", portKind, "80", func(c *Config) *int { return &c.Port },
		"Port for clients: `/v2/`, `/_/` and the page."),
	one("address", addressKind, "", func(c *Config) *string { return &c.Address },
		"Address or host name to listen on for clients. Empty: all interfaces."),
	many("trusted_proxies", cidrKind, func(c *Config) *[]netip.Prefix { return &c.TrustedProxies },
		"Load balancers whose `X-Forwarded-For` is believed."),
	one("log_level", levelKind, "info", func(c *Config) *slog.Level { return &c.LogLevel },
		"Lowest level that is logged: `debug`, `info`, `warn` or `error`."),
	one("log_format", formatKind, "text", func(c *Config) *string { return &c.LogFormat },
		"Format of log lines: `text` or `json`."),
	one("whitelist_mode", flagKind, "false", func(c *Config) *bool { return &c.WhitelistMode },
		"Serve only the registries under `registries` and the default registry."),
	one("default_registry", registryKind, DockerHub, func(c *Config) *string { return &c.DefaultRegistry },
		"Registry for image names without one. It counts as configured."),
	many("allow_addresses", cidrKind, func(c *Config) *[]netip.Prefix { return &c.AllowAddresses },
		"Networks that registries which are not configured may lead to beside public addresses, such as `198.18.0.0/15` of a local proxy's fake-IP DNS. Loopback and link-local addresses are let in only by a network within theirs, metadata services never."),
	one("base_url", baseKind, "", func(c *Config) *string { return &c.BaseURL },
		"URL at which clients reach the proxy or its load balancer, used on the page and in links. Empty: taken from each request."),
	many("allowed_hosts", hostKind, func(c *Config) *[]string { return &c.AllowedHosts },
		"Further host names that the page and `/_/` answer to. They always answer to `localhost`, IP addresses, the host of `base_url`, this node's own names, names that nobody outside can own (of containers and services), and with a login to any name."),
	one("tls.cert_file", pathKind, "", func(c *Config) *string { return &c.TLS.CertFile },
		"PEM file with the certificate of the clients' port, followed by its chain. Read again when it changes. Empty, and no `tls.acme`: plain HTTP."),
	one("tls.key_file", pathKind, "", func(c *Config) *string { return &c.TLS.KeyFile },
		"PEM file with the key of that certificate. Read again when it changes."),
	many("tls.acme.domains", domainKind, func(c *Config) *[]string { return &c.TLS.ACME.Domains },
		"Names in the DNS for which the node gets certificates of the clients' port by ACME and renews them, in place of the files; at most 50. By setting it you agree to the authority's terms. The authority must be able to connect to port 443 of each name (challenge TLS-ALPN-01), at whichever node of a cluster that ends: one node asks, all have the certificates. Who asks for another name, or for none, gets the first."),
	one("tls.acme.email", emailKind, "", func(c *Config) *string { return &c.TLS.ACME.Email },
		"Where the authority may write to about these certificates. Empty: nowhere."),
	one("tls.acme.directory", directoryKind, LetsEncrypt, func(c *Config) *string { return &c.TLS.ACME.Directory },
		"`https://` URL of the ACME server's directory. It is asked by way of `defaults.upstream_proxy`, if that is set."),
	one("tls.acme.ca_file", pathKind, "", func(c *Config) *string { return &c.TLS.ACME.CAFile },
		"PEM file with certificate authorities to trust in addition to the system's when the ACME server is asked."),
	one("auth.username", userKind, "", func(c *Config) *string { return &c.Auth.Username },
		"User that may use the proxy. If this and `auth.htpasswd_file` are empty, anybody may."),
	one("auth.password", secretKind, "", func(c *Config) *Secret { return &c.Auth.Password },
		"Password of that user."),
	one("auth.password_file", pathKind, "", func(c *Config) *string { return &c.Auth.passwordFile },
		"File with the password, in place of `auth.password`. One newline at the end is cut."),
	one("auth.htpasswd_file", pathKind, "", func(c *Config) *string { return &c.Auth.HtpasswdFile },
		"File with further users, as `htpasswd -B` writes it (bcrypt only). Read again when it changes."),
	many("auth.anonymous_from", cidrKind, func(c *Config) *[]netip.Prefix { return &c.Auth.AnonymousFrom },
		"Clients that may pull without a login."),
	many("auth.admins", userKind, func(c *Config) *[]string { return &c.Auth.Admins },
		"Users that may change things or look into them: leave, forget, reload, doctor, warm, purge, pin, unpin, verify, import. Not set: `auth.username`. Where no login is configured, clients on the node's own machine may."),
	{path: "access", shape: list, typ: "list of rules", preset: "[]", set: setAccess, of: pointer(func(c *Config) *[]AccessRule { return &c.Access }), doc: "Who may pull what: `{users: [bob, \"*\", anonymous], allow: [\"docker.io/library/**\"]}`, or `deny` in place of `allow`. The first rule that matches decides; what none matches is allowed. `users`: logins, `anonymous` for all without one, `\"*\"` for everybody; not set: everybody. Patterns are over `registry/repository`: `*` is one part, `**` any number of them, a `*` within a part any of its characters. A refused pull is answered with 403 `DENIED` and the rule's place."},
	one("queue_timeout", durationKind, "120s", func(c *Config) *time.Duration { return &c.QueueTimeout },
		"How long a pull may wait for its turn when the node is at its limits. Then it is refused."),
	one("shutdown_timeout", durationKind, "60s", func(c *Config) *time.Duration { return &c.ShutdownTimeout },
		"How long pulls may go on after SIGTERM. Then they are cut."),
	one("verify_interval", durationKind, "24h", func(c *Config) *time.Duration { return &c.VerifyInterval },
		"How long a chunk on disk is trusted after a check. 0: check at each read."),
	{path: "warm", shape: list, typ: "list of schedules", preset: "[]", set: setWarm, of: pointer(func(c *Config) *[]Warm { return &c.Warm }), doc: "Images that are pulled into this node's cache before anybody asks for them, at the start and then again: `{images: [alpine, ghcr.io/org/app:v1], every: 24h, platforms: [linux/amd64]}`. `platforms` may be `[all]`; not set: this machine's."},
	section("defaults", func(r *reader, c *Config, n *node, path string) {
		fill(r, &c.Defaults, shared(registryKeys), n, path, "")
	}),
	section("registries", func(r *reader, _ *Config, n *node, _ string) { r.registries = n }),
	section("cluster", func(r *reader, c *Config, n *node, path string) {
		if c.Cluster == nil {
			c.Cluster = &Cluster{}
			preset(r, c.Cluster, clusterKeys)
		}
		fill(r, c.Cluster, clusterKeys, n, path, "")
	}),
	section("archive", func(r *reader, c *Config, n *node, path string) {
		if c.Archive == nil {
			c.Archive = &Archive{}
			preset(r, c.Archive, archiveKeys)
		}
		fill(r, c.Archive, archiveKeys, n, path, "")
	}),
}

// registryKeys describes the keys below each registry. The shared ones are also
// the keys below defaults.
var registryKeys = []key[Registry]{
	one("path", prefixKind, "", func(r *Registry) *string { return &r.Path },
		"Path that the registry's API is below, if it is not at the root of its host: `/prefix` for `https://host/prefix/v2/`. Realms and redirects that lack it, as of a registry behind a gateway, are looked for below it too."),
	one("auth.username", userKind, "", func(r *Registry) *string { return &r.Username },
		"User at the registry. Empty: no login."),
	one("auth.password", secretKind, "", func(r *Registry) *Secret { return &r.Password },
		"Password or token of that user."),
	one("auth.password_file", pathKind, "", func(r *Registry) *string { return &r.PasswordFile },
		"File with the password, in place of `auth.password`. One newline at the end is cut. Read again when it changes, and when the registry refuses the password."),
	many("auth.exec", argumentKind, func(r *Registry) *[]string { return &r.Exec },
		"Command that prints the login, in place of the above: the program, then its arguments, with no shell between. It prints `{\"username\": …, \"password\": …, \"expires_in\": …}`, the last in seconds; 10 s and 64 KiB at most. It is run again before that ends, and when the registry refuses the login."),
	one("auth.docker_config", pathKind, "", func(r *Registry) *string { return &r.DockerConfig },
		"Docker's `config.json` that knows the login, in place of the above: by `credHelpers`, `credsStore` or `auths`. It is read again, and the credential helper asked again, while the login is in use, and when the registry refuses it."),
	{path: "accounts", shape: list, typ: "list of logins", preset: "[]", set: setAccounts, of: pointer(func(c *Registry) *[]Account { return &c.Accounts }), doc: "Further logins at the registry, each `{username: …, password: …}`, or with `password_file`, `exec` or `docker_config`, beside `auth`, which is the first one. Requests with a login take them by turns. One that the registry limits rests while the others are used, and what one may not see the others are asked for. At most 16."},
	one("ca_file", pathKind, "", func(r *Registry) *string { return &r.CAFile },
		"PEM file with certificate authorities to trust in addition to the system's."),
	with(one("private", flagKind, "", func(r *Registry) *bool { return &r.Private },
		"`true`: serve its content only for a repository that vouched for it. A login (`auth`, `accounts`) implies `true` and wins over `false`. `false`: public, including content that was cached as private, unless another member says now that it is private. Not set: public, but content that was cached as private stays private."), func(r *Registry) []any { return []any{&r.Public} }),
	{path: "mirrors", shape: list, typ: "list of host[:port]", preset: "[]", set: setMirrors, of: pointer(func(c *Registry) *[]Mirror { return &c.Mirrors }), doc: "Other hosts with the same repositories, tried in order of health and speed: a host, or `{host: …, tags: true}` to trust it for tags, lists and ranges too, which nobody can check. A mirror's login, proxy and certificates are those of its own entry. If a mirror has a login or is private, so is this registry, unless it says `private: false`."},
	one("rate_limit_reserve", percentKind, "0", func(r *Registry) *int { return &r.RateLimitReserve },
		"Percentage of the registry's own rate limit. While less than that is left, tags that are known are believed for as long as `stale_if_error` allows, and `warm` pulls nothing by schedule. 0: never."),
	one("tag_ttl", durationKind, "0s", func(r *Registry) *time.Duration { return &r.TagTTL },
		"How long a tag is used after a check with the registry. 0: check at each request."),
	one("stale_if_error", durationKind, "720h", func(r *Registry) *time.Duration { return &r.StaleIfError },
		"How long a tag's last manifest, a list's last page, or that a tag is missing, is served while the registry fails. 0: never."),
	{path: "tags", shape: list, typ: "list of rules", preset: "[]", set: setTags, of: pointer(func(c *Registry) *[]TagRule { return &c.Tags }), doc: "The two keys above for some tags: `{match: \"*-SNAPSHOT\", ttl: 10s, stale_if_error: 1h}`. The first rule that matches a tag's name counts; `*` stands for any characters, `?` for one, `[a-z]` for one of these. What a rule does not set is as for the registry."},
	one("offline", flagKind, "false", func(r *Registry) *bool { return &r.Offline },
		"Never contact the registry; serve only what is cached, however old it is. Set it on all nodes of a cluster."),
	asDefault(one("upstream_connections", parallelKind, "1", func(r *Registry) *int { return &r.UpstreamConnections },
		"Connections that bring one large blob side by side, each a range of it, where the registry serves ranges; in a cluster some of them by other members' ways out. Those beside the first use only turns of `upstream_requests` that nobody waits for. What comes ahead waits in memory: at most 96 MiB for all blobs together.")),
	one("upstream_requests", requestsKind, "32", func(r *Registry) *int { return &r.UpstreamRequests },
		"Requests that this node has at the registry at a time, downloads included; more wait for their turn. An eighth of them, at least one of two, is left to requests that are no downloads. A registry that is not listed has 32, all such registries together 256."),
	one("upstream_rate", rateKind, "0", func(r *Registry) *int64 { return &r.UpstreamRate },
		"Bytes of blobs that this node gets from the registry in a second, all of them together. 0: no limit."),
	many("allow_addresses", cidrKind, func(r *Registry) *[]netip.Prefix { return &r.AllowAddresses },
		"Networks that this registry, its token server and its storage may lead to beside public addresses."),
	many("realm_hosts", hostKind, func(r *Registry) *[]string { return &r.RealmHosts },
		"Token servers on other sites that may receive these credentials."),
	many("alias", partKind, func(r *Registry) *[]string { return &r.Alias },
		"Other first parts of an image name that mean this registry."),
	asDefault(one("cache_dir", pathKind, "", func(r *Registry) *string { return &r.CacheDir },
		"Directory for cached content. Empty: `/var/lib/oci-proxy` for root, otherwise `oci-proxy` in the user's cache directory.")),
	asDefault(with(one("cache_max_size", sizeKind, "10g", func(r *Registry) *int64 { return &r.CacheMaxSize },
		"Size limit of the store in `cache_dir`. For a registry that shares a store: the limit of its share. 0: no limit."), func(r *Registry) []any { return []any{&r.OwnBound} })),
	asDefault(one("max_idle", idleKind, "0s", func(r *Registry) *time.Duration { return &r.MaxIdle },
		"How long content stays in the cache that nobody asks for, clients and other members alike. 0: until room is needed.")),
	asDefault(one("upstream_proxy", proxyKind, "", func(r *Registry) **url.URL { return &r.UpstreamProxy },
		"Proxy for requests to registries: `http://`, `https://`, `socks5://` or `socks5h://`, with `user:password@` if needed.")),
	asDefault(one("follow_redirects", flagKind, "true", func(r *Registry) *bool { return &r.FollowRedirects },
		"Follow a registry's redirects. `false`: pass them on to the client; such blobs are not cached.")),
	asDefault(one("insecure", flagKind, "false", func(r *Registry) *bool { return &r.Insecure },
		"Allow plain http to the registry and its http redirects, and https without verification.")),
}

// clusterKeys describes the keys below cluster.
var clusterKeys = []key[Cluster]{
	one("id", clusterKind, DefaultClusterID, func(c *Cluster) *string { return &c.ID },
		"Name of the cluster, the same on all its nodes: 1 to 64 letters, digits, dots, hyphens and underscores. Clusters with different ids never meet, whatever their secrets."),
	one("name", textKind, "", func(c *Cluster) *string { return &c.Name },
		"Stable name of this node, at most 64 bytes. Empty: the host name."),
	one("bind_addr", bindKind, "0.0.0.0:7946", func(c *Cluster) *string { return &c.BindAddr },
		"Address to listen on for gossip, TCP and UDP."),
	one("peer_addr", bindKind, "0.0.0.0:7947", func(c *Cluster) *string { return &c.PeerAddr },
		"Address to listen on for other nodes' requests. Must not be the clients' port."),
	one("advertise", oneHostKind, "", func(c *Cluster) *string { return &c.Advertise },
		"Host or IP address at which other nodes reach this one, without a port. Empty: the address in `bind_addr` if it is specific, otherwise the first private address."),
	many("seeds", seedKind, func(c *Cluster) *[]string { return &c.Seeds },
		"Members to join through. A name stands for all its addresses."),
	one("secret", secretKind, "", func(c *Cluster) *Secret { return &c.secret },
		"Secret that all members share, at least 16 characters. Required unless every address is loopback and nothing is protected: no `auth`, no registry with a login or `private: true`."),
	one("secret_file", pathKind, "", func(c *Cluster) *string { return &c.secretFile },
		"File with the secret, in place of `cluster.secret`. While rotating: several, one per line, the new one first."),
	many("secrets", secretKind, func(c *Cluster) *[]Secret { return &c.Secrets },
		"Secrets while rotating, in place of `cluster.secret`. The first is used, all are accepted."),
	one("peer_tls", flagKind, "true", func(c *Cluster) *bool { return &c.PeerTLS },
		"TLS between nodes. `false`: plain HTTP with signed requests and answers; use it only on a trusted network."),
	one("egress", flagKind, "true", func(c *Cluster) *bool { return &c.Egress },
		"Let this node contact registries itself. `false`: it owns its share of the content all the same, and asks registries by way of the nodes that may."),
	one("zone", textKind, "", func(c *Cluster) *string { return &c.Zone },
		"Location of this node, shown in `/_/cluster`: a room, a site, a cloud zone. A large blob that many nodes want goes once into each zone."),
	one("copies", copiesKind, "2", func(c *Cluster) *int { return &c.Copies },
		"2: content that no other member holds is copied to the next owner, in the background, slowly, and only into room that nothing else needs. 1: it is not. Set it alike on all nodes."),
}

// archiveKeys describes the keys below archive.
var archiveKeys = []key[Archive]{
	one("endpoint", endpointKind, "", func(a *Archive) **url.URL { return &a.Endpoint },
		"URL of an S3-compatible server: `https://host[:port]`, or `http://` in your own network. The bucket is a cold tier: nodes put there what they verified, and look there before they ask a registry."),
	one("bucket", bucketKind, "", func(a *Archive) *string { return &a.Bucket },
		"Name of the bucket. It must exist. What is in it is bounded by its own rules, such as those for its lifecycle."),
	one("prefix", keysKind, "", func(a *Archive) *string { return &a.Prefix },
		"Begins all keys in the bucket: `<prefix>/blobs/sha256/ab/abcdef…`, for private registries `<prefix>/private/<registry>/blobs/…`, for tags `<prefix>/tags/…`. Clusters with the same one share what is there."),
	one("region", textKind, DefaultRegion, func(a *Archive) *string { return &a.Region },
		"Region of the bucket, for the signature of requests."),
	one("access_key", userKind, "", func(a *Archive) *string { return &a.AccessKey },
		"Access key of the server. It needs the rights to get and to put objects. Empty: requests are not signed."),
	one("access_key_file", pathKind, "", func(a *Archive) *string { return &a.accessKeyFile },
		"File with the access key, in place of `archive.access_key`. One newline at the end is cut."),
	one("secret_key", secretKind, "", func(a *Archive) *Secret { return &a.SecretKey },
		"Secret key that belongs to it."),
	one("secret_key_file", pathKind, "", func(a *Archive) *string { return &a.secretKeyFile },
		"File with the secret key, in place of `archive.secret_key`. One newline at the end is cut."),
}

// mirrorKeys describes a mirror that is written as a mapping.
var mirrorKeys = []key[Mirror]{
	one("host", mirrorKind, "", func(m *Mirror) *string { return &m.Host }, "The mirror's host."),
	one("tags", flagKind, "false", func(m *Mirror) *bool { return &m.Tags }, "Trust it for tags too."),
}

// accountKeys describes a further login.
var accountKeys = []key[Account]{
	one("username", userKind, "", func(a *Account) *string { return &a.Username }, "The user."),
	one("password", secretKind, "", func(a *Account) *Secret { return &a.Password }, "The password or token."),
	one("password_file", pathKind, "", func(a *Account) *string { return &a.PasswordFile }, "File with it."),
	many("exec", argumentKind, func(a *Account) *[]string { return &a.Exec }, "Command that prints the login."),
	one("docker_config", pathKind, "", func(a *Account) *string { return &a.DockerConfig }, "Docker config that knows it."),
}

// warmKeys describes a schedule of images.
var warmKeys = []key[Warm]{
	many("images", imageKind, func(w *Warm) *[]string { return &w.Images }, "The images."),
	one("every", scheduleKind, "24h", func(w *Warm) *time.Duration { return &w.Every }, "How long after a round the next one begins."),
	many("platforms", platformKind, func(w *Warm) *[]string { return &w.Platforms }, "For which platforms."),
}

// accessKeys describes a rule about who may pull what.
var accessKeys = []key[AccessRule]{
	many("users", ruleUserKind, func(a *AccessRule) *[]string { return &a.Users }, "For whom the rule is."),
	many("allow", reposKind, func(a *AccessRule) *[]string { return &a.Allow }, "What they may pull."),
	many("deny", reposKind, func(a *AccessRule) *[]string { return &a.Deny }, "What they may not."),
}

// tagKeys describes a rule for tags.
var tagKeys = []key[TagRule]{
	one("match", patternKind, "", func(t *TagRule) *string { return &t.Match }, "Which tags."),
	one("ttl", durationKind, "", func(t *TagRule) *time.Duration { return &t.TTL }, "As tag_ttl."),
	one("stale_if_error", durationKind, "", func(t *TagRule) *time.Duration { return &t.StaleIfError }, "As the registry's."),
}
