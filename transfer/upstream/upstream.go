// Package upstream asks registries: it opens blobs, gets manifests and lists
// over the OCI distribution API, and is all of this program that does so.
//
// A request is built from parsed fields alone, so nothing of a client's request
// can reach a registry. It goes through four layers, one file each:
//
//	blob.go, manifest.go, list.go   what is asked and what an answer must look like
//	retry.go                        what is tried again, how often, how long
//	request.go, auth.go, token.go   challenges and tokens
//	redirect.go, transport.go       hops, TLS or not; proxy.go: by which proxy; guard.go: where a hop may lead
//
// Two rules hold everywhere. Credentials stay with the scheme, host and port
// that they were configured for (and the token servers that may see them). No
// URL of a redirect, no query and no credential gets into a log or an error.
package upstream

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"

	"oci-proxy/transfer/oci"
)

// Version is what the User-Agent header says of this program, after "oci-proxy/".
// Set it before New.
var Version = "dev"

// maxStrangers bounds how many registries nobody configured are remembered:
// clients choose their names.
const maxStrangers = 256

// A Registry is how one registry is reached.
type Registry struct {
	// Host is the canonical host[:port].
	Host string
	// Configured registries were named by the operator: they may be private,
	// use any port, and have credentials.
	Configured bool
	// Username and Password are shown to the registry and its token servers only.
	Username, Password string
	// Proxy is an http, https, socks5 or socks5h URL, with user:password if
	// need be. Nil: HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment.
	Proxy *url.URL
	// CAFile holds PEM certificates that are trusted beside the system's.
	CAFile string
	// Insecure means plain HTTP to this host:port, or HTTPS unverified if it
	// speaks TLS, and that its redirects may lead to plain HTTP.
	Insecure bool
	// FollowRedirects false: Open returns Stream.Redirect for a blob.
	FollowRedirects bool
	// RealmHosts are token servers on other sites that may see the credentials:
	// host (any port) or host:port.
	RealmHosts []string
}

// A Client asks registries. It is safe for concurrent use and implements
// transfer.Upstream.
type Client struct {
	log      *slog.Logger
	fallback Registry
	life     context.Context // ends with Close
	end      context.CancelFunc
	flights  sync.WaitGroup // token requests under way
	named    map[string]*registry

	mu        sync.Mutex
	strangers map[string]*list.Element // of *registry, by host
	recent    *list.List               // the strangers, the last used in front
}

var _ oci.Upstream = (*Client)(nil)

// New returns a client for the registries given and, as fallback describes
// them, for any others: those are asked anonymously, over HTTPS on port 443 and
// at public addresses only, whatever fallback says. The error joins everything
// that is wrong with the arguments.
func New(registries []Registry, fallback Registry, log *slog.Logger) (*Client, error) {
	fallback.Configured, fallback.Insecure = false, false
	fallback.Username, fallback.Password, fallback.RealmHosts = "", "", nil
	c := &Client{
		log: log, fallback: fallback,
		named:     make(map[string]*registry, len(registries)),
		strangers: make(map[string]*list.Element),
		recent:    list.New(),
	}
	c.life, c.end = context.WithCancel(context.Background())
	var wrong []error
	if slices.ContainsFunc(append(slices.Clone(registries), fallback), func(r Registry) bool { return r.Proxy == nil }) {
		if err := checkEnvironment(); err != nil {
			wrong = append(wrong, err)
		}
	}
	for _, cfg := range registries {
		r, err := c.open(cfg)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		if c.named[r.host] != nil {
			wrong = append(wrong, fmt.Errorf("registry %s: given twice", r.host))
		}
		c.named[r.host] = r
	}
	if _, err := c.open(fallback); err != nil {
		wrong = append(wrong, err)
	}
	if len(wrong) > 0 {
		c.end()
		return nil, errors.Join(wrong...)
	}
	return c, nil
}

// Close ends token requests under way and closes idle connections. Streams
// that are open go on. No request may begin any more.
func (c *Client) Close() {
	c.end()
	c.flights.Wait()
	for _, r := range c.named {
		r.closeIdle()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.recent.Front(); e != nil; e = e.Next() {
		e.Value.(*registry).closeIdle()
	}
}

// registry returns the state kept for host. A host that nobody configured must
// look like a public one; it gets its state now.
func (c *Client) registry(host string) (*registry, error) {
	if r := c.named[host]; r != nil {
		return r, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.strangers[host]; e != nil {
		c.recent.MoveToFront(e)
		return e.Value.(*registry), nil
	}
	if err := strangerHost(host); err != nil {
		return nil, &oci.Error{Kind: oci.Denied, Registry: host, Host: host, Reason: err.Error()}
	}
	cfg := c.fallback
	cfg.Host = strings.TrimSuffix(host, ":443")
	r, err := c.open(cfg)
	if err != nil { // New has opened the fallback: only its CA file can have gone since
		return nil, &oci.Error{Registry: host, Host: host, Reason: "the defaults for registries can't be used", Err: err}
	}
	r.key = host
	c.strangers[host] = c.recent.PushFront(r)
	if c.recent.Len() > maxStrangers {
		last := c.recent.Remove(c.recent.Back()).(*registry)
		delete(c.strangers, last.key)
		last.closeIdle()
	}
	return r, nil
}
