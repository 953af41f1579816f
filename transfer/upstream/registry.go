package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/time/rate"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A Registry is how one registry is reached.
type Registry struct {
	// Host is the canonical host[:port].
	Host string
	// Path is what its API is below: "/prefix" for /prefix/v2/, "" for /v2/. It needs no
	// escapes.
	Path string
	// Configured registries were named by the operator. They may be private, use
	// any port and have credentials.
	Configured bool
	// Username and Password are shown only to the registry and its token servers.
	Username, Password string
	// Source gives both instead, if they may change. Nil: they stay.
	Source LoginSource
	// Accounts are further logins, 31 at most. Requests take all of them by turns.
	Accounts []Account
	// Reserve is the percentage of an account's rate limit below which the other accounts
	// go before it.
	Reserve int
	// Proxy is an http, https, socks5 or socks5h URL, with user:password if need
	// be. Nil: HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment.
	Proxy *url.URL
	// CAFile holds PEM certificates that are trusted in addition to the system's.
	CAFile string
	// Insecure means plain HTTP to this host:port, or unverified HTTPS if it speaks
	// TLS. Its redirects may lead to plain HTTP.
	Insecure bool
	// FollowRedirects false: Open returns Stream.Redirect for a blob.
	FollowRedirects bool
	// AllowAddresses are networks that it may lead to although they are not public.
	// Metadata services, and networks that this machine alone reaches (loopback,
	// links), are let in only by a network that lies within theirs.
	AllowAddresses []netip.Prefix
	// Self is where this process listens. No registry leads there, whatever
	// AllowAddresses says. An unspecified address means all of this machine's.
	Self []netip.AddrPort
	// Patience is how long a request waits for a connection, 0: [Patience].
	Patience time.Duration
	// RealmHosts are token servers on other sites that may see the credentials:
	// host (any port) or host:port.
	RealmHosts []string
	// Requests is how many requests may be at the registry at a time; 0:
	// DefaultRequests.
	Requests int
	// Limited is told when the registry asks to be left alone for a time (429 with
	// Retry-After). It must return at once. Nil: nobody wants to know.
	Limited func(registry string, d time.Duration)
	// Rate is how many bytes of blobs a second may come from the registry; 0: no bound.
	Rate int64
	// Mark returns this node's pseudonym in Via (RFC 9110 section 7.6.3), by which it
	// knows its own requests should they come back. Nil: none.
	Mark func() string
	// Meter hears what requests to the registry come to. Nil: nobody counts them.
	Meter Meter
}

// check returns what is wrong with the settings, and the certificates to trust.
func (cfg Registry) check() (*x509.CertPool, error) {
	if (cfg.Username != "" || cfg.Password != "" || cfg.Source != nil || len(cfg.Accounts) > 0) && !cfg.Configured {
		return nil, fmt.Errorf("registry %s: credentials for a registry that is not configured", cfg.Host)
	}
	if len(cfg.Accounts) > maxAccounts {
		return nil, fmt.Errorf("registry %s: more than %d further accounts", cfg.Host, maxAccounts)
	}
	if err := checkProxy(cfg.Proxy); err != nil {
		return nil, fmt.Errorf("registry %s: its proxy: %w", cfg.Host, err)
	}
	roots, err := trusted(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", cfg.Host, err)
	}
	return roots, nil
}

// A registry asks one registry. It answers challenges and follows redirects.
type registry struct {
	home            *home
	net             *network
	hops            hops
	accounts        *accounts
	turns           *turns
	limiter         *rate.Limiter // of blobs; nil: no bound
	followRedirects bool
	limited         func(registry string, d time.Duration) // nil: nobody wants to know
}

