package node

import (
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"oci-proxy/node/config"
)

// An access says who may use the proxy: everybody, or who knows a login or
// comes from an address that needs none.
type access struct {
	open      bool
	logins    *logins
	throttle  *throttle
	failures  atomic.Int64 // logins that were wrong, or not looked at any more
	anonymous []netip.Prefix
	trusted   []netip.Prefix
	log       *slog.Logger
}

func newAccess(cfg *config.Config, log *slog.Logger) (*access, error) {
	l, err := newLogins(cfg, log)
	if err != nil {
		return nil, err
	}
	return &access{
		open: !cfg.Auth.Asked(), logins: l, throttle: newThrottle(),
		anonymous: cfg.Auth.AnonymousFrom, trusted: cfg.TrustedProxies, log: log,
	}, nil
}

// A verdict is what became of a request's login.
type verdict struct {
	user  string     // whose login is right, "" for none
	ok    bool       // it is right, or none is asked for
	level strictness // else how the refusal is given
	left  time.Duration
}

// judge looks at a request's login. A request without any is no failure: that
// is how clients learn that they need one.
func (a *access) judge(r *http.Request) verdict {
	if a.open {
		return verdict{ok: true}
	}
	if r.Header.Get("Authorization") == "" {
		return verdict{}
	}
	from := network(a.client(r))
	l, left := a.throttle.level(from)
	user, password, basic := r.BasicAuth()
	switch {
	case l == deaf:
		return verdict{level: deaf, left: left}
	case basic && a.logins.known(from, user, password):
		return verdict{user: user, ok: true}
	case l == barred:
		return a.failed(r, from, user)
	}
	end, ok := a.throttle.turn(r.Context().Done(), from)
	if !ok {
		return verdict{}
	}
	defer end()
	if l, _ := a.throttle.level(from); l < barred && basic && a.logins.check(r.Context().Done(), from, user, password) {
		a.throttle.succeeded(from, user)
		return verdict{user: user, ok: true}
	}
	if r.Context().Err() != nil {
		return verdict{} // it may be right; nobody waits for the answer
	}
	return a.failed(r, from, user)
}

// failed counts and reports a failure. The log has each one that was looked at.
func (a *access) failed(r *http.Request, from netip.Prefix, user string) verdict {
	a.failures.Add(1)
	l, left := a.throttle.failed(from, user)
	if l < barred {
		attrs := []slog.Attr{slog.String("client", a.client(r).String())}
		if a.logins.exists(user) {
			attrs = append(attrs, slog.String("user", user))
		}
		a.log.LogAttrs(r.Context(), slog.LevelWarn, "login failed", attrs...)
	}
	if now, left := a.throttle.level(from); l < barred && now == barred {
		a.log.Warn("too many logins failed: none from there is looked at for a while", "client", from.String(), "while", left.Round(time.Second))
	}
	return verdict{level: l, left: left}
}

// anonymously reports whether the client may pull without a login.
func (a *access) anonymously(r *http.Request) bool { return within(a.anonymous, a.client(r)) }

// refuse asks for a login. It is the same on every path: docker decides by
// /v2/ alone whether to log in, containerd by the path it wants. Who failed too
// often waits for it, or is told to come back later.
func (a *access) refuse(w http.ResponseWriter, r *http.Request, v verdict) {
	if v.level >= barred || v.level == slow && !a.throttle.delay(r.Context().Done(), refusalDelay) {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(v.left.Seconds())))))
		writeError(w, http.StatusTooManyRequests, ociError{Code: "TOOMANYREQUESTS", Message: "too many failed logins from your address: try again later"})
		return
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="oci-proxy", charset="UTF-8"`)
	writeError(w, http.StatusUnauthorized, ociError{Code: "UNAUTHORIZED", Message: "this proxy asks for a login"})
}

// guard lets only those through to h who know a login: to pull without one is
// all that anonymous_from allows.
func (a *access) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := a.judge(r); !v.ok {
			a.refuse(w, r, v)
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
