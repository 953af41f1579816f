package node

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"oci-proxy/node/config"
)

// An access says who may use the proxy: everybody, or who knows the login or
// comes from an address that needs none.
type access struct {
	open      bool
	login     [sha256.Size]byte
	anonymous []netip.Prefix
	trusted   []netip.Prefix
}

func newAccess(cfg *config.Config) *access {
	return &access{
		open: cfg.Auth.Username == "", login: hashLogin(cfg.Auth.Username, cfg.Auth.Password.Reveal()),
		anonymous: cfg.Auth.AnonymousFrom, trusted: cfg.TrustedProxies,
	}
}

// hashLogin makes logins of any length comparable in constant time. A user's
// name has no colon (RFC 7617 section 2), so that no two logins are one string.
func hashLogin(user, password string) [sha256.Size]byte {
	return sha256.Sum256([]byte(user + ":" + password))
}

// allows reports whether the client may pull.
func (a *access) allows(r *http.Request) bool {
	return a.knows(r) || within(a.anonymous, a.client(r))
}

// knows reports whether the request carries the login, if one is asked for.
func (a *access) knows(r *http.Request) bool {
	if a.open {
		return true
	}
	user, password, ok := r.BasicAuth()
	given := hashLogin(user, password)
	return subtle.ConstantTimeCompare(given[:], a.login[:]) == 1 && ok
}

// refuse asks for the login. It is the same on every path: docker decides by
// /v2/ alone whether to log in, containerd by the path it wants.
func (a *access) refuse(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Basic realm="oci-proxy", charset="UTF-8"`)
	writeError(w, http.StatusUnauthorized, ociError{Code: "UNAUTHORIZED", Message: "this proxy asks for a login"})
}

// guard lets only those through to h who know the login: to pull without one
// is all that anonymous_from allows.
func (a *access) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.knows(r) {
			a.refuse(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// client is the address that the request comes from: the connection's, or what
// trusted load balancers say in X-Forwarded-For, read from its end for as long
// as those who say it are trusted. It is no address at all where one of them
// says something else: the balancer's own may be one that needs no login.
func (a *access) client(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	at := addr.Addr().Unmap()
	said := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	if said == "" {
		return at
	}
	for _, hop := range slices.Backward(strings.Split(said, ",")) {
		if !within(a.trusted, at) {
			return at
		}
		if at = parseHop(strings.TrimSpace(hop)); !at.IsValid() {
			return at
		}
	}
	return at
}

// parseHop reads one address of X-Forwarded-For; some balancers add the port.
func parseHop(s string) netip.Addr {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap()
	}
	a, _ := netip.ParseAddrPort(s) // not valid where it is none
	return a.Addr().Unmap()
}

// within reports whether one of the prefixes holds a.
func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return a.IsValid() && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
