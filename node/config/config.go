// Package config reads the operator's configuration: a YAML file, with the
// environment over it and built-in defaults under it.
//
// It is strict, because a proxy that guesses fails open. An unknown key, a bad
// value and half a login are errors, and all of them are reported at once, each
// with its place. Every key is described once, in keys.go. The parser, the names
// of the environment variables, the search for the nearest key and the table in
// docs/config.md all come from that description.
//
// The way through the package: decode.go turns YAML into nodes with places,
// fill.go and key.go put them into a Config by the tables of keys.go, environ.go
// does the same for variables, registries.go starts each registry from the
// defaults, and check.go, stores.go and cluster.go apply the rules between keys.
// All of them report to problems.go what is wrong; load.go calls them in order.
package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"sort"
	"strings"
	"time"
)

// DockerHub is the canonical name of Docker Hub, the host that its API is on.
const DockerHub = "registry-1.docker.io"

// maxFile bounds the config file, in bytes. A larger file is a mistake.
const maxFile = 1 << 20

// A Config is the operator's configuration, checked and complete: every default is
// applied and every file with a secret is read. It does not change, and it owns
// everything that it points to.
type Config struct {
	Port            int            // clients' port, 1 to 65535
	Address         string         // IP or host to listen on, "" for all interfaces
	TrustedProxies  []netip.Prefix // load balancers whose X-Forwarded-For counts
	LogLevel        slog.Level     // lowest level that is logged
	LogFormat       string         // "text" or "json"
	WhitelistMode   bool           // only Registries may be contacted
	DefaultRegistry string         // canonical host of image names without a registry; always in Registries
	AllowAddresses  []netip.Prefix // networks that registries which are not configured may lead to beside public addresses
	BaseURL         string         // http(s) URL at which clients reach the proxy, without a slash at the end; may be ""
	AllowedHosts    []string       // further host[:port] that the page and /_/ answer to, lower case
	TLS             TLS            // of the clients' port
	Auth            Auth           // who may use the proxy
	QueueTimeout    time.Duration  // how long a pull may wait for its turn
	ShutdownTimeout time.Duration  // how long pulls may go on at shutdown before they are cut; 0 cuts at once
	VerifyInterval  time.Duration  // how long a chunk on disk is trusted after a check; 0: until the next read
	Access          []AccessRule   // who may pull what; the first that matches decides, none: allowed
	Defaults        Registry       // settings of a registry that is not configured; its Host is ""
	Registries      []Registry     // the configured registries, sorted by Host; never empty
	Cluster         *Cluster       // nil for a node on its own
	Archive         *Archive       // nil for none
	Warm            []Warm         // images that are pulled before anybody asks for them
	Warnings        Problems       // what is valid and most likely not meant, in order of place; Find leaves it out
}

// A TLS says where the certificate of the clients' port comes from: from two files, which
// were valid when the config was read, or from an ACME server. Neither: plain HTTP.
type TLS struct {
	CertFile, KeyFile string
	ACME              ACME
}

// On reports whether the clients' port uses TLS.
func (t TLS) On() bool { return t.Files() || t.ACME.On() }

// Files reports whether the certificate comes from files.
func (t TLS) Files() bool { return t.CertFile != "" }

// An Auth holds the logins of the proxy itself. Username and Password are both set
// or both empty. The users in HtpasswdFile come in addition.
type Auth struct {
	Username      string
	Password      Secret
	HtpasswdFile  string         // was valid when the config was read; "" for none
	AnonymousFrom []netip.Prefix // clients that may pull without a login
	Admins        []string       // users that may change things; if none are set, Username

	passwordFile string
}

// Asked reports whether the proxy asks for a login at all.
func (a Auth) Asked() bool { return a.Username != "" || a.HtpasswdFile != "" }

// A Registry holds the settings of one registry: how to contact it, and where its
// content is kept.
type Registry struct {
	Host                string         // canonical host[:port], as Canonical returns it
	Path                string         // what its API is below: "/prefix" for /prefix/v2/, "" for /v2/
	Username            string         // set together with Password or not at all
	Password            Secret         // set together with Username or not at all
	PasswordFile        string         // that Password was read from, "" for none
	Exec                []string       // the command that prints the login, in place of the above; nil for none
	DockerConfig        string         // the docker config.json that knows it, in place of the above; "" for none
	Accounts            []Account      // further logins; Logins returns all of them
	CAFile              string         // PEM file of further certificate authorities, "" for none
	Private             bool           // serve its content only for a repository that vouched for it; always true if there is a login
	Public              bool           // `private: false` is set and there is no login; neither Private nor Public: not set
	Mirrors             []Mirror       // other hosts that hold the same repositories
	RateLimitReserve    int            // percentage of the registry's own rate limit below which known tags are believed; 0: never
	TagTTL              time.Duration  // how long to use a tag after a check; 0 checks at each request
	StaleIfError        time.Duration  // how long to serve a tag's last manifest while upstream fails; 0: never
	Tags                []TagRule      // the two for tags that match, first match
	Offline             bool           // never contact the registry
	UpstreamConnections int            // for one large blob at a time, at least 1
	UpstreamRequests    int            // at the registry at a time, at least 1
	UpstreamRate        int64          // bytes of blobs a second; 0: no bound
	AllowAddresses      []netip.Prefix // networks that it may lead to beside public addresses
	RealmHosts          []string       // token servers on other sites that may see the credentials, lower-case host[:port]
	Alias               []string       // other first parts of a path that mean this registry; no two registries share one
	CacheDir            string         // where its content is kept; registries with the same directory share one store
	CacheMaxSize        int64          // limit of that store in bytes, the same for all that share it; 0: none
	OwnBound            int64          // limit of its own share of a shared store in bytes; 0: none
	MaxIdle             time.Duration  // how long content stays that nobody asks for; 0: until room is needed
	UpstreamProxy       *url.URL       // http, https, socks5 or socks5h; nil if not configured. May hold a password: print its Redacted form
	FollowRedirects     bool           // false passes redirects on to the client
	Insecure            bool           // plain http, or https without verification
}

