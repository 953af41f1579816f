package upstream

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
)

// maxRepositories bounds the repositories whose challenge a registry remembers:
// clients choose their names.
const maxRepositories = 4096

// A registry is the state kept for one registry: its connections, what its
// repositories asked for, its tokens.
type registry struct {
	Registry
	key  string // the name it is kept under, of a registry nobody configured
	host string // canonical host[:port], without the default port of https
	name string // the host alone
	log  *slog.Logger

	// Unverified TLS is for the registry's own host:port only, so an insecure
	// registry has another transport for where it leads. Else both are one.
	own, elsewhere http.RoundTripper

	plain   atomic.Bool // an insecure registry was last seen to speak plain HTTP
	private atomic.Bool // it was seen at an address that is not a public one
	outside atomic.Bool // it was seen at a public one
	tokens  *tokens

	mu         sync.Mutex
	challenges map[string]challenge // by repository: what its last 401 asked for
}

// open checks cfg and makes the state of a registry.
func (c *Client) open(cfg Registry) (*registry, error) {
	host := strings.TrimSuffix(strings.ToLower(cfg.Host), ":443")
	r := &registry{
		Registry: cfg, host: host, key: host, log: c.log,
		name:       (&url.URL{Host: host}).Hostname(),
		tokens:     newTokens(c.life, &c.flights),
		challenges: make(map[string]challenge),
	}
	if (cfg.Username != "" || cfg.Password != "") && !cfg.Configured {
		return nil, fmt.Errorf("registry %s: credentials for a registry that is not configured", host)
	}
	if err := checkProxy(cfg.Proxy); err != nil {
		return nil, fmt.Errorf("registry %s: %w", host, err)
	}
	roots, err := trusted(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", host, err)
	}
	if ip, err := netip.ParseAddr(r.name); err == nil {
		r.seen(ip)
	}
	verified := r.transport(roots, true)
	r.own, r.elsewhere = verified, verified
	if cfg.Insecure {
		r.own = r.transport(roots, false)
	}
	return r, nil
}

// closeIdle closes the connections that carry no request.
func (r *registry) closeIdle() {
	for _, t := range []http.RoundTripper{r.own, r.elsewhere} {
		if t, ok := t.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
}

// hasLogin reports whether there are credentials.
func (r *registry) hasLogin() bool { return r.Username != "" || r.Password != "" }

// scheme returns what the registry is thought to speak.
func (r *registry) scheme() string {
	if r.plain.Load() {
		return "http"
	}
	return "https"
}

// isOwn reports whether u is on the registry's own host and port.
func (r *registry) isOwn(u *url.URL) bool {
	return hostPort(u) == hostPort(&url.URL{Scheme: u.Scheme, Host: r.host})
}

// isOwnAddress reports whether addr, a host:port as it is dialled, is the
// registry's own. Without a port in its name that is 443, and 80 if insecure.
func (r *registry) isOwnAddress(addr string) bool {
	for _, scheme := range []string{"https", "http"} {
		if scheme == "http" && !r.Insecure {
			return false
		}
		if addr == hostPort(&url.URL{Scheme: scheme, Host: r.host}) {
			return true
		}
	}
	return false
}

// hostPort returns u's host:port in lower case, the port always there.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// shown returns u's host[:port] for logs and errors.
func shown(u *url.URL) string {
	if len(u.Host) > 255 {
		return u.Host[:255]
	}
	return strings.ToLower(u.Host)
}

// sameOrigin reports whether a and b have scheme, host and port in common.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostPort(a) == hostPort(b)
}

// recall returns the challenge that repo's last 401 held.
func (r *registry) recall(repo string) (challenge, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch, ok := r.challenges[repo]
	return ch, ok
}

// remember keeps repo's challenge, so that the next request needs no 401.
func (r *registry) remember(repo string, ch challenge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.challenges[repo]; !ok && len(r.challenges) >= maxRepositories {
		clear(r.challenges) // rare, and costs each repository one 401
	}
	r.challenges[repo] = ch
}

// forget drops repo's challenge: the next request is a bare one again.
func (r *registry) forget(repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.challenges, repo)
}
