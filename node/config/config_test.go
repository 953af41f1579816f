package config

import (
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// must parses a config without mistakes.
func must(t *testing.T, text string, environ ...string) *Config {
	t.Helper()
	c, err := Parse("c.yaml", []byte(text), environ)
	if err != nil {
		t.Fatalf("unexpected problems:\n%v", err)
	}
	return c
}

// write writes a file into a new directory and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWithoutFileBuiltInDefaultsServe(t *testing.T) {
	t.Parallel()
	c, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults := Registry{
		StaleIfError: 720 * time.Hour, UpstreamConnections: 1, UpstreamRequests: 32, CacheDir: defaultCacheDir(),
		CacheMaxSize: 10 << 30, FollowRedirects: true,
	}
	hub := defaults
	hub.Host = DockerHub
	want := &Config{
		TLS:  TLS{ACME: ACME{Directory: LetsEncrypt}},
		Port: 80, LogLevel: slog.LevelInfo, LogFormat: "text", DefaultRegistry: DockerHub,
		QueueTimeout: 2 * time.Minute, ShutdownTimeout: time.Minute, VerifyInterval: 24 * time.Hour, Defaults: defaults, Registries: []Registry{hub},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestEmptyFilesAndSectionsAreTheDefaults(t *testing.T) {
	t.Parallel()
	want := must(t, "")
	for _, text := range []string{
		"---\n", "# nothing\n", "null", "{}", "port:\nauth:\nregistries:\ndefaults:\n",
		"defaults: {cache_dir: , cache_max_size: ~}\nregistries: {}\ntrusted_proxies:\n",
		"registries: {docker.io: }", "registries: {docker.io: {auth: {username: '', password: ''}}}",
		"default_registry: Docker.io",
	} {
		if c := must(t, text); !reflect.DeepEqual(c, want) {
			t.Errorf("%q: got %+v, want %+v", text, c, want)
		}
	}
}

const ancestor = `
port: 8080
log_level: debug
whitelist_mode: true
default_registry: registry-1.docker.io
base_url: http://proxy.example.com
auth:
  username: admin
  password: 12345
defaults:
  cache_dir: ./cache_dir
  cache_max_size: 10g
  upstream_proxy: ""
  follow_redirects: true
  insecure: false
registries:
  registry-1.docker.io:
    auth:
      username: ""
      password: ""
    cache_max_size: 500m
    upstream_proxy: socks5://127.0.0.1:1080
  ghcr.io:
    cache_dir: ./ghcr
    cache_max_size: 1024k
    follow_redirects: false
  localhost:5000:
    auth: {username: user, password: pass}
    insecure: true
`

func TestTheAncestorsFileWorksUnchanged(t *testing.T) {
	t.Parallel()
	c := must(t, ancestor)
	if c.Port != 8080 || c.LogLevel != slog.LevelDebug || !c.WhitelistMode || c.BaseURL != "http://proxy.example.com" {
		t.Errorf("top: %+v", c)
	}
	if c.Auth.Username != "admin" || c.Auth.Password.Reveal() != "12345" {
		t.Errorf("auth: %q %q", c.Auth.Username, c.Auth.Password.Reveal())
	}
	hub, ok := c.Registry("docker.io")
	if !ok || hub.Private || hub.OwnBound != 500<<20 || hub.CacheMaxSize != 10<<30 || hub.CacheDir != "cache_dir" || hub.UpstreamProxy.Host != "127.0.0.1:1080" {
		t.Errorf("hub: %+v", hub)
	}
	ghcr, ok := c.Registry("GHCR.io")
	if !ok || ghcr.OwnBound != 0 || ghcr.CacheMaxSize != 1<<20 || ghcr.CacheDir != "ghcr" || ghcr.FollowRedirects || ghcr.UpstreamProxy != nil {
		t.Errorf("ghcr: %+v", ghcr)
	}
	local, ok := c.Registry("localhost:5000")
	if !ok || !local.Private || !local.Insecure || local.Username != "user" || local.Password.Reveal() != "pass" {
		t.Errorf("local: %+v", local)
	}
	quay, ok := c.Registry("quay.io")
	if ok || quay.Host != "quay.io" || quay.CacheDir != "cache_dir" || quay.CacheMaxSize != 10<<30 {
		t.Errorf("quay: %+v", quay)
	}
}

func TestRegistriesAreSortedAndTheDefaultOneIsAmongThem(t *testing.T) {
	t.Parallel()
	c := must(t, "default_registry: MIRROR.example:5000\nregistries: {quay.io: , a.example: , index.docker.io: }")
	var hosts []string
	for _, r := range c.Registries {
		hosts = append(hosts, r.Host)
	}
	want := []string{"a.example", "mirror.example:5000", "quay.io", DockerHub}
	if !slices.Equal(hosts, want) || c.DefaultRegistry != "mirror.example:5000" {
		t.Errorf("got %v and %s, want %v", hosts, c.DefaultRegistry, want)
	}
}

func TestEveryKeyReachesItsField(t *testing.T) {
	t.Parallel()
	c := must(t, `
address: 127.0.0.1
trusted_proxies: [10.1.2.3/8, "fd00::/8"]
allowed_hosts: [Proxy.example, "p.example:8080", "[fd00::1]:80"]
queue_timeout: 5s
log_level: WARN
log_format: json
base_url: https://p.example/
auth: {username: u, password: p, anonymous_from: [192.168.0.0/16]}
shutdown_timeout: 0
defaults: {insecure: yes, upstream_proxy: "https://u:p@proxy:3128"}
registries:
  h.example:
    private: true
    tags: [{match: "*-SNAPSHOT", ttl: 10s}, {match: "v?", stale_if_error: 1h}]
    mirrors: [M.example, {host: n.example:5000, tags: true}]
    rate_limit_reserve: 15%
    tag_ttl: 5m
    stale_if_error: 0
    offline: on
    upstream_connections: 4
    upstream_requests: 8
    upstream_rate: 3m
    realm_hosts: [Auth.example]
    path: /team/Prefix_1.0/
    alias: [h, h_5]
    upstream_proxy: ""
    insecure: false
cluster: {id: Prod-1.eu, name: n1, secret: 0123456789abcdef, bind_addr: "127.0.0.1:0", peer_addr: "[::1]:7947", advertise: localhost, seeds: ["a:7946", "[fd00::1]:7946"], peer_tls: false, egress: false, zone: z, copies: 1}
archive: {endpoint: "HTTP://Minio:9000/", bucket: cold.tier-1, prefix: /oci/Proxy_1/, region: eu-1, access_key: AK, secret_key: sk}
`)
	want := Registry{
		Host: "h.example", Private: true, Mirrors: []Mirror{{Host: "m.example"}, {Host: "n.example:5000", Tags: true}},
		Tags:             []TagRule{{"*-SNAPSHOT", 10 * time.Second, 0}, {"v?", 5 * time.Minute, time.Hour}},
		RateLimitReserve: 15, TagTTL: 5 * time.Minute, Offline: true, UpstreamConnections: 4, UpstreamRequests: 8, UpstreamRate: 3 << 20, RealmHosts: []string{"auth.example"}, Path: "/team/Prefix_1.0",
		Alias: []string{"h", "h_5"}, CacheDir: defaultCacheDir(), CacheMaxSize: 10 << 30, FollowRedirects: true,
	}
	if got, _ := c.Registry("h.example"); !reflect.DeepEqual(got, want) {
		t.Errorf("registry: got  %+v\nwant %+v", got, want)
	}
	if hub, _ := c.Registry(DockerHub); !hub.Insecure || hub.UpstreamProxy.User.String() != "u:p" {
		t.Errorf("hub: %+v", hub)
	}
	cluster := Cluster{ID: "Prod-1.eu", Name: "n1", BindAddr: "127.0.0.1:0", PeerAddr: "[::1]:7947", Advertise: "localhost", Seeds: []string{"a:7946", "[fd00::1]:7946"}, Secrets: []Secret{"0123456789abcdef"}, Zone: "z", Copies: 1}
	if !reflect.DeepEqual(*c.Cluster, cluster) {
		t.Errorf("cluster: got %+v, want %+v", *c.Cluster, cluster)
	}
	archive := Archive{Endpoint: &url.URL{Scheme: "http", Host: "minio:9000"}, Bucket: "cold.tier-1", Prefix: "oci/Proxy_1", Region: "eu-1", AccessKey: "AK", SecretKey: "sk"}
	if !reflect.DeepEqual(*c.Archive, archive) {
		t.Errorf("archive: got %+v, want %+v", *c.Archive, archive)
	}
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	if c.Address != "127.0.0.1" || !slices.Equal(c.TrustedProxies, proxies) || c.LogLevel != slog.LevelWarn || c.LogFormat != "json" ||
		!slices.Equal(c.AllowedHosts, []string{"proxy.example", "p.example:8080", "[fd00::1]:80"}) || c.QueueTimeout != 5*time.Second ||
		c.BaseURL != "https://p.example" || len(c.Auth.AnonymousFrom) != 1 || c.ShutdownTimeout != 0 {
		t.Errorf("top: %+v", c)
	}
}

func TestLogins(t *testing.T) {
	t.Parallel()
	file := write(t, "from a file\n")
	for text, want := range map[string][]Account{
		"":                                       nil,
		"accounts: []":                           nil,
		"auth: {exec: []}":                       nil,
		"auth: {exec: [sh, '${D}', '']}":         {{Exec: []string{"sh", "d", ""}, Key: "auth"}},
		"accounts: [{exec: [sh]}]":               {{Exec: []string{"sh"}, Key: "accounts[0]"}},
		"auth: {username: a, password: b}":       {{Username: "a", Password: "b", Key: "auth"}},
		"accounts: [{username: c, password: d}]": {{Username: "c", Password: "d", Key: "accounts[0]"}},
		"auth: {username: a, password: b}, accounts: [{username: c, password: '${D}'}, {username: e, password_file: " + file + "}]": {
			{Username: "a", Password: "b", Key: "auth"}, {Username: "c", Password: "d", Key: "accounts[0]"}, {Username: "e", Password: "from a file", PasswordFile: file, Key: "accounts[1]"},
		},
	} {
		c, err := Parse("c.yaml", []byte("registries: {a.example: {"+text+"}}"), []string{"D=d"})
		if err != nil {
			t.Fatal(err)
		}
		if r, _ := c.Registry("a.example"); !slices.EqualFunc(r.Logins(), want, func(a, b Account) bool { return reflect.DeepEqual(a, b) }) || r.Private != (len(want) > 0) {
			t.Errorf("%q: got %v, private %t", text, r.Logins(), r.Private)
		}
	}
}

func TestPrivateHasThreeStates(t *testing.T) {
	t.Parallel()
	const login = "auth: {username: u, password: p}"
	for _, test := range []struct {
		name, keys      string
		private, public bool
	}{
		{"not said", "", false, false},
		{"null is not said", "private: ~", false, false},
		{"false", "private: false", false, true},
		{"true", "private: true", true, false},
		{"a login implies true", login, true, false},
		{"a login wins over false", login + ", private: false", true, false},
		{"an empty login implies nothing", "auth: {username: '', password: ''}, private: no", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := must(t, "registries: {a.example: {"+test.keys+"}}")
			if r, _ := c.Registry("a.example"); r.Private != test.private || r.Public != test.public {
				t.Errorf("private %t public %t, want %t and %t", r.Private, r.Public, test.private, test.public)
			}
		})
	}
	if c := must(t, ""); c.Defaults.Private || c.Defaults.Public || c.Registries[0].Public {
		t.Error("the defaults make a registry private or public")
	}
}

func TestALoopbackClusterThatProtectsNothingNeedsNoSecret(t *testing.T) {
	t.Parallel()
	const cluster = "cluster: {bind_addr: '127.0.0.1:7946', peer_addr: 'localhost:7947'"
	for _, text := range []string{
		cluster + "}",
		cluster + ", advertise: '::1'}\nregistries: {a.io: {private: false}}",
		cluster + ", secret: 0123456789abcdef}\nauth: {username: u, password: p}\nregistries: {a.io: {private: true}}",
		cluster + ", secret_file: " + write(t, "0123456789abcdef\n") + "}\nregistries: {a.io: {auth: {username: u, password: p}}}",
	} {
		if c := must(t, text); c.Cluster == nil {
			t.Errorf("%q: no cluster", text)
		}
	}
}

func TestBoundsOfSharedStores(t *testing.T) {
	t.Parallel()
	const g = int64(1 << 30)
	for _, test := range []struct {
		name, registries string
		store, own       int64 // of a.example
	}{
		{"a registry that says nothing has no bound of its own", "a.example: ", 10 * g, 0},
		{"a size alone bounds the registry's share", "a.example: {cache_max_size: 2g}", 10 * g, 2 * g},
		{"a share larger than the store enlarges it", "a.example: {cache_max_size: 20g}", 20 * g, 20 * g},
		{"no bound of its own leaves the store's", "a.example: {cache_max_size: 0}", 10 * g, 0},
		{"a size and a directory bound the store", "a.example: {cache_dir: /x, cache_max_size: 2g}", 2 * g, 0},
		{"a directory alone has the default size", "a.example: {cache_dir: /x}", 10 * g, 0},
		{"the default directory spelled out is shared", "a.example: {cache_dir: /var/d/../d, cache_max_size: 2g}", 10 * g, 2 * g},
		{"two on a directory get the larger size", "a.example: {cache_dir: /x, cache_max_size: 2g}, b.example: {cache_dir: /x/, cache_max_size: 3g}", 3 * g, 2 * g},
		{"one without bound unbinds the directory", "a.example: {cache_dir: /x, cache_max_size: 2g}, b.example: {cache_dir: /x, cache_max_size: 0}", 0, 2 * g},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := must(t, "defaults: {cache_dir: /var/d}\nregistries: {"+test.registries+"}")
			if r, _ := c.Registry("a.example"); r.CacheMaxSize != test.store || r.OwnBound != test.own {
				t.Errorf("store %d own %d, want %d and %d", r.CacheMaxSize, r.OwnBound, test.store, test.own)
			}
		})
	}
}

