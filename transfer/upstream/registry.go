package upstream

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A Registry is how one registry is reached.
type Registry struct {
	// Host is the canonical host[:port].
	Host string
	// Configured registries were named by the operator. They may be private, use
	// any port and have credentials.
	Configured bool
	// Username and Password are shown only to the registry and its token servers.
	Username, Password string
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
}

// check returns what is wrong with the settings, and the certificates to trust.
func (cfg Registry) check() (*x509.CertPool, error) {
	if (cfg.Username != "" || cfg.Password != "") && !cfg.Configured {
		return nil, fmt.Errorf("registry %s: credentials for a registry that is not configured", cfg.Host)
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
	passes          *passes
	followRedirects bool
}

// newRegistry returns the registry that cfg describes. roots are the certificates
// to trust. Token requests end with life.
func newRegistry(cfg Registry, roots *x509.CertPool, life *wait.Life, log *slog.Logger) *registry {
	home := newHome(cfg.Host, cfg.Insecure)
	net := newNetwork(home, newGuard(home, cfg), cfg, roots, log)
	login := &login{home: home, username: cfg.Username, password: cfg.Password, realmHosts: cfg.RealmHosts}
	hops := hops{home, net}
	return &registry{
		home: home, net: net, hops: hops, followRedirects: cfg.FollowRedirects,
		passes: &passes{
			home: home, net: net, login: login,
			challenges: newChallenges(),
			tokens:     newTokens(life, tokenServers{hops, login}.fetch),
		},
	}
}

// maxRounds bounds how often one try asks the registry: bare, then with a token,
// and both once more if the token has expired.
const maxRounds = 6

// do asks for a and answers challenges. The first request is bare, so that public
// content stays public and does not count against the account's quota. Once a
// repository has asked for a pass, requests show it at once. If a 401 is returned
// as the answer, it is final.
func (r *registry) do(ctx context.Context, a ask) (*answer, error) {
	p, err := r.passes.known(ctx, a.repo)
	if err != nil {
		return nil, err
	}
	by, restarted := oci.Nobody, false // restarted with a bare request, after a pass that worked was refused
	for range maxRounds {
		ans, err := r.hops.follow(ctx, a, p)
		if err != nil {
			return nil, err
		}
		if !ans.challenged(p) {
			return r.asGuest(ctx, a, ans)
		}
		if p.header != "" && (restarted || !p.remembered && !p.cached) {
			return ans, nil
		}
		by = ans.by()
		if p.header != "" {
			restarted = true
			ans.discard()
			r.passes.forget(a.repo, p)
			p = pass{}
			continue
		}
		if p, err = r.meet(ctx, a.repo, ans); err != nil {
			return nil, err
		}
	}
	f := r.home.fail(oci.Denied, never, r.home.host, "the registry keeps asking for a login")
	f.By = by
	return nil, f
}

// meet chooses among the challenges of a bare request's answer, closes the answer
// and returns the pass asked for.
func (r *registry) meet(ctx context.Context, repo string, ans *answer) (pass, error) {
	offered := challengesOf(ans.resp.Header)
	if len(offered) == 0 && r.passes.login.given() {
		offered = r.probe(ctx) // some registries challenge only at /v2/
	}
	ch, reason := r.passes.choose(ans.url, offered)
	if reason != "" {
		f := ans.refused()
		f.Reason += "; " + reason
		return pass{}, f
	}
	ans.discard()
	return r.passes.learn(ctx, repo, ch)
}

// probe asks for the challenges of the registry as a whole.
func (r *registry) probe(ctx context.Context) []challenge {
	ans, err := r.hops.follow(ctx, ask{method: http.MethodGet}, pass{})
	if err != nil {
		return nil // the caller reports the answer that led here
	}
	defer ans.discard()
	if ans.asked != oci.Registry {
		return nil
	}
	return challengesOf(ans.resp.Header)
}

// asGuest meets a challenge of a host that the registry's redirect led to: some
// registries redirect to others that want a token. It gets an anonymous token for
// this one request, since our login is not for that host, and tries it once. It
// returns any other answer as it is.
func (r *registry) asGuest(ctx context.Context, a ask, ans *answer) (*answer, error) {
	if ans.asked == oci.Registry || ans.redirect != nil || !ans.is(http.StatusUnauthorized) || r.home.isOwn(ans.url) {
		return ans, nil
	}
	key, token := r.passes.guest(ctx, ans)
	if token == "" {
		return ans, nil // its 401 tells enough
	}
	ans.discard()
	resp, err := r.net.roundTrip(a.at(ctx, ans.url, "Bearer "+token))
	if err != nil {
		return nil, err
	}
	r.passes.dropGuest(key, token, resp) // if it was refused, the next request gets another
	return r.hops.chase(ctx, a, pass{}, &answer{resp: resp, home: r.home, url: ans.url, asked: ans.asked, before: ans.before})
}
