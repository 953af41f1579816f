package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheEnvironmentWinsOverTheFile(t *testing.T) {
	t.Parallel()
	c := must(
		t, `
port: 1
auth: {username: file, password: file, anonymous_from: [10.0.0.0/8]}
defaults: {cache_max_size: 1g, cache_dir: /file}
registries: {a.io: , b.io: {cache_dir: /b}}
cluster: {zone: file, name: n, secret: filefilefilefile, egress: false}
`,
		"OCI_PROXY_PORT=8080", "OCI_PROXY_LOG_LEVEL=debug", "OCI_PROXY_AUTH__PASSWORD=a,b${X}", "OCI_PROXY_AUTH__ANONYMOUS_FROM=",
		"OCI_PROXY_DEFAULTS__CACHE_DIR=/env", "OCI_PROXY_SHUTDOWN_TIMEOUT=5s", "OCI_PROXY_CLUSTER__SEEDS=a:7946, b:7946,",
		"OCI_PROXY_CLUSTER__ZONE=", "OCI_PROXY_CLUSTER__EGRESS=true", "PATH=/bin", "odd",
	)
	if c.Port != 8080 || c.LogLevel != slog.LevelDebug || c.ShutdownTimeout != 5*time.Second {
		t.Errorf("top: %+v", c)
	}
	if c.Auth.Username != "file" || c.Auth.Password.Reveal() != "a,b${X}" || len(c.Auth.AnonymousFrom) != 0 {
		t.Errorf("auth: %+v", c.Auth)
	}
	a, _ := c.Registry("a.io")
	b, _ := c.Registry("b.io")
	if a.CacheDir != "/env" || a.CacheMaxSize != 1<<30 || b.CacheDir != "/b" {
		t.Errorf("registries: %+v %+v", a, b)
	}
	if m := c.Cluster; !slices.Equal(m.Seeds, []string{"a:7946", "b:7946"}) || m.Zone != "" || !m.Egress || m.Name != "n" {
		t.Errorf("cluster: %+v", m)
	}
}

