package gate

import (
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/reply"
	"oci-proxy/transfer/wait"
)

// An access says who may use the node: everybody, or users and the addresses
// that need no login.
type access struct {
	open      bool
	byUser    bool // what a client may pull depends on its login: see config.AccessRule
	logins    *logins
	throttle  *throttle
	failures  *atomic.Int64  // logins that were wrong, or not looked at any more
	nologin   []netip.Prefix // anonymous_from
	admins    []string       // users that may change things
	addresses addresses
	log       *slog.Logger
}

func newAccess(cfg *config.Config, log *slog.Logger) (*access, error) {
	l, err := newLogins(cfg, log)
	if err != nil {
		return nil, err
	}
	return accessOf(cfg, l, newThrottle(), new(atomic.Int64), log), nil
}

// accessOf is newAccess with logins, and with what is known of those that failed.
func accessOf(cfg *config.Config, l *logins, t *throttle, failures *atomic.Int64, log *slog.Logger) *access {
	return &access{
		open: !cfg.Auth.Asked(), byUser: len(cfg.Access) > 0, logins: l, throttle: t, failures: failures,
		nologin: cfg.Auth.AnonymousFrom, admins: cfg.Auth.Admins, addresses: addresses{cfg.TrustedProxies}, log: log,
	}
}

// A verdict is what became of a request's login.
type verdict struct {
	user  string // whose login is right, "" for none
	ok    bool   // the login is right, or none is asked for
	level level  // otherwise: how the address is treated
	left  time.Duration
	busy  bool // nobody knows: too many logins wait
}

// judge looks at a request's login, and notes whose it is if it is right.
func (a *access) judge(r *http.Request) verdict {
	v := a.look(r)
	noteUser(r, v.user)
	return v
}

// look looks at a request's login. A request without one is no failure: that is
// how clients learn that they need one.
func (a *access) look(r *http.Request) verdict {
	if a.open {
		return verdict{ok: true}
	}
	if r.Header.Get("Authorization") == "" {
		return verdict{}
	}
	from := Network(a.addresses.of(r))
	l, left := a.throttle.level(from)
	user, password, basic := r.BasicAuth()
	switch {
	case l == ignored:
		return verdict{level: ignored, left: left}
	case basic && a.logins.known(from, user, password):
		return verdict{user: user, ok: true}
	case l == barred:
		return a.failed(r, from, user)
	}
	end, ok := a.throttle.turn(r.Context(), from)
	if !ok {
		return verdict{}
	}
	defer end()
	right, err := false, error(nil)
	if l, _ := a.throttle.level(from); l < barred && basic {
		right, err = a.logins.check(r.Context(), from, user, password)
	}
	switch {
	case right:
		a.throttle.succeeded(from, user)
		return verdict{user: user, ok: true}
	case err != nil || r.Context().Err() != nil:
		return verdict{busy: true} // nobody knows whether it was right
	}
	return a.failed(r, from, user)
}

// failed counts and logs a failure. Every login that was looked at is logged.
func (a *access) failed(r *http.Request, from netip.Prefix, user string) verdict {
	a.failures.Add(1)
	l, left := a.throttle.failed(from, user)
	if l < barred {
		attrs := []slog.Attr{slog.String("client", a.addresses.of(r).String())}
		if a.logins.exists(user) {
			attrs = append(attrs, slog.String("user", user))
		}
		a.log.LogAttrs(r.Context(), slog.LevelWarn, "login failed", attrs...)
	}
	if now, left := a.throttle.level(from); l < barred && now == barred {
		a.log.Warn("too many failed logins: new logins from this address are refused for a while", "client", from.String(), "left_ms", wait.Milliseconds(left.Round(time.Second)))
	}
	return verdict{level: l, left: left}
}

// puller is who a pull's client is. ok is whether it is let in; v is its login's
// verdict otherwise.
func (a *access) puller(r *http.Request) (who Client, v verdict, ok bool) {
	from := a.addresses.of(r)
	who = Client{from: Network(from)}
	free := within(a.nologin, from)
	if free && !a.byUser {
		who.unsure = r.Header.Get("Authorization") != ""
		return who, v, true
	}
	v = a.judge(r)
	who.user = v.user
	return who, v, v.ok || free && !v.busy // one whose login is wrong pulls as one without
}

// refuse asks for a login. It does so in the same way on every path: docker
// decides by /v2/ alone whether to log in, containerd by the path it wants. An
// address that failed too often waits for the refusal, or is told to come back
// later.
func (a *access) refuse(w http.ResponseWriter, r *http.Request, v verdict) {
	if v.busy {
		a.refuseBusy(w, r, errCrowded.Error(), &reply.Detail{Reason: errCrowded.Error()})
		return
	}
	if v.level >= barred || v.level == slowed && !a.throttle.delay(r.Context(), refusalDelay) {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(v.left.Seconds())))))
		reply.Fail(w, http.StatusTooManyRequests, reply.Error{Code: "TOOMANYREQUESTS", Message: "too many failed logins from your address: try again later"})
		return
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="oci-proxy", charset="UTF-8"`)
	reply.Fail(w, http.StatusUnauthorized, reply.Error{Code: "UNAUTHORIZED", Message: "this proxy requires a login"})
}

// guard lets only users through to h: anonymous_from allows to pull and no more.
func (a *access) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := a.judge(r); !v.ok {
			a.refuse(w, r, v)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// admit lets only admins through to h.
func (a *access) admit(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch v := a.judge(r); {
		case !v.ok:
			a.refuse(w, r, v)
		case !slices.Contains(a.admins, v.user):
			a.log.Warn("refused what only auth.admins may do", "user", v.user, "path", r.URL.Path, "client", a.addresses.of(r).String())
			reply.Fail(w, http.StatusForbidden, reply.Error{Code: "DENIED", Message: "only users in auth.admins may do this, and " + v.user + " is not one of them"})
		default:
			h.ServeHTTP(w, r)
		}
	})
}