func TestSecretsFromFilesLoseOneNewline(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"pw": "pw", "pw\n": "pw", "pw\r\n": "pw", "pw\n\n": "pw\n", " $x ${y}\n": " $x ${y}"} {
		c := must(t, "auth: {username: u, password_file: "+write(t, text)+"}")
		if got := c.Auth.Password.Reveal(); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	c := must(t, "registries: {q.io: {auth: {username: u, password_file: "+write(t, "pw\n")+"}}}")
	if r, _ := c.Registry("q.io"); r.Password.Reveal() != "pw" || !r.Private {
		t.Errorf("registry: %q", r.Password.Reveal())
	}
	c = must(t, "cluster: {secret_file: "+write(t, "0123456789abcdef\nfedcba9876543210\n")+"}")
	if !slices.Equal(c.Cluster.Secrets, []Secret{"0123456789abcdef", "fedcba9876543210"}) {
		t.Errorf("cluster: %d secrets", len(c.Cluster.Secrets))
	}
}

func TestAnEmptyClusterIsOneWithDefaults(t *testing.T) {
	t.Parallel()
	c := must(t, "cluster:\n", "OCI_PROXY_CLUSTER__SECRET=0123456789abcdef")
	host, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	want := Cluster{ID: DefaultClusterID, Name: host, BindAddr: "0.0.0.0:7946", PeerAddr: "0.0.0.0:7947", Secrets: []Secret{"0123456789abcdef"}, PeerTLS: true, Egress: true, Copies: 2}
	if !reflect.DeepEqual(*c.Cluster, want) {
		t.Errorf("got %+v, want %+v", *c.Cluster, want)
	}
}

