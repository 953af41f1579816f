package upstream

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
)

// A refusal is this program's own decision not to contact a host. What a URL says is
// final. What a name's addresses are may be otherwise the next moment.
type refusal struct {
	reason  string     // for everybody
	address netip.Addr // that the host's name has; not valid if the URL alone was judged
	remedy  string     // for operators
}

func (e *refusal) Error() string {
	if !e.address.IsValid() {
		return e.reason
	}
	return e.reason + ": " + e.address.String() + ": " + e.remedy
}

// A guard decides where one registry may lead. Redirects and the realms of token
// servers come from outside, and so do the names of registries that nobody
// configured. None of them may reach a private network or a cloud's metadata.
type guard struct {
	home       *home
	configured bool
	allowed    []netip.Prefix
	self       []netip.AddrPort
	last       atomic.Pointer[netip.Addr] // where the registry's last answer came from, nil: not known
}

// newGuard returns the guard of the registry at home.
func newGuard(home *home, cfg Registry) *guard {
	g := &guard{home: home, configured: cfg.Configured, allowed: cfg.AllowAddresses, self: cfg.Self}
	home.stranger = !cfg.Configured
	if ip, err := netip.ParseAddr(home.name); err == nil {
		g.seen(ip)
	}
	return g
}

// isInside reports whether the registry is on a private network, so that it may lead to
// others there: its last answer says so. That its name has a private address says
// nothing, since whoever controls the name could choose one, and then redirect there.
func (g *guard) isInside() bool {
	from := g.last.Load()
	return from != nil && !public(*from)
}

// leadsInside reports whether the registry, which is inside, may lead to ip there. What only
// this machine or its link reaches is not for a registry that other machines reach.
func (g *guard) leadsInside(ip netip.Addr) bool {
	return g.isInside() && within(ip, inside) && (!within(ip, ownOnly) || within(plainAddr(*g.last.Load()), ownOnly))
}

// seen notes the address that an answer of the registry itself came from.
func (g *guard) seen(ip netip.Addr) {
	if was := g.last.Load(); ip.IsValid() && (was == nil || *was != ip) {
		g.last.Store(&ip)
	}
}

// admits returns nil if ip may be dialled. own says that it is dialled for the
// registry's own host:port.
func (g *guard) admits(ip netip.Addr, own bool) *refusal {
	switch {
	case isMetadata(ip):
		return &refusal{reason: "cloud metadata addresses are never contacted"}
	case own && g.configured, public(ip), g.allows(plainAddr(ip)):
		return nil
	case g.configured && g.leadsInside(plainAddr(ip)):
		return nil
	}
	return &refusal{reason: "the address is not public"}
}

// allows reports whether allow_addresses lets ip in.
func (g *guard) allows(ip netip.Addr) bool {
	for _, p := range g.allowed {
		if p.Contains(ip) && letsIn(p, ip) {
			return true
		}
	}
	return false
}

// control returns a dialer's control for addr, a host:port. The dialer calls it after
// it has resolved the name, for each address that it tries. So no answer of the DNS
// gets past the guard.
func (g *guard) control(addr string) control {
	own := g.home.isOwnAddress(addr)
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &refusal{reason: "the address can't be read"}
		}
		if to.Port() != 443 && !g.configured {
			return &refusal{reason: "a registry that is not configured is contacted only on port 443"}
		}
		no := g.admits(to.Addr(), own)
		if no == nil && !own && g.isSelf(to) {
			no = &refusal{reason: "the address is this node's own", remedy: "look at the DNS: a request would come back here"}
		}
		if no != nil {
			no.address, no.remedy = to.Addr(), cmp.Or(no.remedy, g.remedy(to.Addr()))
			return no
		}
		return nil
	}
}

// isSelf reports whether this process listens at to.
func (g *guard) isSelf(to netip.AddrPort) bool {
	ip := plainAddr(to.Addr())
	return slices.ContainsFunc(g.self, func(at netip.AddrPort) bool {
		return at.Port() == to.Port() && (plainAddr(at.Addr()) == ip || at.Addr().IsUnspecified() && isThisMachine(ip))
	})
}

// isThisMachine reports whether ip is an address of this machine.
func isThisMachine(ip netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return ip.IsLoopback() || slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && plainAddr(p.Addr()) == ip
	})
}

// fakeHint is for operators whose names all have addresses of fakeIP.
const fakeHint = "it looks like the fake-IP DNS of a local proxy: set allow_addresses: "

// remedy says what an operator can do if ip is refused.
func (g *guard) remedy(ip netip.Addr) string {
	where := " at the top of the config"
	if g.configured {
		where = " for registry " + g.home.host
	}
	for _, p := range fakeIP {
		if p.Contains(plainAddr(ip)) {
			return fakeHint + "[" + p.String() + "]" + where
		}
	}
	if isMetadata(ip) {
		return "look at the DNS: nothing lets this address in"
	}
	return "if it is meant, add its network to allow_addresses" + where
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
		return &refusal{reason: "only http and https are followed"}
	case u.Scheme == "http" && !g.home.insecure:
		return &refusal{reason: "plain http is not used for a registry that is not insecure"}
	case slices.Contains(metadataNames, strings.TrimSuffix(host, ".")):
		return &refusal{reason: "cloud metadata addresses are never contacted"}
	case !g.configured:
		return strangerHost(strings.ToLower(u.Host))
	case ipErr != nil && hexAddress(host):
		return &refusal{reason: "an address is not the name of a registry"}
	case own && !isMetadata(ip):
		return nil
	case ipErr == nil:
		if no := g.admits(ip, own); no != nil {
			return no
		}
		return nil
	case proxied && internalName(host) && !internalName(g.home.name) && !g.isInside():
		return &refusal{reason: "a public registry may not lead to an internal name"}
	}
	return hostName(host)
}