func TestTheEnvironmentAlone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, environ, want string }{
		{"names of other programs", "HOME=/root OCI_PROXYPORT=1 oci_proxy_port=x", ""},
		{"a Service of Kubernetes", "OCI_PROXY_SERVICE_HOST=10.0.0.1 OCI_PROXY_SERVICE_PORT=80 OCI_PROXY_SERVICE_PORT_HTTP=80 OCI_PROXY_PORT=tcp://10.0.0.1:80 OCI_PROXY_PORT_80_TCP=tcp://10.0.0.1:80 OCI_PROXY_PORT_80_TCP_ADDR=10.0.0.1 OCI_PROXY_PORT_80_TCP_PORT=80 OCI_PROXY_PORT_80_TCP_PROTO=tcp", ""},
		{"a Service beside it", "OCI_PROXY_LB_SERVICE_HOST=10.0.0.1 OCI_PROXY_LB_PORT=tcp://10.0.0.1:80 OCI_PROXY_LB_PORT_53_UDP=udp://10.0.0.1:53", ""},
		{"empty values that mean nothing", "OCI_PROXY_PORT= OCI_PROXY_LOG_LEVEL= OCI_PROXY_SHUTDOWN_TIMEOUT= OCI_PROXY_ADDRESS= OCI_PROXY_DEFAULTS__INSECURE=", ""},
		{"empty values call for no cluster", "OCI_PROXY_CLUSTER__SECRET= OCI_PROXY_CLUSTER__SEEDS= OCI_PROXY_CLUSTER__BIND_ADDR=", ""},
		{"a bad port", "OCI_PROXY_PORT=x", `environment OCI_PROXY_PORT: "x" is not a port; use a number from 1 to 65535`},
		{"a bad size", "OCI_PROXY_DEFAULTS__CACHE_MAX_SIZE=10x", `environment OCI_PROXY_DEFAULTS__CACHE_MAX_SIZE: "10x" is not a size; use for example 10g, 500m, or 0 for no limit`},
		{"a bad item of a list", "OCI_PROXY_TRUSTED_PROXIES=10.0.0.0/8,x", `environment OCI_PROXY_TRUSTED_PROXIES: "x" is not a CIDR; use for example 10.0.0.0/8`},
		{"a proxy's password", "OCI_PROXY_DEFAULTS__UPSTREAM_PROXY=ftp://u:sesame@p", `environment OCI_PROXY_DEFAULTS__UPSTREAM_PROXY: the value starts with "ftp://"; a proxy URL starts with http://, https://, socks5:// or socks5h://`},
		{"half a login", "OCI_PROXY_AUTH__USERNAME=u", `environment OCI_PROXY_AUTH__USERNAME: has no password; set password or password_file too`},
		{"a misspelled name", "OCI_PROXY_LOGLEVEL=info", `environment OCI_PROXY_LOGLEVEL: unknown variable (did you mean OCI_PROXY_LOG_LEVEL?)`},
		{"one underscore between levels", "OCI_PROXY_AUTH_PASSWORD=sesame", `environment OCI_PROXY_AUTH_PASSWORD: unknown variable (did you mean OCI_PROXY_AUTH__PASSWORD?)`},
		{"a name in lower case", "OCI_PROXY_port=1", `environment OCI_PROXY_port: unknown variable (did you mean OCI_PROXY_PORT?)`},
		{"a name like no other", "OCI_PROXY_ZZZ=1", `environment OCI_PROXY_ZZZ: unknown variable`},
		{"a registry", "OCI_PROXY_REGISTRIES__GHCR=x", `environment OCI_PROXY_REGISTRIES__GHCR: registries can only be set in the file`},
		{"a section", "OCI_PROXY_CLUSTER=x", `environment OCI_PROXY_CLUSTER: unknown variable`},
		{"keyless gossip", "OCI_PROXY_CLUSTER__SEEDS=a:7946", `environment OCI_PROXY_CLUSTER__SEEDS: a cluster needs a secret if other machines can reach this node; set cluster.secret or cluster.secret_file, or make bind_addr, peer_addr and advertise loopback addresses`},
		{"several, by name", "OCI_PROXY_PORT=x OCI_PROXY_ADDRESS=!", `environment OCI_PROXY_ADDRESS: "!" is not an IP address or host name; write it without a port
environment OCI_PROXY_PORT: "x" is not a port; use a number from 1 to 65535`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, err := Parse("", nil, strings.Fields(test.environ))
			switch {
			case test.want == "" && (err != nil || c.Cluster != nil || c.Port != 80):
				t.Errorf("got %+v, %v", c, err)
			case test.want != "" && (err == nil || err.Error() != test.want):
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
		})
	}
}