// newRegistry returns the registry that cfg describes. roots are the certificates
// to trust, and strangers the turns of all registries that nobody configured, nil if
// this one is. Token requests end with life.
func newRegistry(cfg Registry, roots *x509.CertPool, strangers *wait.Turns[string], life *wait.Life, log *slog.Logger) *registry {
	home := newHome(cfg.Host, cfg.Insecure)
	home.path, home.log = cfg.Path, log
	if cfg.Meter != nil {
		home.meter = cfg.Meter
	}
	net := newNetwork(home, newGuard(home, cfg), cfg, roots, log)
	net.mark = cfg.Mark
	hops := hops{home, net}
	shared := passes{home: home, net: net, challenges: newChallenges(), tokens: newTokens(life, tokenServers{hops}.fetch)}
	if home.stranger {
		shared.challenges.byRepo.most, shared.tokens.kept.most = strangersWants, strangersTokens
	}
	return &registry{
		home: home, net: net, hops: hops, followRedirects: cfg.FollowRedirects, limited: cfg.Limited, turns: newTurns(home, cfg.Requests, strangers), limiter: newLimiter(cfg.Rate),
		accounts: newAccounts(cfg, shared),
	}
}

// ask asks for a with the account whose turn it is, and with others if that one gets nothing.
func (r *registry) ask(ctx context.Context, a ask) (*answer, error) {
	if len(r.accounts.all) > 1 {
		return (&round{registry: r, ask: a}).run(ctx)
	}
	v := r.askAs(ctx, r.accounts.all[0], a, nil)
	r.accounts.hearOnly(ctx, v)
	return v.ans, v.err
}

// askAs asks for a with one account, as meetAll does. If the login is refused and there is a
// new one by now, it asks once more with that: what was right for hours may have just
// ended (ECR, Artifact Registry). former is the visit of another account, nil if there was
// none.
func (r *registry) askAs(ctx context.Context, who *account, a ask, former *visit) *visit {
	before := who.passes.login.last()
	v := r.meetAll(ctx, who, a, former)
	if !refusesLogin(v.ans, v.err) || !who.passes.renew(ctx, a.repo, before) || !a.budget.refund() {
		return v
	}
	r.net.log.InfoContext(ctx, "login refused; trying again with the new one", "registry", r.home.host)
	if v.err == nil {
		v.ans.discard()
	}
	return r.meetAll(ctx, who, a, nil)
}

// refusesLogin reports whether what a request ended with may be the refusal of a login, by
// the registry or its token server.
func refusesLogin(ans *answer, err error) bool {
	if err == nil {
		return ans.asked == oci.Registry && ans.redirect == nil && ans.is(http.StatusUnauthorized, http.StatusForbidden)
	}
	f, ok := errors.AsType[*failure](err)
	return ok && (f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden || f.Status == http.StatusBadRequest)
}

// meetAll asks for a and answers challenges. The first request is bare, so that public
// content stays public and does not count against the account's quota. Once a
// repository has asked for a pass, requests show it at once. If a 401 is returned
// as the answer, it is final.
func (r *registry) meetAll(ctx context.Context, who *account, a ask, former *visit) *visit {
	v := &visit{registry: r, passes: who.passes, account: who, ask: a, began: time.Now()}
	v.ans, v.err = v.meetAll(ctx, former)
	return v
}

// asGuest meets a challenge of a host that the registry's redirect led to: some
// registries redirect to others that want a token. It gets an anonymous token for
// this one request, since our login is not for that host, and tries it once. It
// returns any other answer as it is.
func (r *registry) asGuest(ctx context.Context, s *passes, a ask, ans *answer) (*answer, error) {
	if ans.asked == oci.Registry || ans.redirect != nil || !ans.is(http.StatusUnauthorized) || r.home.isOwn(ans.url) {
		return ans, nil
	}
	key, token := s.guest(ctx, ans)
	if token == "" {
		return ans, nil // its 401 tells enough
	}
	ans.discard()
	resp, err := r.net.roundTrip(a.at(ctx, ans.url, "Bearer "+token))
	if err != nil {
		return nil, err
	}
	s.dropGuest(key, token, resp) // if it was refused, the next request gets another
	return r.hops.chase(ctx, a, pass{}, &answer{resp: resp, home: r.home, url: ans.url, asked: ans.asked, before: ans.before})
}