func TestVariablesInValuesAreReplaced(t *testing.T) {
	t.Parallel()
	c := must(t, `
port: ${PORT}
auth: {username: "robot$x", password: 'a$$b${PW}$c$${PW}'}
registries: {h.example: {alias: ["${A}"]}}
`, "PORT=8080", "PW={y: ${PORT}}", "A=x1")
	if c.Port != 8080 || c.Auth.Username != "robot$x" || c.Auth.Password.Reveal() != "a$$b{y: ${PORT}}$c${y: ${PORT}}" {
		t.Errorf("got %d %q %q", c.Port, c.Auth.Username, c.Auth.Password.Reveal())
	}
	if r, _ := c.Registry("h.example"); !slices.Equal(r.Alias, []string{"x1"}) {
		t.Errorf("alias: %v", r.Alias)
	}
}

func TestAnchorsAndMergesWork(t *testing.T) {
	t.Parallel()
	c := must(t, `
registries:
  a.example: &base
    tag_ttl: 5m
    offline: true
  b.example: *base
  c.example:
    <<: *base
    offline: false
  d.example: {<<: [*base]}
`)
	for host, offline := range map[string]bool{"a.example": true, "b.example": true, "c.example": false, "d.example": true} {
		if r, _ := c.Registry(host); r.TagTTL != 5*time.Minute || r.Offline != offline {
			t.Errorf("%s: %+v", host, r)
		}
	}
}