func TestAClusterFromTheEnvironmentAlone(t *testing.T) {
	t.Parallel()
	c, err := Parse("", nil, []string{"OCI_PROXY_CLUSTER__SECRET=0123456789abcdef", "OCI_PROXY_CLUSTER__SEEDS=a:7946"})
	if err != nil || c.Cluster.Seeds[0] != "a:7946" || c.Cluster.BindAddr != "0.0.0.0:7946" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestEveryKeyOutsideRegistriesHasAVariable(t *testing.T) {
	t.Parallel()
	for _, k := range Keys() {
		v := Variable(k.Path)
		if inFile := strings.HasPrefix(k.Path, "registries."); inFile != (v == "") {
			t.Errorf("%s: %q", k.Path, v)
		}
		if v == "" || k.Default == "" {
			continue
		}
		value := strings.Trim(k.Default, "[]")
		if _, err := Parse("", nil, []string{v + "=" + value, "OCI_PROXY_CLUSTER__SECRETS=0123456789abcdef", "OCI_PROXY_ARCHIVE__ENDPOINT=s3.example", "OCI_PROXY_ARCHIVE__BUCKET=cold"}); err != nil {
			t.Errorf("%s with its default: %v", v, err)
		}
	}
}

// net/http ignores a proxy that it cannot parse, and connects directly.
func TestABadProxyInTheEnvironmentIsAnError(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"http://u:sesame%zz@proxy:3128": "environment HTTPS_PROXY: the value is not a URL; a proxy URL starts with http://, https://, socks5:// or socks5h://",
		"ftp://u:sesame@proxy":          `environment HTTPS_PROXY: the value starts with "ftp://"; a proxy URL starts with http://, https://, socks5:// or socks5h://`,
		"http://":                       "environment HTTPS_PROXY: the value has no valid host; use for example socks5h://proxy.example.com:1080",
		"u:sesame@proxy:port":           "environment HTTPS_PROXY: the value is not a URL; a proxy URL starts with http://, https://, socks5:// or socks5h://",
		"proxy:3128":                    "",
		"socks5h://u:sesame@proxy":      "",
	} {
		_, err := Parse("c.yaml", nil, []string{"HTTPS_PROXY=" + value})
		if got := fmt.Sprint(err); err != nil && got != want || err == nil && want != "" {
			t.Errorf("%s: got\n%v\nwant\n%s", value, err, want)
		}
	}
	if _, err := Parse("c.yaml", []byte("defaults: {upstream_proxy: 'http://p:1'}"), []string{"HTTP_PROXY=http://"}); err != nil {
		t.Errorf("a bad variable that nothing uses is an error: %v", err)
	}
}

// A missing .env file leaves variables empty. That must not open the proxy.
func TestEmptyVariablesOpenNothing(t *testing.T) {
	t.Parallel()
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("v:$2y$05$abcdefghijklmnopqrstuuxo8sxHHuGUGJuYfXWvHUCpqnJTYd5eS\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := must(
		t, fmt.Sprintf(`
auth: {username: u, password: p, htpasswd_file: %q}
defaults: {upstream_proxy: "http://proxy:3128", cache_dir: /file}
cluster: {name: n, secret: filefilefilefile, zone: z}
`, users),
		"OCI_PROXY_AUTH__USERNAME=", "OCI_PROXY_AUTH__PASSWORD=", "OCI_PROXY_AUTH__PASSWORD_FILE=", "OCI_PROXY_AUTH__HTPASSWD_FILE=",
		"OCI_PROXY_TLS__CERT_FILE=", "OCI_PROXY_TLS__KEY_FILE=", "OCI_PROXY_DEFAULTS__UPSTREAM_PROXY=",
		"OCI_PROXY_CLUSTER__SECRET=", "OCI_PROXY_CLUSTER__SECRET_FILE=", "OCI_PROXY_CLUSTER__SECRETS=", "OCI_PROXY_CLUSTER__ZONE=",
	)
	if c.Auth.Username != "u" || c.Auth.Password.Reveal() != "p" || c.Auth.HtpasswdFile != users {
		t.Errorf("auth: %+v", c.Auth)
	}
	if c.Defaults.UpstreamProxy == nil || len(c.Cluster.Secrets) != 1 || c.Cluster.Zone != "" {
		t.Errorf("%+v", c)
	}
	_, err := Parse("c.yaml", []byte("auth: {username: '${U}', password: '${P}'}\ndefaults: {upstream_proxy: '${X}'}"), []string{"U=", "P=", "X="})
	const want = `c.yaml:1:18: auth.username: ${U} is set but empty in the environment
c.yaml:1:36: auth.password: ${P} is set but empty in the environment
c.yaml:2:28: defaults.upstream_proxy: ${X} is set but empty in the environment`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if c := must(t, "registries: {a.io: {auth: {username: '${U}'}}}", "U="); len(c.Registries) != 2 {
		t.Errorf("%+v", c.Registries)
	}
}
