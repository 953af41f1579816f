package gate

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// addresses tell clients' addresses.
type addresses struct{ trusted []netip.Prefix } // of load balancers

// of is the address that a request comes from: the connection's, or what trusted
// load balancers say in X-Forwarded-For. That is read from its end for as long as
// whoever added an entry is trusted. If a trusted balancer adds something that is
// no address, the result is not valid: the balancer's own address may be one that
// needs no login.
func (a addresses) of(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	at := addr.Addr().Unmap()
	forwarded := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	if forwarded == "" {
		return at
	}
	for _, hop := range slices.Backward(strings.Split(forwarded, ",")) {
		if !within(a.trusted, at) {
			return at
		}
		if at = parseHop(strings.TrimSpace(hop)); !at.IsValid() {
			return at
		}
	}
	return at
}

// balanced reports whether a request comes from a trusted load balancer.
func (a addresses) balanced(r *http.Request) bool {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && within(a.trusted, addr.Addr().Unmap())
}

// parseHop reads one address of X-Forwarded-For. Some balancers add the port.
func parseHop(s string) netip.Addr {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap()
	}
	a, _ := netip.ParseAddrPort(s) // not valid if s is no address
	return a.Addr().Unmap()
}

// within reports whether one of the prefixes contains a.
func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return a.IsValid() && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Network is what an address counts as wherever clients are counted: an IPv4 address, or an
// IPv6 network of 64 bits, since whoever has one address there has them all. What is no
// address counts as one and the same.
func Network(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits) // what is no address counts as one and the same
	return p
}

// local reports whether a request comes from this machine, and not through a
// proxy on it, as far as the proxy tells. A node that listens on one address
// only, which need not be loopback, is reached from that very address.
func local(r *http.Request, listens string) bool {
	if forwarded(r.Header) {
		return false
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	if from.Addr().Unmap().IsLoopback() {
		return true
	}
	if ip, err := netip.ParseAddr(listens); listens == "" || err == nil && ip.IsUnspecified() {
		// Clients on this machine can use loopback. Some container engines let all
		// clients come from the container's own address.
		return false
	}
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	to, err := netip.ParseAddrPort(at.String())
	return err == nil && from.Addr().Unmap() == to.Addr().Unmap()
}

// forwarded reports whether a proxy says that it passed the request on.
func forwarded(h http.Header) bool {
	for name := range h {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// FromBalancer reports whether a request comes from one of trusted_proxies.
func (g *Gate) FromBalancer(r *http.Request) bool { return g.access().addresses.balanced(r) }
