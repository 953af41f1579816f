package upstream

import (
	"cmp"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"

	"oci-proxy/transfer/oci"
)

// A home is where a registry lives: its own host and port, the path that its API is
// below, and the scheme that it speaks there.
type home struct {
	host     string      // canonical host[:port], without the default port of https
	name     string      // the host alone
	port     string      // "": the scheme's
	path     string      // before /v2/: "" or "/prefix"
	insecure bool        // it may speak plain HTTP
	stranger bool        // nobody configured the registry
	plain    atomic.Bool // it was last seen to do so
	secured  atomic.Bool // it has spoken TLS: who speaks in the clear now may be somebody else
	standing *standing   // how it does
	meter    Meter       // hears what requests come to
	log      *slog.Logger
}

// newHome returns the home of the registry at host.
func newHome(host string, insecure bool) *home {
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	u := &url.URL{Host: host}
	return &home{host: host, name: u.Hostname(), port: u.Port(), insecure: insecure, standing: newStanding(host), meter: nobody{}, log: slog.New(slog.DiscardHandler)}
}

// scheme returns the scheme that is tried first: the one that the registry was last seen to
// speak, but TLS if it ever did.
func (h *home) scheme() string {
	if h.plain.Load() && !h.secured.Load() {
		return "http"
	}
	return "https"
}

// header returns the Authorization header by which a request to u, which is the registry's own,
// shows p: none in the clear, unless the registry itself speaks so.
func (h *home) header(u *url.URL, p pass) string {
	if u.Scheme != "https" && !h.isPlain() {
		return ""
	}
	return p.header
}

// met notes that the registry has spoken that scheme.
func (h *home) met(scheme string) {
	h.plain.Store(scheme == "http")
	if scheme == "https" {
		h.secured.Store(true)
	}
}

// isPlain reports whether the registry speaks plain HTTP, and never did otherwise since this
// program began.
func (h *home) isPlain() bool { return h.insecure && h.plain.Load() && !h.secured.Load() }

// below returns where u is below the registry's path, nil if the registry has no path,
// u is on another host or is below the path already. A gateway may take the path off
// what it hands to the registry. Then the registry does not know its path, and its
// realms and redirects lack it.
func (h *home) below(u *url.URL) *url.URL {
	if h.path == "" || !h.isOwn(u) || strings.HasPrefix(u.Path, h.path+"/") {
		return nil
	}
	moved := *u
	moved.Path = h.path + u.Path
	if u.RawPath != "" {
		moved.RawPath = h.path + u.RawPath // nothing in the path needs an escape
	}
	return &moved
}

// isOwn reports whether u is on the registry's own host and port.
func (h *home) isOwn(u *url.URL) bool {
	return strings.ToLower(u.Hostname()) == h.name && portOf(u) == cmp.Or(h.port, schemePort(u.Scheme))
}

// isOwnAddress reports whether addr, a host:port as it is dialled, is the
// registry's own. If the registry's name has no port, that is port 443, and
// also port 80 if it is insecure.
func (h *home) isOwnAddress(addr string) bool {
	return addr == hostPort(&url.URL{Scheme: "https", Host: h.host}) ||
		h.insecure && addr == hostPort(&url.URL{Scheme: "http", Host: h.host})
}

// fail makes a failure of this registry at host.
func (h *home) fail(kind oci.Kind, again again, host, reason string) *failure {
	return &failure{cause: &oci.Error{Kind: kind, Registry: h.host, Host: host, Reason: reason}, again: again}
}

// hostPort returns u's host:port in lower case, always with a port.
func hostPort(u *url.URL) string {
	return net.JoinHostPort(strings.ToLower(u.Hostname()), portOf(u))
}

// portOf returns u's port, that of its scheme if it names none.
func portOf(u *url.URL) string { return cmp.Or(u.Port(), schemePort(u.Scheme)) }

// schemePort returns the port that a scheme stands for, "" for one that is not known.
func schemePort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	case "socks5", "socks5h":
		return "1080"
	}
	return ""
}

// shown returns u's host[:port] for logs and errors.
func shown(u *url.URL) string {
	const longest = 255
	return strings.ToLower(u.Host[:min(len(u.Host), longest)])
}

// sameOrigin reports whether a and b share scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostPort(a) == hostPort(b)
}