// A Warm names images that are pulled into the cache by a schedule.
type Warm struct {
	Images    []string      // as people write them; at least one
	Every     time.Duration // at least a minute
	Platforms []string      // os/arch[/variant], or "all"; none: this machine's
}

// A TagRule says how long tags are believed whose name matches.
type TagRule struct {
	Match        string        // a pattern as path.Match has it; no slash
	TTL          time.Duration // as TagTTL, which it is if not set
	StaleIfError time.Duration // as the registry's, which it is if not set
}

// A Mirror is another place that holds a registry's repositories.
type Mirror struct {
	Host string // canonical host[:port]
	Tags bool   // trusted for tags too, not only for content by digest
}

// DefaultClusterID is the id of a cluster that sets none. Versions before cluster.id
// belong to it.
const DefaultClusterID = "oci-proxy"

// A Cluster holds the settings of this node's cluster.
type Cluster struct {
	ID        string   // of the whole cluster: nodes with another one are not members, whatever their secret
	Name      string   // stable name of this node; default: the host name
	BindAddr  string   // host:port to listen on for gossip, TCP and UDP; host "" means all interfaces, port 0 a free one
	PeerAddr  string   // host:port to listen on for other nodes' requests, as BindAddr
	Advertise string   // host or IP at which the others reach this node, "" to find out
	Seeds     []string // host:port of members; a name stands for all its addresses
	Secrets   []Secret // the first one is used, all are accepted; empty only on loopback with nothing to protect
	PeerTLS   bool     // TLS between nodes
	Egress    bool     // this node may contact registries itself
	Zone      string   // a large blob goes once into each; may be ""
	Copies    int      // on how many nodes what only one has is kept: 1 or 2

	// Cleared once they are in Secrets, because fmt prints unexported fields too.
	secret     Secret
	secretFile string
}

// Load reads the config file at path, with environ (as from os.Environ) over it. A
// path of "" means no file. If anything in the config is wrong, the error is a
// Problems that holds all of it, warnings included.
func Load(path string, environ []string) (*Config, error) {
	c, _, err := Locate(path, environ)
	return c, err
}

// Locate is Load that also tells where each key was set.
func Locate(path string, environ []string) (*Config, Places, error) {
	text, err := readConfig(path)
	if err != nil {
		return nil, Places{}, err
	}
	return load(path, text, environ, terms{disk: diskOf})
}

// Find is Load for commands that look for a running node. It does not check the
// files that a running node reads again when they change: they may be bad at the
// moment, and the node still runs.
func Find(path string, environ []string) (*Config, error) {
	text, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	c, _, err := load(path, text, environ, terms{finding: true})
	if c != nil {
		c.Warnings = nil // the node that runs has told them
	}
	return c, err
}

// readConfig reads the config file at path; "" means none.
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

// Parse is Load for a text that is already read. Errors call it file. Files that
// the text names (passwords, certificates) are read. It does not look at the disks.
func Parse(file string, text []byte, environ []string) (*Config, error) {
	c, _, err := load(file, text, environ, terms{})
	return c, err
}

// Registry returns the settings of host, under any of its names. For a host that
// is not configured it returns the defaults and false.
func (c *Config) Registry(host string) (r Registry, configured bool) {
	host = Canonical(host)
	i := sort.Search(len(c.Registries), func(i int) bool { return c.Registries[i].Host >= host }) // which copies none
	if i < len(c.Registries) && c.Registries[i].Host == host {
		return c.Registries[i], true
	}
	r = c.Defaults
	r.Host = host
	return r, false
}

// Canonical returns the one name of a registry: in lower case, for each name of Docker
// Hub the host of its API, and an IPv6 address in its shortest form (RFC 5952). It does
// not check host.
func Canonical(host string) string {
	switch host = strings.ToLower(host); host {
	case "docker.io", "index.docker.io":
		return DockerHub
	}
	if literal, ok := strings.CutPrefix(host, "["); ok {
		address, port, closed := strings.Cut(literal, "]")
		if ip, err := netip.ParseAddr(address); err == nil && closed {
			return "[" + ip.String() + "]" + port
		}
	}
	return host
}
