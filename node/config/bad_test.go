package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// bad lists configs and everything that is wrong with them, in order. DIR stands
// for a directory with the files that the test below makes.
var bad = []struct{ name, text, want string }{
	// keys
	{"a misspelled key", "prot: 80", `c.yaml:1:1: prot: unknown key (did you mean port?)`},
	{"a key in camel case", "whitelistMode: true", `c.yaml:1:1: whitelistMode: unknown key (did you mean whitelist_mode?)`},
	{"a misspelled key of a registry", "registries:\n  ghcr.io:\n    cach_dir: /x", `c.yaml:3:5: registries.ghcr.io.cach_dir: unknown key (did you mean cache_dir?)`},
	{"a misspelled key of defaults", "defaults: {insecur: true}", `c.yaml:1:12: defaults.insecur: unknown key (did you mean insecure?)`},
	{"a misspelled key of auth", "auth:\n  user_name: x", `c.yaml:2:3: auth.user_name: unknown key (did you mean username?)`},
	{"a misspelled section", "registry:\n  ghcr.io:\n", `c.yaml:1:1: registry: unknown key`},
	{"a swapped pair of letters in a section", "registreis: {}", `c.yaml:1:1: registreis: unknown key (did you mean registries?)`},
	{"a key of another section", "cache_dir: /x", `c.yaml:1:1: cache_dir: unknown key (did you mean defaults.cache_dir?)`},
	{"a registry's key under defaults", "defaults: {tag_ttl: 5m}", `c.yaml:1:12: defaults.tag_ttl: unknown key (did you mean registries.<host>.tag_ttl?)`},
	{"a key like no other", "zzz: 1", `c.yaml:1:1: zzz: unknown key`},
	{"a path as a key", "auth.username: x", `c.yaml:1:1: auth.username: unknown key`},
	{"a key given twice", "port: 1\nlog_level: info\nport: 2", `c.yaml:3:1: port: is given twice, first on line 1; keep one of them`},
	{"a registry given twice", "registries:\n  a.io:\n  a.io:\n", `c.yaml:3:3: registries.a.io: is given twice, first on line 2; keep one of them`},
	{"a list as a key", "[a]: 1", `c.yaml:1:1: a key must be a single value`},
	// how long and how much
	{"idle for no unit", "defaults: {max_idle: 30}", `c.yaml:1:22: defaults.max_idle: "30" is not a duration; use for example 60s, 12h or 0s`},
	{"idle for less than nothing", "registries:\n  a.io: {max_idle: -1h}", `c.yaml:2:20: registries.a.io.max_idle: "-1h" is negative; use for example 60s, 12h or 0s`},
	{"a misspelled key of time", "defaults: {maxidle: 1h}", `c.yaml:1:12: defaults.maxidle: unknown key (did you mean max_idle?)`},
	{"no requests at all", "registries: {a.io: {upstream_requests: 0}}", `c.yaml:1:40: registries.a.io.upstream_requests: "0" is not a number from 1 to 4096`},
	{"a rate of less than nothing", "registries: {a.io: {upstream_rate: -1}}", `c.yaml:1:36: registries.a.io.upstream_rate: "-1" is not a size; use for example 10g, 500m, or 0 for no limit`},
	// tls.acme
	{"a wildcard", "tls: {acme: {domains: ['*.example.com']}}", `c.yaml:1:24: tls.acme.domains[0]: "*.example.com" is a wildcard; list each name, since only a challenge in the DNS gets wildcards, which this does not do`},
	{"an address for a domain", "tls: {acme: {domains: [192.0.2.1, '[2001:db8::1]']}}", `c.yaml:1:24: tls.acme.domains[0]: "192.0.2.1" is an IP address; use a name in the DNS
c.yaml:1:35: tls.acme.domains[1]: "[2001:db8::1]" is an IP address; use a name in the DNS`},
	{"a URL for a domain", "tls: {acme: {domains: ['https://example.com', 'a.example.com:443']}}", `c.yaml:1:24: tls.acme.domains[0]: "https://example.com" is not a domain; write the name alone, without a scheme, port or path
c.yaml:1:47: tls.acme.domains[1]: "a.example.com:443" is not a domain; write the name alone, without a scheme, port or path`},
	{"a short name for a domain", "tls: {acme: {domains: [registry, müller.example.com, a_b.example.com]}}", `c.yaml:1:24: tls.acme.domains[0]: "registry" is not a domain; use a full name such as registry.example.com (names beyond ASCII as xn--…)
c.yaml:1:34: tls.acme.domains[1]: "müller.example.com" is not a domain; use a full name such as registry.example.com (names beyond ASCII as xn--…)
c.yaml:1:54: tls.acme.domains[2]: "a_b.example.com" is not a domain; use a full name such as registry.example.com (names beyond ASCII as xn--…)`},
	{"a domain twice", "tls: {acme: {domains: [a.example.com, A.example.com.]}}", `c.yaml:1:39: tls.acme.domains[1]: "a.example.com" is listed twice`},
	{"an ACME server without domains", "tls: {acme: {email: a@example.com}}", `c.yaml:1:21: tls.acme.email: is set, but tls.acme has no domains; set tls.acme.domains to the names that clients use for this proxy`},
	{"certificates from two places", "tls: {cert_file: DIR/cert.pem, key_file: DIR/key.pem, acme: {domains: [a.example.com]}}", `c.yaml:1:18: tls.cert_file: "DIR/cert.pem" cannot be read: no such file or directory
c.yaml:1:18: tls.cert_file: is set as well as tls.acme; keep one of them`},
	{"an ACME server in the clear", "tls: {acme: {domains: [a.example.com], directory: 'http://ca.example.com/dir', email: Ops}}", `c.yaml:1:51: tls.acme.directory: "http://ca.example.com/dir" is not the https:// URL of an ACME server's directory; use for example https://acme-v02.api.letsencrypt.org/directory
c.yaml:1:87: tls.acme.email: "Ops" is not an email address; use for example ops@example.com`},
	{"an ACME server's authorities", "tls: {acme: {domains: [a.example.com], ca_file: DIR/none.pem}}", `c.yaml:1:49: tls.acme.ca_file: "DIR/none.pem" cannot be read: no such file or directory`},
	{"keys in the clear", "tls: {acme: {domains: [a.example.com]}}\ncluster: {secret: 0123456789abcdefX, peer_tls: false}", `c.yaml:2:48: cluster.peer_tls: is false, and tls.acme is set: the certificates' private keys would travel between nodes in the clear; set it to true, or use tls.cert_file`},
	// access
	{"a misspelled key of a rule", "access:\n- {user: [bob], deny: [a.io/x]}", `c.yaml:2:4: access[0].user: unknown key (did you mean users?)`},
	{"a rule of both kinds", "access:\n- {allow: [a.io/x], deny: [b.io/x]}", `c.yaml:2:3: access[0]: has both allow and deny; write two rules, the one that is to win first`},
	{"a rule of neither kind", "access: [{users: [bob]}]", `c.yaml:1:10: access[0]: has neither allow nor deny; add one, such as deny: ["docker.io/library/**"]`},
	{"a rule for nobody", "access: [{users: [], deny: ['**']}]", `c.yaml:1:10: access[0]: has an empty list of users, so it is for nobody; name some, or remove users: then it is for everybody`},
	{"a text for a rule", "access: [docker.io]", `c.yaml:1:10: access[0]: must be a mapping, not a single value`},
	{"a text for patterns", "access: [{deny: docker.io/x}]", `c.yaml:1:17: access[0].deny: must be a list, not a single value`},
	{"an empty user", "access: [{users: ['', bob], deny: ['**']}]", `c.yaml:1:19: access[0].users[0]: "" is not a user; write a login, anonymous, or "*" for everybody`},
	{"a registry alone", "access: [{deny: [docker.io]}]", `c.yaml:1:18: access[0].deny[0]: "docker.io" is one part only, and matches nothing: a name is registry/repository; write docker.io/**`},
	{"no registry", "access: [{deny: [library/alpine]}]", `c.yaml:1:18: access[0].deny[0]: "library/alpine" begins with no registry (did you mean docker.io/library/alpine?)`},
	{"a tag", "access: [{deny: ['docker.io/library/alpine:3']}]", `c.yaml:1:18: access[0].deny[0]: "docker.io/library/alpine:3" names a tag; rules are for whole repositories: leave out what follows the colon`},
	{"a digest", "access: [{allow: ['docker.io/x@sha256:00']}]", `c.yaml:1:19: access[0].allow[0]: the value names a digest; rules are for whole repositories`},
	{"a URL", "access: [{deny: ['https://docker.io/x']}]", `c.yaml:1:18: access[0].deny[0]: "https://docker.io/x" is a URL; write registry/repository, such as docker.io/library/**`},
	{"two stars in a part", "access: [{deny: ['docker.io/lib**']}]", `c.yaml:1:18: access[0].deny[0]: "docker.io/lib**" has ** within a part; ** is a part of its own, such as docker.io/**`},
	{"an empty part", "access: [{deny: ['docker.io//x']}]", `c.yaml:1:18: access[0].deny[0]: "docker.io//x" has an empty part; write registry/repository, such as docker.io/library/**`},
	{"a part that no name has", "access: [{deny: ['docker.io/a b']}]", `c.yaml:1:18: access[0].deny[0]: "docker.io/a b" has the part "a b", which no repository has`},
	// shapes
	{"a list for the whole", "- port: 80", `c.yaml:1:1: must be a mapping, not a list`},
	{"a text for the whole", "port", `c.yaml:1:1: must be a mapping, not a single value`},
	{"a list for a port", "port: [80]", `c.yaml:1:7: port: must be a single value, not a list`},
	{"keys for a text", "address: {ip: x}", `c.yaml:1:10: address: must be a single value, not a mapping`},
	{"a text for a list", "trusted_proxies: 10.0.0.0/8", `c.yaml:1:18: trusted_proxies: must be a list, not a single value`},
	{"a text for auth", "auth: user:pass", `c.yaml:1:7: auth: must be a mapping, not a single value`},
	{"a list of registries", "registries: [ghcr.io]", `c.yaml:1:13: registries: must be a mapping, not a list`},
	{"a text for a registry", "registries: {ghcr.io: yes}", `c.yaml:1:23: registries.ghcr.io: must be a mapping, not a single value`},
	{"a null in a list", "trusted_proxies: [~]", `c.yaml:1:19: trusted_proxies[0]: has no value; give it one or remove it`},
	{"a foreign tag", "auth:\n  username: u\n  password: !sesame", `c.yaml:3:13: auth.password: has a YAML tag, which no key takes; put a value that begins with ! in quotes`},
	// syntax
	{"a tab for indentation", "auth:\n\tusername: x", `c.yaml:2:1: not valid YAML: found character that cannot start any token`},
	{"an open bracket", "seeds: [a", `c.yaml:1:1: not valid YAML: did not find expected ',' or ']'`},
	{"an anchor that is not there", "auth:\n  password: *sesame", `c.yaml:2:13: not valid YAML: unknown anchor; put a value that begins with * in quotes`},
	{"a second document", "port: 80\n---\nport: 81", `c.yaml:2:1: a second YAML document starts here; put everything into one`},
	{"an alias of itself", "auth: &a\n  username: *a", `c.yaml:2:13: auth.username: is an alias that contains itself`},
	{"a merge of a text", "auth:\n  <<: x", `c.yaml:2:7: auth: << merges mappings, not a single value`},
	// values
	{"a port out of range", "port: 65536", `c.yaml:1:7: port: "65536" is not a port; use a number from 1 to 65535`},
	{"a negative port", "port: -1", `c.yaml:1:7: port: "-1" is not a port; use a number from 1 to 65535`},
	{"port zero", "port: 0", `c.yaml:1:7: port: "0" is not a port; use a number from 1 to 65535`},
	{"an address with a port", "address: 0.0.0.0:80", `c.yaml:1:10: address: "0.0.0.0:80" is not an IP address or host name; write it without a port`},
	{"an impossible address", "address: 300.0.0.1", `c.yaml:1:10: address: "300.0.0.1" is not an IP address or host name; write it without a port`},
	{"an unknown log level", "log_level: debgu", `c.yaml:1:12: log_level: "debgu" is not a log level; use debug, info, warn or error (did you mean debug?)`},
	{"an unknown log format", "log_format: xml", `c.yaml:1:13: log_format: "xml" is not a log format; use text or json`},
	{"a flag that is not true or false", "whitelist_mode: maybe", `c.yaml:1:17: whitelist_mode: "maybe" is not true or false`},
	{"a CIDR too wide", "trusted_proxies:\n- 10.0.0.0/8\n- 10.0.0.0/33", `c.yaml:3:3: trusted_proxies[1]: "10.0.0.0/33" is not a CIDR; use for example 10.0.0.0/8`},
	{"an address for a CIDR", "trusted_proxies: [10.0.0.1]", `c.yaml:1:19: trusted_proxies[0]: "10.0.0.1" is a single address; write 10.0.0.1/32 for it alone`},
	{"a size with an unknown unit", "defaults: {cache_max_size: 10x}", `c.yaml:1:28: defaults.cache_max_size: "10x" is not a size; use for example 10g, 500m, or 0 for no limit`},
	{"a negative size", "defaults: {cache_max_size: -1g}", `c.yaml:1:28: defaults.cache_max_size: "-1g" is not a size; use for example 10g, 500m, or 0 for no limit`},
	{"a size past all bounds", "defaults: {cache_max_size: 8388608t}", `c.yaml:1:28: defaults.cache_max_size: "8388608t" is too large; use 0 for no limit`},
	{"sizes in words of others", "defaults: {cache_max_size: 10 g}\nregistries:\n  a.io: {cache_max_size: 1.5GiB}\n  b.io: {cache_max_size: 10GB/s}", `c.yaml:1:28: defaults.cache_max_size: "10 g" is not a size; use for example 10g, 500m, or 0 for no limit (did you mean 10g?)
c.yaml:3:26: registries.a.io.cache_max_size: "1.5GiB" is not a size; use for example 10g, 500m, or 0 for no limit (write whole numbers: 1536m for 1.5g)
c.yaml:4:26: registries.b.io.cache_max_size: "10GB/s" is not a size; use for example 10g, 500m, or 0 for no limit`},
	{"durations in words of others", "queue_timeout: 1 D\nverify_interval: 5 days\nshutdown_timeout: 99999999999999999999d", `c.yaml:1:16: queue_timeout: "1 D" is not a duration; use for example 60s, 12h or 0s (did you mean 1d?)
c.yaml:2:18: verify_interval: "5 days" is not a duration; use for example 60s, 12h or 0s
c.yaml:3:19: shutdown_timeout: "99999999999999999999d" is not a duration; use for example 60s, 12h or 0s`},
	{"a negative number of days", "verify_interval: -1d", `c.yaml:1:18: verify_interval: "-1d" is negative; use for example 60s, 12h or 0s`},
	{"a base URL without a scheme", "base_url: proxy.example:8080/", `c.yaml:1:11: base_url: "proxy.example:8080/" is not an http:// or https:// URL (did you mean https://proxy.example:8080/?)`},
	{"the key of docker's own config", "registries: {'https://index.docker.io/v1/': {}, 'https://hub.docker.com': {}}", `c.yaml:1:14: registries.https://index.docker.io/v1/: "https://index.docker.io/v1/" is not a host; use host or host:port, without https:// or a path (did you mean docker.io?)
c.yaml:1:49: registries.https://hub.docker.com: "https://hub.docker.com" is not a host; use host or host:port, without https:// or a path (did you mean docker.io?)`},
	{"ports out of range", "registries: {'a.io:99999': {}}\ncluster: {bind_addr: '0.0.0.0:70000', peer_addr: ':-1', seeds: ['n1:65536'], secret: sesamesesamesesame}", `c.yaml:1:14: registries.a.io:99999: "a.io:99999" has a port that is none; use a number from 1 to 65535
c.yaml:2:22: cluster.bind_addr: "0.0.0.0:70000" has a port that is none; use a number from 1 to 65535
c.yaml:2:50: cluster.peer_addr: ":-1" has a port that is none; use a number from 1 to 65535
c.yaml:2:65: cluster.seeds[0]: "n1:65536" has a port that is none; use a number from 1 to 65535`},
	{"a duration without a unit", "shutdown_timeout: 60", `c.yaml:1:19: shutdown_timeout: "60" is not a duration; use for example 60s, 12h or 0s`},
	{"a negative duration", "registries: {a.io: {tag_ttl: -5s}}", `c.yaml:1:30: registries.a.io.tag_ttl: "-5s" is negative; use for example 60s, 12h or 0s`},
	{"an IPv6 address without brackets", "registries: {'::1': {}}", `c.yaml:1:14: registries.::1: "::1" is an IPv6 address; write it in brackets, as [::1] or [::1]:5000`},
	{"a default registry with a scheme", "default_registry: https://ghcr.io", `c.yaml:1:19: default_registry: "https://ghcr.io" is not a host; use host or host:port, without https:// or a path (did you mean ghcr.io?)`},
	{"a base URL with another scheme", "base_url: ftp://x", `c.yaml:1:11: base_url: "ftp://x" is not an http:// or https:// URL`},
	{"a base URL without a host", "base_url: 'http://'", `c.yaml:1:11: base_url: "http://" has no valid host`},
	{"a base URL with a login", "base_url: http://u:sesame@x", `c.yaml:1:11: base_url: the value must end after its host or path; remove the login, query or fragment`},
	{"a control character", "cluster: {zone: \"a\\nb\"}", `c.yaml:1:1: cluster.secret: a cluster needs a secret if other machines can reach this node; set cluster.secret or cluster.secret_file, or make bind_addr, peer_addr and advertise loopback addresses` + "\n" +
		`c.yaml:1:17: cluster.zone: "a\nb" contains a control character`},
	// proxies
	{"a proxy of another scheme", "defaults: {upstream_proxy: 'ftp://u:sesame@p:1'}", `c.yaml:1:28: defaults.upstream_proxy: the value starts with "ftp://"; a proxy URL starts with http://, https://, socks5:// or socks5h://`},
	{"a proxy without a scheme", "defaults: {upstream_proxy: 'u:sesame@p:1'}", `c.yaml:1:28: defaults.upstream_proxy: the value has no scheme; a proxy URL starts with http://, https://, socks5:// or socks5h://`},
	{"a proxy without a host", "registries: {a.io: {upstream_proxy: 'http://'}}", `c.yaml:1:37: registries.a.io.upstream_proxy: the value has no valid host; use for example socks5h://proxy.example.com:1080`},
	{"a proxy that is no URL", "defaults: {upstream_proxy: 'http://u:sesame@p:99999x'}", `c.yaml:1:28: defaults.upstream_proxy: the value is not a URL; a proxy URL starts with http://, https://, socks5:// or socks5h://`},
	{"a proxy with a path", "defaults: {upstream_proxy: 'http://p:1/sesame'}", `c.yaml:1:28: defaults.upstream_proxy: the value must end after its host and port; remove the path, query or fragment`},
	// credentials
	{"a user without a password", "auth: {username: u}", `c.yaml:1:18: auth.username: has no password; set password or password_file too`},
	{"a password without a user", "auth: {password: sesame}", `c.yaml:1:18: auth.password: has no username; set username too`},
	{"a password file without a user", "auth: {password_file: DIR/secret}", `c.yaml:1:23: auth.password_file: has no username; set username too`},
	{"half a login of a registry", "registries: {a.io: {auth: {username: u, password: ''}}}", `c.yaml:1:38: registries.a.io.auth.username: has no password; set password or password_file too`},
	{"a token without a user", "registries: {a.io: {auth: {password: sesame}}}", `c.yaml:1:38: registries.a.io.auth.password: has no username; set username too`},
	{"a password and a file", "auth: {username: u, password: sesame, password_file: DIR/secret}", `c.yaml:1:54: auth.password_file: is set as well as password; keep one of them`},
	{"a password file that is not there", "auth: {username: u, password_file: DIR/absent}", `c.yaml:1:36: auth.password_file: "DIR/absent" cannot be read: no such file or directory`},
	{"a password file that is empty", "auth: {username: u, password_file: DIR/empty}", `c.yaml:1:36: auth.password_file: "DIR/empty" is empty`},
	{"a password file that is a directory", "auth: {username: u, password_file: DIR}", `c.yaml:1:36: auth.password_file: "DIR" is not a regular file`},
	{"a user with a colon", "auth: {username: 'u:x', password: sesame}", `c.yaml:1:18: auth.username: "u:x" contains a colon, which a user name cannot have`},
	{"a list for a password", "auth: {username: u, password: [sesame]}", `c.yaml:1:31: auth.password: must be a single value, not a list`},
	{"networks without a login", "auth: {anonymous_from: [10.0.0.0/8]}", `c.yaml:1:24: auth.anonymous_from: lets clients pull without a login, but no login is configured; set auth.username or auth.htpasswd_file, or remove this`},
	{"users in a file that is not there", "auth: {htpasswd_file: DIR/absent}", `c.yaml:1:23: auth.htpasswd_file: "DIR/absent" cannot be read: no such file or directory`},
	{"users in a file that is a directory", "auth: {htpasswd_file: DIR}", `c.yaml:1:23: auth.htpasswd_file: "DIR" is not a regular file`},
	{"no user at all", "auth: {htpasswd_file: DIR/empty}", `c.yaml:1:23: auth.htpasswd_file: "DIR/empty" holds no user; add one with htpasswd -B`},
	{"a password for a list of users", "auth: {htpasswd_file: DIR/secret}", `c.yaml:1:23: auth.htpasswd_file: "DIR/secret", line 1: not in the form user:hash`},
	{"a user's password in the clear", "auth: {htpasswd_file: DIR/clear}", `c.yaml:1:23: auth.htpasswd_file: "DIR/clear", line 2: not a bcrypt hash; make one with htpasswd -B`},
	{"bad users, and networks", "auth: {htpasswd_file: DIR/clear, anonymous_from: [10.0.0.0/8]}", `c.yaml:1:23: auth.htpasswd_file: "DIR/clear", line 2: not a bcrypt hash; make one with htpasswd -B`},
	// TLS and names
	{"a certificate without a key", "tls: {cert_file: DIR/secret}", `c.yaml:1:18: tls.cert_file: has no key; set key_file too`},
	{"a key without a certificate", "tls: {key_file: DIR/secret}", `c.yaml:1:17: tls.key_file: has no certificate; set cert_file too`},
	{"a certificate that is not there", "tls: {cert_file: DIR/absent, key_file: DIR/secret}", `c.yaml:1:18: tls.cert_file: "DIR/absent" cannot be read: no such file or directory`},
	{"a certificate that is not PEM", "tls: {cert_file: DIR/secret, key_file: DIR/secret}", `c.yaml:1:18: tls.cert_file: "DIR/secret" and "DIR/secret" are not a certificate and its key: tls: failed to find any PEM data in certificate input`},
	{"an allowed host with a scheme", "allowed_hosts: ['https://p']", `c.yaml:1:17: allowed_hosts[0]: "https://p" is not a host; use host or host:port, without https:// or a path (did you mean p?)`},
	{"a wait without a unit", "queue_timeout: 120", `c.yaml:1:16: queue_timeout: "120" is not a duration; use for example 60s, 12h or 0s`},
	// the environment in values
	{"a variable that is not set", "auth: {username: u, password: '${ABSENT}'}", `c.yaml:1:31: auth.password: ${ABSENT} is not set in the environment`},
	{"a variable with a default", "base_url: '${URL:-x}'", `c.yaml:1:11: base_url: "${URL:-x}" is not a reference to a variable; only ${NAME} is replaced`},
	{"a secret in the wrong place", "port: ${SESAME}", `c.yaml:1:7: port: the value of "${SESAME}" is not a port; use a number from 1 to 65535`},
	// registries
	{"a registry with a scheme", "registries:\n  https://ghcr.io:\n    tag_ttl: x", `c.yaml:2:3: registries.https://ghcr.io: "https://ghcr.io" is not a host; use host or host:port, without https:// or a path (did you mean ghcr.io?)` + "\n" +
		`c.yaml:3:14: registries.https://ghcr.io.tag_ttl: "x" is not a duration; use for example 60s, 12h or 0s`},
	{"a registry with a login", "registries:\n  https://u:sesame@ghcr.io:\n    tag_ttl: x\n    auth: {username: u}\n    cach_dir: /x\n    mirrors: [{tags: true}]", `c.yaml:2:3: registries.…: the value is not a host; use host or host:port, without https:// or a path` + "\n" +
		`c.yaml:3:14: registries.….tag_ttl: "x" is not a duration; use for example 60s, 12h or 0s` + "\n" +
		`c.yaml:4:22: registries.….auth.username: has no password; set password or password_file too` + "\n" +
		`c.yaml:5:5: registries.….cach_dir: unknown key (did you mean cache_dir?)` + "\n" +
		`c.yaml:6:15: registries.….mirrors[0]: has no host; add one as host: NAME`},
	{"a registry with a login, given twice", "registries:\n  u:sesame@a.io:\n  u:sesame@a.io:\n", `c.yaml:2:3: registries.…: the value is not a host; use host or host:port, without https:// or a path` + "\n" +
		`c.yaml:3:3: registries.…: is given twice, first on line 2; keep one of them`},
	{"a login for a key", "u:sesame@a.io: {}\ndefaults: {u:sesame@a.io: x}", `c.yaml:1:1: …: unknown key` + "\n" + `c.yaml:2:12: defaults.…: unknown key`},
	{"a tag below a login", "registries: {'u:sesame@a.io': !x {}}", `c.yaml:1:14: registries.…: the value is not a host; use host or host:port, without https:// or a path`},
	{"a registry with a path", "registries: {ghcr.io/org: {}}", `c.yaml:1:14: registries.ghcr.io/org: "ghcr.io/org" is not a host; use host or host:port, without https:// or a path (did you mean ghcr.io?)`},
	{"a registry with a bad port", "registries: {'ghcr.io:0': {}}", `c.yaml:1:14: registries.ghcr.io:0: "ghcr.io:0" has a port that is none; use a number from 1 to 65535`},
	{"a registry under two names", "registries:\n  docker.io:\n  registry-1.docker.io:\n", `c.yaml:3:3: registries.registry-1.docker.io: is the same registry as docker.io (line 2); keep one of them`},
	{"a registry in two cases", "registries: {ghcr.io: , GHCR.io: }", `c.yaml:1:25: registries.GHCR.io: is the same registry as ghcr.io (line 1); keep one of them`},
	{"a CA file that is not there", "registries: {a.io: {ca_file: DIR/absent}}", `c.yaml:1:30: registries.a.io.ca_file: "DIR/absent" cannot be read: no such file or directory`},
	{"a CA file without certificates", "registries: {a.io: {ca_file: DIR/secret}}", `c.yaml:1:30: registries.a.io.ca_file: "DIR/secret" holds no PEM certificate`},
	{"an alias no name can hold", "registries: {a.io: {alias: [a/b, A]}}", `c.yaml:1:29: registries.a.io.alias[0]: "a/b" cannot be part of an image name; use lower-case letters and digits, with . _ - between them` + "\n" +
		`c.yaml:1:34: registries.a.io.alias[1]: "A" cannot be part of an image name; use lower-case letters and digits, with . _ - between them`},
	{"an alias of two registries", "registries:\n  a.io: {alias: [x]}\n  b.io: {alias: [y, x]}", `c.yaml:3:21: registries.b.io.alias[1]: "x" already means a.io; choose another alias`},
	{"an alias that is a registry", "registries: {a.io: {alias: [ghcr.io]}, ghcr.io: }", `c.yaml:1:29: registries.a.io.alias[0]: "ghcr.io" already means ghcr.io; choose another alias`},
	{"an alias that is a registry with a port", "registries: {a.io: {alias: [localhost_5000]}, 'localhost:5000': }", `c.yaml:1:29: registries.a.io.alias[0]: "localhost_5000" already means localhost:5000; choose another alias`},
	{"an alias of the official images", "registries: {a.io: {alias: [library]}}", `c.yaml:1:29: registries.a.io.alias[0]: "library" already means the official images of registry-1.docker.io; choose another alias`},
	{"a realm with a path", "registries: {a.io: {realm_hosts: [b.io/token]}}", `c.yaml:1:35: registries.a.io.realm_hosts[0]: "b.io/token" is not a host; use host or host:port, without https:// or a path (did you mean b.io?)`},
	{"mirrors that are no other places", "registries:\n  a.io:\n    mirrors: [b.io, A.io, {host: B.io, tags: true}]\n  docker.io:\n    mirrors: [index.docker.io]", `c.yaml:3:21: registries.a.io.mirrors[1]: is the registry itself; remove it` + "\n" +
		`c.yaml:3:27: registries.a.io.mirrors[2]: is given twice; keep one of them` + "\n" + `c.yaml:5:15: registries.docker.io.mirrors[0]: is the registry itself; remove it`},
	{"a reserve over all of it", "registries: {a.io: {rate_limit_reserve: 101}}", `c.yaml:1:41: registries.a.io.rate_limit_reserve: "101" is not a percentage from 0 to 100`},
	{"a reserve of a fraction", "registries: {a.io: {rate_limit_reserve: 0.5}}", `c.yaml:1:41: registries.a.io.rate_limit_reserve: "0.5" is not a percentage from 0 to 100`},
	{"bad schedules", "warm: [alpine, {every: 24h}, {images: [a b], every: 1s, platforms: [amd64]}, {image: a}]", `c.yaml:1:8: warm[0]: must be a mapping, not a single value` + "\n" +
		`c.yaml:1:16: warm[1]: has no images; add some as images: [alpine:3]` + "\n" +
		`c.yaml:1:40: warm[2].images[0]: "a b" is not the name of an image; use for example alpine:3 or ghcr.io/org/app:v1` + "\n" +
		`c.yaml:1:53: warm[2].every: "1s" is less than 1m0s` + "\n" +
		`c.yaml:1:69: warm[2].platforms[0]: "amd64" is not a platform; use for example linux/amd64, linux/arm/v7 or all` + "\n" +
		`c.yaml:1:78: warm[3]: has no images; add some as images: [alpine:3]` + "\n" +
		`c.yaml:1:79: warm[3].image: unknown key (did you mean images?)`},
	{"bad rules for tags", "registries: {a.io: {tags: ['v*', {ttl: 1h}, {match: '[a', ttl: x}, {match: a/b, stale_if_eror: 1h}]}}", `c.yaml:1:28: registries.a.io.tags[0]: must be a mapping, not a single value` + "\n" +
		`c.yaml:1:34: registries.a.io.tags[1]: has no match; add one, such as match: "*-SNAPSHOT"` + "\n" +
		`c.yaml:1:53: registries.a.io.tags[2].match: "[a" is not a pattern of tags; use * for any characters, ? for one, [a-z] for one of these` + "\n" +
		`c.yaml:1:64: registries.a.io.tags[2].ttl: "x" is not a duration; use for example 60s, 12h or 0s` + "\n" +
		`c.yaml:1:76: registries.a.io.tags[3].match: "a/b" is not a pattern of tags; use * for any characters, ? for one, [a-z] for one of these` + "\n" +
		`c.yaml:1:81: registries.a.io.tags[3].stale_if_eror: unknown key (did you mean stale_if_error?)`},
	{"logins from two places", "registries:\n  a.io:\n    auth: {exec: [true], docker_config: DIR/secret}\n  b.io:\n    auth: {exec: [true], username: u}\n  c.io:\n    auth: {password_file: DIR/secret, docker_config: DIR/secret}\n  d.io:\n    auth: {exec: [true], password: sesame}\n    accounts: [{exec: [true], username: u, password: sesame}]", `c.yaml:3:41: registries.a.io.auth.docker_config: is set as well as exec, which gives the whole login; keep one of them` + "\n" +
		`c.yaml:5:36: registries.b.io.auth.username: is set as well as exec, which gives the whole login; keep one of them` + "\n" +
		`c.yaml:7:27: registries.c.io.auth.password_file: is set as well as docker_config, which gives the whole login; keep one of them` + "\n" +
		`c.yaml:9:36: registries.d.io.auth.password: is set as well as exec, which gives the whole login; keep one of them` + "\n" +
		`c.yaml:10:41: registries.d.io.accounts[0].username: is set as well as exec, which gives the whole login; keep one of them`},
	{"bad commands and docker configs", "registries:\n  a.io:\n    auth: {exec: sesame --get}\n  b.io:\n    auth: {exec: ['', x]}\n  c.io:\n    auth: {docker_config: DIR/absent}\n  d.io:\n    auth: {docker_config: DIR/secret}\n  e.io:\n    auth: {exec: [\"a\\0b\"]}", `c.yaml:3:18: registries.a.io.auth.exec: must be a list, not a single value` + "\n" +
		`c.yaml:5:18: registries.b.io.auth.exec: names no command; its first item is the program to run` + "\n" +
		`c.yaml:7:27: registries.c.io.auth.docker_config: "DIR/absent" cannot be read: no such file or directory` + "\n" +
		`c.yaml:9:27: registries.d.io.auth.docker_config: "DIR/secret" is not a docker config.json` + "\n" +
		`c.yaml:11:19: registries.e.io.auth.exec[0]: the value contains a NUL character, which no argument can have`},
	{"bad accounts", "registries:\n  a.io:\n    auth: {username: a, password: sesame}\n    accounts:\n    - {username: b}\n    - {password: sesame}\n    - {username: a, password: sesame}\n    - {username: c, password: sesame, password_file: DIR/secret}\n    - {username: d, password_file: DIR/absent}\n    - {username: e, password: sesame}\n    - {username: e, password: sesame}\n    - {}\n    - sesame\n    - {usernam: sesame}", `c.yaml:5:18: registries.a.io.accounts[0].username: has no password; set password or password_file too` + "\n" +
		`c.yaml:6:18: registries.a.io.accounts[1].password: has no username; set username too` + "\n" +
		`c.yaml:7:7: registries.a.io.accounts[2]: has the username of auth; keep one of them` + "\n" +
		`c.yaml:8:54: registries.a.io.accounts[3].password_file: is set as well as password; keep one of them` + "\n" +
		`c.yaml:9:36: registries.a.io.accounts[4].password_file: "DIR/absent" cannot be read: no such file or directory` + "\n" +
		`c.yaml:11:7: registries.a.io.accounts[6]: has the username of accounts[5]; keep one of them` + "\n" +
		`c.yaml:12:7: registries.a.io.accounts[7]: has no username; set username and password, or exec, or docker_config, or remove it` + "\n" +
		`c.yaml:13:7: registries.a.io.accounts[8]: must be a mapping, not a single value` + "\n" +
		`c.yaml:14:7: registries.a.io.accounts[9]: has no username; set username and password, or exec, or docker_config, or remove it` + "\n" +
		`c.yaml:14:8: registries.a.io.accounts[9].usernam: unknown key (did you mean username?)`},
	{"accounts that are no list", "registries: {a.io: {accounts: {username: a, password: sesame}}}", `c.yaml:1:31: registries.a.io.accounts: must be a list, not a mapping`},
	{"too many accounts", "registries: {a.io: {accounts: [{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]}}", `c.yaml:1:80: registries.a.io.accounts: has more than 16 logins; remove some`},
	{"an account on loopback", "registries: {a.io: {accounts: [{username: a, password: sesame}]}}\ncluster: {bind_addr: '127.0.0.1:7946', peer_addr: '127.0.0.1:7947'}", `c.yaml:2:1: cluster.secret: a cluster needs a secret if registries.a.io.accounts (line 1) is set, even on loopback: without it any user of this machine could join and pull what that protects; set cluster.secret or cluster.secret_file`},
	{"bad mirrors", "registries: {a.io: {mirrors: ['http://m', {tags: true}, {host: m.io, tag: true}]}}", `c.yaml:1:31: registries.a.io.mirrors[0]: "http://m" is not a host; use host or host:port, without https:// or a path (did you mean m?)` + "\n" +
		`c.yaml:1:43: registries.a.io.mirrors[1]: has no host; add one as host: NAME` + "\n" + `c.yaml:1:70: registries.a.io.mirrors[2].tag: unknown key (did you mean tags?)`},
	{"paths", "registries: {a.io: {path: p}, b.io: {path: /p//q}, c.io: {path: /p/../q}, d.io: {path: '/p?q'}, e.io: {path: /p/v2/}, f.io: {path: /p%2Fq}, g.io: {path: 'https://g.io/p'}}", `c.yaml:1:27: registries.a.io.path: "p" does not begin with a slash; use for example /prefix` + "\n" +
		`c.yaml:1:44: registries.b.io.path: "/p//q" is not a path; use letters, digits and . _ ~ @ : + - between its slashes, as in /prefix` + "\n" +
		`c.yaml:1:65: registries.c.io.path: "/p/../q" is not a path; use letters, digits and . _ ~ @ : + - between its slashes, as in /prefix` + "\n" +
		`c.yaml:1:88: registries.d.io.path: "/p?q" is not a path; use letters, digits and . _ ~ @ : + - between its slashes, as in /prefix` + "\n" +
		`c.yaml:1:110: registries.e.io.path: "/p/v2/" ends with /v2, which is added; remove that` + "\n" +
		`c.yaml:1:132: registries.f.io.path: "/p%2Fq" is not a path; use letters, digits and . _ ~ @ : + - between its slashes, as in /prefix` + "\n" +
		`c.yaml:1:154: registries.g.io.path: "https://g.io/p" does not begin with a slash; use for example /prefix`},
	{"no connection at all", "registries: {a.io: {upstream_connections: 0}}", `c.yaml:1:43: registries.a.io.upstream_connections: "0" is not a number from 1 to 64`},
	// archive
	{"an archive that says nothing", "port: 80\narchive: {}", `c.yaml:2:1: archive: has no endpoint; set endpoint to the URL of an S3-compatible server
c.yaml:2:1: archive: has no bucket; set bucket to the name of one that exists`},
	{"a misspelt key of the archive", "archive: {endpoint: s3.example, bucket: cold, secretkey: sesame}", `c.yaml:1:47: archive.secretkey: unknown key (did you mean secret_key?)`},
	{"half a login of the archive", "archive: {endpoint: s3.example, bucket: cold, access_key: AK}", `c.yaml:1:59: archive.access_key: has no secret key; set secret_key or secret_key_file too`},
	{"the other half", "archive: {endpoint: s3.example, bucket: cold, secret_key_file: DIR/secret}", `c.yaml:1:64: archive.secret_key: has no access key; set access_key or access_key_file too`},
	{"two secret keys", "archive: {endpoint: s3.example, bucket: cold, access_key: AK, secret_key: sesame, secret_key_file: DIR/secret}", `c.yaml:1:100: archive.secret_key_file: is set as well as secret_key; keep one of them`},
	{"an access key in a file that is not there", "archive: {endpoint: s3.example, bucket: cold, access_key_file: DIR/absent, secret_key: sesame}", `c.yaml:1:64: archive.access_key_file: "DIR/absent" cannot be read: no such file or directory`},
	{"an endpoint with a login", "archive: {endpoint: 'https://AK:sesame@s3.example', bucket: cold}", `c.yaml:1:21: archive.endpoint: the value has a login; set access_key and secret_key`},
	{"an endpoint with the bucket", "archive: {endpoint: 'https://s3.example/cold', bucket: cold}", `c.yaml:1:21: archive.endpoint: "https://s3.example/cold" must end after its host and port; name the bucket in bucket, and a folder in prefix`},
	{"an endpoint of another scheme", "archive: {endpoint: 's3://cold', bucket: cold}", `c.yaml:1:21: archive.endpoint: "s3://cold" is not an http:// or https:// URL; use for example https://s3.example.com`},
	{"an endpoint without a host", "archive: {endpoint: 'https://', bucket: cold}", `c.yaml:1:21: archive.endpoint: "https://" has no valid host; use for example https://s3.example.com:9000`},
	{"plain http to anywhere", "archive: {endpoint: 'http://s3.example.com', bucket: cold}", `c.yaml:1:21: archive.endpoint: is plain http to a host that may be anywhere: whoever is on the way could read what private registries delivered; use https, or a private address or a name of your own network`},
	{"plain http to a public address", "archive: {endpoint: 'http://192.0.2.1:9000', bucket: cold}", `c.yaml:1:21: archive.endpoint: is plain http to a host that may be anywhere: whoever is on the way could read what private registries delivered; use https, or a private address or a name of your own network`},
	{"a bucket that can't be one", "archive: {endpoint: s3.example, bucket: Cold}", `c.yaml:1:41: archive.bucket: "Cold" is not the name of a bucket; use 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends`},
	{"a prefix that leads up", "archive: {endpoint: s3.example, bucket: cold, prefix: a/../b}", `c.yaml:1:55: archive.prefix: "a/../b" is not a prefix; use letters, digits and . _ - between its slashes, at most 255 in all`},
	// cluster
	{"keyless gossip", "port: 80\ncluster:\n", `c.yaml:2:1: cluster.secret: a cluster needs a secret if other machines can reach this node; set cluster.secret or cluster.secret_file, or make bind_addr, peer_addr and advertise loopback addresses`},
	{"keyless gossip half on loopback", "cluster: {bind_addr: '127.0.0.1:7946', secret: ''}", `c.yaml:1:48: cluster.secret: a cluster needs a secret if other machines can reach this node; set cluster.secret or cluster.secret_file, or make bind_addr, peer_addr and advertise loopback addresses`},
	{"a loopback cluster without a secret, behind a login", "auth: {username: u, password: sesame}\ncluster: {bind_addr: '127.0.0.1:7946', peer_addr: '127.0.0.1:7947'}", `c.yaml:2:1: cluster.secret: a cluster needs a secret if auth.username (line 1) is set, even on loopback: without it any user of this machine could join and pull what that protects; set cluster.secret or cluster.secret_file`},
	{"a loopback cluster without a secret, behind a list of users", "cluster: {bind_addr: '127.0.0.1:7946', peer_addr: '127.0.0.1:7947', secret: ''}\nauth:\n  htpasswd_file: DIR/users", `c.yaml:1:77: cluster.secret: a cluster needs a secret if auth.htpasswd_file (line 3) is set, even on loopback: without it any user of this machine could join and pull what that protects; set cluster.secret or cluster.secret_file`},
	{"a loopback cluster without a secret, with a registry's login", "registries:\n  a.io:\n    auth: {username: u, password: sesame}\ncluster: {bind_addr: '127.0.0.1:7946', peer_addr: '127.0.0.1:7947'}", `c.yaml:4:1: cluster.secret: a cluster needs a secret if registries.a.io.auth.username (line 3) is set, even on loopback: without it any user of this machine could join and pull what that protects; set cluster.secret or cluster.secret_file`},
	{"a loopback cluster without a secret, with a private registry", "registries: {a.io: {private: true}}\ncluster: {bind_addr: '127.0.0.1:7946', peer_addr: '127.0.0.1:7947', advertise: localhost}", `c.yaml:2:1: cluster.secret: a cluster needs a secret if registries.a.io.private (line 1) is set, even on loopback: without it any user of this machine could join and pull what that protects; set cluster.secret or cluster.secret_file`},
	{"a short secret", "cluster: {secret: sesame}", `c.yaml:1:19: cluster.secret: secret 1 of 1 has 6 characters; use at least 16`},
	{"a short secret in a list", "cluster: {secrets: [sesamesesamesesame, sesame]}", `c.yaml:1:41: cluster.secrets: secret 2 of 2 has 6 characters; use at least 16`},
	{"a short secret in a file", "cluster: {secret_file: DIR/short}", `c.yaml:1:24: cluster.secret_file: secret 1 of 1 has 6 characters; use at least 16`},
	{"a secret and a file", "cluster: {secret: sesamesesamesesame, secret_file: DIR/short}", `c.yaml:1:52: cluster.secret_file: is set as well as secret; keep one of them` + "\n" +
		`c.yaml:1:52: cluster.secret_file: secret 1 of 1 has 6 characters; use at least 16`},
	{"a gossip address without a port", "cluster: {bind_addr: 127.0.0.1, peer_addr: '127.0.0.1:7947'}", `c.yaml:1:1: cluster.secret: a cluster needs a secret if other machines can reach this node; set cluster.secret or cluster.secret_file, or make bind_addr, peer_addr and advertise loopback addresses` + "\n" +
		`c.yaml:1:22: cluster.bind_addr: "127.0.0.1" is not an address; use for example 0.0.0.0:7946`},
	{"a seed without a port", "cluster: {seeds: [node-1], secret: sesamesesamesesame}", `c.yaml:1:19: cluster.seeds[0]: "node-1" is not a member's address: it has no port; write node-1:7946, or the port of its cluster.bind_addr`},
	{"an advertised port", "cluster: {advertise: 'n1:7946', secret: sesamesesamesesame}", `c.yaml:1:22: cluster.advertise: "n1:7946" is not an IP address or host name; write it without a port`},
	{"every address advertised", "cluster: {advertise: 0.0.0.0, secret: sesamesesamesesame}", `c.yaml:1:22: cluster.advertise: "0.0.0.0" means every address; use the one that other nodes reach this node at`},
	{"every address advertised, IPv6", "cluster: {secret: sesamesesamesesame, advertise: '::'}", `c.yaml:1:50: cluster.advertise: "::" means every address; use the one that other nodes reach this node at`},
	{"every address advertised, IPv4 in IPv6", "cluster: {secret: sesamesesamesesame, advertise: '::ffff:0.0.0.0'}", `c.yaml:1:50: cluster.advertise: "::ffff:0.0.0.0" means every address; use the one that other nodes reach this node at`},
	{"a name that is too long", "cluster: {name: nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn, secret: sesamesesamesesame}", `c.yaml:1:17: cluster.name: "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" is 65 bytes long; the limit is 64`},
	{"a cluster's id with a space", "cluster: {id: a b, secret: sesamesesamesesame}", `c.yaml:1:15: cluster.id: "a b" is not an id; use 1 to 64 letters, digits, dots, hyphens and underscores, with a letter or digit at both ends`},
	{"a cluster's id that is empty", "cluster: {id: \"\", secret: sesamesesamesesame}", `c.yaml:1:15: cluster.id: "" is not an id; use 1 to 64 letters, digits, dots, hyphens and underscores, with a letter or digit at both ends`},
	{"a cluster's id that is a path", "cluster: {id: a/b, secret: sesamesesamesesame}", `c.yaml:1:15: cluster.id: "a/b" is not an id; use 1 to 64 letters, digits, dots, hyphens and underscores, with a letter or digit at both ends`},
	{"a cluster's id that is too long", "cluster: {id: iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii, secret: sesamesesamesesame}", `c.yaml:1:15: cluster.id: "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii" is not an id; use 1 to 64 letters, digits, dots, hyphens and underscores, with a letter or digit at both ends`},
	{"more copies than there are", "cluster: {copies: 3, secret: sesamesesamesesame}", `c.yaml:1:19: cluster.copies: "3" is neither 1 nor 2`},
	{"a zone that is too long in bytes", "cluster: {zone: ääääääääääääääääääääääääääääääääx, secret: sesamesesamesesame}", `c.yaml:1:17: cluster.zone: "ääääääääääääääääääääääääääääääääx" is 65 bytes long; the limit is 64`},
	{"a name that can't be printed", "cluster: {name: \"a\\u200bb\", secret: sesamesesamesesame}", `c.yaml:1:17: cluster.name: "a\u200bb" contains an unprintable character`},
	{"peers on the clients' port", "port: 7947\ncluster: {secret: sesamesesamesesame}", `c.yaml:1:7: port: port 7947 is also that of cluster.peer_addr; change one of them`},
	{"peers on gossip's port", "cluster: {secret: sesamesesamesesame, bind_addr: '127.0.0.1:7', peer_addr: '0.0.0.0:7'}", `c.yaml:1:76: cluster.peer_addr: port 7 is also that of cluster.bind_addr; change one of them`},
	// all at once
	{"several at once, by their place", "registries:\n  docker.io: {auth: {username: u}, alias: ['-']}\nlog_level: loud\nauth: {password: sesame}\nport: x", `c.yaml:2:32: registries.docker.io.auth.username: has no password; set password or password_file too
c.yaml:2:44: registries.docker.io.alias[0]: "-" cannot be part of an image name; use lower-case letters and digits, with . _ - between them
c.yaml:3:12: log_level: "loud" is not a log level; use debug, info, warn or error
c.yaml:4:18: auth.password: has no username; set username too
c.yaml:5:7: port: "x" is not a port; use a number from 1 to 65535`},
}

