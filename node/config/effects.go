package config

// restarts are the keys that count from the next start on. All other keys take effect at a
// reload. A new key stands here or in reloads: a test sees to it.
var restarts = []string{
	"port", "address", "log_format", "verify_interval",
	"defaults.upstream_connections", "defaults.cache_dir",
	"registries.<host>.mirrors", "registries.<host>.upstream_connections", "registries.<host>.cache_dir",
	"cluster.id", "cluster.name", "cluster.bind_addr", "cluster.peer_addr", "cluster.advertise", "cluster.seeds", "cluster.peer_tls", "cluster.egress", "cluster.zone",
	"archive.endpoint", "archive.bucket", "archive.prefix", "archive.region", "archive.access_key", "archive.access_key_file", "archive.secret_key", "archive.secret_key_file",
}

// reloads are the keys that take effect at a reload.
var reloads = []string{
	"trusted_proxies", "log_level", "whitelist_mode", "default_registry", "allow_addresses", "base_url", "allowed_hosts", "tls.cert_file", "tls.key_file", "tls.acme.domains", "tls.acme.email", "tls.acme.directory", "tls.acme.ca_file",
	"auth.username", "auth.password", "auth.password_file", "auth.htpasswd_file", "auth.anonymous_from", "auth.admins",
	"access", "queue_timeout", "shutdown_timeout", "warm",
	"defaults.max_idle", "defaults.cache_max_size", "defaults.upstream_proxy", "defaults.follow_redirects", "defaults.insecure",
	"registries.<host>.path", "registries.<host>.auth.username", "registries.<host>.auth.password", "registries.<host>.auth.password_file", "registries.<host>.auth.exec", "registries.<host>.auth.docker_config",
	"registries.<host>.accounts", "registries.<host>.ca_file", "registries.<host>.private", "registries.<host>.rate_limit_reserve",
	"registries.<host>.tag_ttl", "registries.<host>.stale_if_error", "registries.<host>.tags", "registries.<host>.offline",
	"registries.<host>.upstream_requests", "registries.<host>.upstream_rate", "registries.<host>.allow_addresses", "registries.<host>.realm_hosts",
	"registries.<host>.alias", "registries.<host>.max_idle", "registries.<host>.cache_max_size", "registries.<host>.upstream_proxy", "registries.<host>.follow_redirects", "registries.<host>.insecure",
	"cluster.secret", "cluster.secret_file", "cluster.secrets", "cluster.copies",
}
