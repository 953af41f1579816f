// Package config reads what the operator said: a YAML file, the environment
// over it, built-in defaults under it.
//
// It is strict, because a proxy that guesses is a proxy that fails open: a key
// it does not know, a value it does not understand and half a credential are
// errors, and all of them are reported at once, each with its place. Every key
// is described once, in keys.go; the parser, the names of environment
// variables, the search for the nearest key and the README's table come from
// that description.
package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// DockerHub is the canonical name of Docker Hub, the host that its API is on.
const DockerHub = "registry-1.docker.io"

// maxFile bounds the config file, in bytes: a larger one is a mistake.
const maxFile = 1 << 20

// A Config is what the operator said, checked and complete: every default is
// applied and every file that holds a secret is read. It does not change; what
// it points to belongs to it.
type Config struct {
	Port            int            // clients' port, 1 to 65535
	Address         string         // IP or host to listen on, "" for all interfaces
	TrustedProxies  []netip.Prefix // load balancers whose X-Forwarded-For counts
	LogLevel        slog.Level     // least level logged
	LogFormat       string         // "text" or "json"
	WhitelistMode   bool           // only Registries may be asked
	DefaultRegistry string         // canonical host of names without a registry; always in Registries
	BaseURL         string         // http(s) URL clients reach the proxy at, without a slash at the end; may be ""
	AllowedHosts    []string       // further host[:port] that the page and /_/ are reached by, lower case
	TLS             TLS            // of the clients' port
	Auth            Auth           // who may use the proxy
	QueueTimeout    time.Duration  // how long a pull may wait for its turn
	ShutdownTimeout time.Duration  // how long a drain may take, then the rest is cut; 0 cuts at once
	VerifyInterval  time.Duration  // how long a chunk on disk counts as right once checked; 0: until the next read
	Defaults        Registry       // what a registry is that nobody configured; its Host is ""
	Registries      []Registry     // the configured ones by Host, complete; never empty
	Cluster         *Cluster       // nil for a node on its own
}

// A TLS says where the certificate of the clients' port lies. Both files are
// named, and were right when the config was read, or none is: plain HTTP.
type TLS struct{ CertFile, KeyFile string }

// On reports whether the clients' port speaks TLS.
func (t TLS) On() bool { return t.CertFile != "" }

// An Auth is the logins of the proxy itself. Username and Password are both set
// or both empty; the users of HtpasswdFile come on top.
type Auth struct {
	Username      string
	Password      Secret
	HtpasswdFile  string         // was right when the config was read, "" for none
	AnonymousFrom []netip.Prefix // clients that may pull without a login

	passwordFile string
}

// Asked reports whether a login is asked for at all.
func (a Auth) Asked() bool { return a.Username != "" || a.HtpasswdFile != "" }

// A Registry says how one registry is asked, and where what it holds is kept.
type Registry struct {
	Host                string        // canonical host[:port], as Canonical returns it
	Username            string        // set together with Password or not at all
	Password            Secret        // set together with Username or not at all
	CAFile              string        // PEM file of further certificate authorities, "" for none
	Private             bool          // served only for a repository that vouched for it; true too if there is a Username
	Public              bool          // `private: false` was written, and there is no Username; never together with Private
	Mirrors             []Mirror      // other hosts that hold the same repositories
	TagTTL              time.Duration // how long a checked tag is believed; 0 checks at each request
	StaleIfError        time.Duration // how long a tag's last manifest may stand in while upstream fails; 0: never
	Offline             bool          // never ask upstream
	UpstreamConnections int           // parallel ranges for a large blob, at least 1
	RealmHosts          []string      // token servers on other sites that may see the credentials, lower-case host[:port]
	Alias               []string      // other first parts of a path that mean this registry; no two registries share one
	CacheDir            string        // where its content lies; registries with the same one share one store
	CacheMaxSize        int64         // bound of that store in bytes, the same for all that share it; 0: none
	OwnBound            int64         // bound of its own share of a shared store in bytes; 0: none
	UpstreamProxy       *url.URL      // http, https, socks5 or socks5h; nil: none configured. May hold a password: print its Redacted form
	FollowRedirects     bool          // false: redirects are handed to the client
	Insecure            bool          // plain http, or https unverified

	passwordFile string
}

// A Mirror is another place that holds a registry's repositories.
type Mirror struct {
	Host string // host[:port], lower case
	Tags bool   // trusted for tags too, not only for content named by its digest
}

// A Cluster says how this node meets the others.
type Cluster struct {
	Name      string   // stable name of this node; default: the host's
	BindAddr  string   // host:port of gossip, TCP and UDP; host may be "" for all interfaces, port 0 for a free one
	PeerAddr  string   // host:port of blobs between nodes, as BindAddr
	Advertise string   // host or IP the others reach this node at, "" to find out
	Seeds     []string // host:port of members; a name stands for all its addresses
	Secrets   []Secret // the first one is used, all are accepted; empty only if every address is loopback
	PeerTLS   bool     // TLS between nodes
	Egress    bool     // this node may ask upstream itself
	Zone      string

	// Cleared once they are in Secrets: fmt sees through fields that are not exported.
	secret     Secret
	secretFile string
}

// Load reads the config file at path, which may be "" for none, with environ
// (as from os.Environ) over it. If something is wrong with what was said, the
// error is a Problems that holds all of it.
func Load(path string, environ []string) (*Config, error) {
	text, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text, environ)
}

// Find is Load for who looks for a running node. Files that such a node reads
// again when they change are not looked at: they may be bad just now, and the
// node goes on without them.
func Find(path string, environ []string) (*Config, error) {
	text, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	l := newLoader(path, environ)
	l.finding = true
	return l.parse(text, notYet)
}

// readConfig reads the config file, if there is one.
func readConfig(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the config %s: %w", path, err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("reading the config %s: it is larger than %d bytes", path, maxFile)
	}
	return text, nil
}

// Parse is Load for a text that is already read; file names it in errors.
// Files that the text names (passwords, certificates) are read.
func Parse(file string, text []byte, environ []string) (*Config, error) {
	return parse(file, text, environ, notYet)
}

// Registry returns what is configured for host, in whatever form it is named.
// A host that is not configured gets the defaults, and false.
func (c *Config) Registry(host string) (r Registry, configured bool) {
	host = Canonical(host)
	i, found := slices.BinarySearchFunc(c.Registries, host, func(r Registry, h string) int {
		return strings.Compare(r.Host, h)
	})
	if found {
		return c.Registries[i], true
	}
	r = c.Defaults
	r.Host = host
	return r, false
}

// Canonical returns the one name of a registry: lower case, and for each of
// Docker Hub's names the host that its API is on. It does not check host.
func Canonical(host string) string {
	switch host = strings.ToLower(host); host {
	case "docker.io", "index.docker.io":
		return DockerHub
	default:
		return host
	}
}
