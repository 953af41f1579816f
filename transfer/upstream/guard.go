package upstream

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
)

// A refusal is this program's own decision not to contact a host. It is final.
type refusal struct{ reason string }

func (e *refusal) Error() string { return e.reason }

// A guard decides where one registry may lead. Redirects and the realms of token
// servers come from outside, and so do the names of registries that nobody
// configured. None of them may reach a private network or a cloud's metadata.
type guard struct {
	home       *home
	configured bool
	private    atomic.Bool // the registry was seen at an address that is not public
	outside    atomic.Bool // it was seen at a public one
}

// newGuard returns the guard of the registry at home.
func newGuard(home *home, configured bool) *guard {
	g := &guard{home: home, configured: configured}
	if ip, err := netip.ParseAddr(home.name); err == nil {
		g.seen(ip)
	}
	return g
}

// isInside reports whether the registry is on a private network, so that it may
// lead to others there. A registry that was ever seen at a public address is not:
// whoever controls its name could make it mean a private address the next moment.
func (g *guard) isInside() bool { return g.private.Load() && !g.outside.Load() }

// seen notes an address of the registry itself.
func (g *guard) seen(ip netip.Addr) {
	if public(ip) {
		g.outside.Store(true)
	} else {
		g.private.Store(true)
	}
}

// admits returns nil if ip may be dialled. own says that it was dialled for the
// registry's own host:port; then the address is noted.
func (g *guard) admits(ip netip.Addr, own bool) error {
	switch {
	case isMetadata(ip):
		return &refusal{"cloud metadata addresses are never contacted"}
	case own && g.configured:
		g.seen(ip)
		return nil
	case public(ip):
		return nil
	case g.configured && g.isInside() && within(plainAddr(ip), inside):
		return nil
	}
	return &refusal{"the address is not public"}
}

// control returns a dialer's ControlContext for addr, a host:port. The dialer
// calls it after it has resolved the name, for each address that it tries. So no
// answer of the DNS gets past the guard.
func (g *guard) control(addr string) func(context.Context, string, string, syscall.RawConn) error {
	own := g.home.isOwnAddress(addr)
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &refusal{"the address can't be read"}
		}
		if to.Port() != 443 && !g.configured {
			return &refusal{"a registry that is not configured is contacted only on port 443"}
		}
		return g.admits(to.Addr(), own)
	}
}

// permits returns nil if this registry may lead to u. It looks at the URL alone,
// before any name is resolved. If a proxy resolves the names, nothing else checks
// where they lead: proxied says so.
func (g *guard) permits(u *url.URL, proxied bool) error {
	host := strings.ToLower(u.Hostname())
	ip, ipErr := netip.ParseAddr(host)
	own := g.home.isOwn(u) && (u.Scheme == "https" || g.home.insecure)
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return &refusal{"only http and https are followed"}
	case u.Scheme == "http" && !g.home.insecure:
		return &refusal{"plain http is not used for a registry that is not insecure"}
	case slices.Contains(metadataNames, strings.TrimSuffix(host, ".")):
		return &refusal{"cloud metadata addresses are never contacted"}
	case !g.configured:
		return strangerHost(strings.ToLower(u.Host))
	case ipErr != nil && hexAddress(host):
		return &refusal{"an address is not the name of a registry"}
	case ipErr == nil && isMetadata(ip):
		return g.admits(ip, own)
	case own:
		return nil
	case ipErr == nil:
		return g.admits(ip, false)
	case proxied && internalName(host) && !internalName(g.home.name) && !g.isInside():
		return &refusal{"a public registry may not lead to an internal name"}
	}
	return hostName(host)
}