func TestCanonicalNames(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"docker.io": DockerHub, "Index.Docker.io": DockerHub, "registry-1.docker.io": DockerHub,
		"GHCR.io": "ghcr.io", "localhost:5000": "localhost:5000", "mydocker.io": "mydocker.io",
		"[::1]:5000": "[::1]:5000", "[0:0:0::1]:5000": "[::1]:5000", "[2001:DB8:0::1]": "[2001:db8::1]", "[::1": "[::1", "[x]": "[x]",
	} {
		if got := Canonical(host); got != want {
			t.Errorf("Canonical(%q) = %q, want %q", host, got, want)
		}
	}
}

func TestLoadNamesTheFileThatItCannotRead(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "absent.yaml")
	if _, err := Load(name, nil); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v", err)
	}
	if _, err := Load(write(t, strings.Repeat("#", maxFile+1)), nil); err == nil {
		t.Error("a file above the limit was read")
	}
	c, err := Load(write(t, "port: 81"), []string{"OCI_PROXY_LOG_LEVEL=error"})
	if err != nil || c.Port != 81 || c.LogLevel != slog.LevelError {
		t.Errorf("got %+v, %v", c, err)
	}
}

// What a mirror has for those with a login is not to be had by all under another name.
func TestRegistryOfAPrivateMirrorIsPrivate(t *testing.T) {
	t.Parallel()
	const login = "auth: {username: u, password: p}"
	for _, test := range []struct {
		name, registry, mirror string
		private                bool
	}{
		{"a public mirror", "", "insecure: true", false},
		{"a mirror with a login", "", login, true},
		{"a private mirror", "", "private: true", true},
		{"a mirror with a login, and the operator says it is public", "private: false, ", login, false},
		{"a public mirror of a private registry", "private: true, ", "private: false", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := must(t, "registries:\n  a.io: {"+test.registry+"mirrors: [m.io, n.io]}\n  n.io: {"+test.mirror+"}\n")
			if a, _ := c.Registry("a.io"); a.Private != test.private || a.Username != "" {
				t.Errorf("got %+v", a)
			}
		})
	}
}