func TestBadConfigsAreRefusedWithPlaceAndReason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"secret": "pw\n", "empty": "\n", "short": "sesame\n", "clear": "# users\nu:sesame\n", "users": "v:$2y$05$abcdefghijklmnopqrstuuxo8sxHHuGUGJuYfXWvHUCpqnJTYd5eS\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := strings.NewReplacer("DIR", dir)
	for _, test := range bad {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, err := Parse("c.yaml", []byte(in.Replace(test.text)), []string{"SESAME=sesame"})
			if c != nil || err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if want := in.Replace(test.want); errorsOf(err) != want {
				t.Errorf("got\n%s\nwant\n%s", errorsOf(err), want)
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error shows a secret:\n%s", err)
			}
		})
	}
}

// errorsOf returns what is wrong, without warnings.
func errorsOf(err error) string {
	all, _ := errors.AsType[Problems](err)
	return slices.DeleteFunc(slices.Clone(all), func(p Problem) bool { return p.Warning }).Error()
}

func TestProblemsCanBeTakenApart(t *testing.T) {
	t.Parallel()
	_, err := Parse("c.yaml", []byte("port: x\nprot: 1"), []string{"OCI_PROXY_ADDRESS=!"})
	all, ok := errors.AsType[Problems](err)
	if !ok || len(all) != 3 || all[0].Path != "port" || all[1].Line != 2 || all[2].Variable != "OCI_PROXY_ADDRESS" {
		t.Errorf("got %#v", err)
	}
	if one, ok := errors.AsType[Problem](err); !ok || one.Path != "port" {
		t.Errorf("got %#v", one)
	}
}
