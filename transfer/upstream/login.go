package upstream

import (
	"context"
	"encoding/base64"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"oci-proxy/transfer/oci"
)

// Credentials are a user name and a password or token. With the user name [IdentityUser] the
// password is an identity token.
type Credentials struct{ Username, Password string }

// IdentityUser stands in the place of a user name beside an identity token, as docker's
// credential helpers give it. Such a token is a refresh token: token servers exchange it
// (RFC 6749 section 6), and registries themselves do not take it.
const IdentityUser = "<token>"

// A LoginSource gives credentials that may change while the node runs. Its methods may be
// called from any goroutine.
type LoginSource interface {
	// Last returns the last credentials, at once. They may have ended. Zero: there were none.
	Last() Credentials
	// Ready returns credentials that have not ended. If there are none, it waits for new ones,
	// until ctx ends at the latest. What the error says is for operators alone.
	Ready(ctx context.Context) (Credentials, error)
	// Fresh returns credentials after looking for new ones: the last ones were refused. It
	// returns when ctx ends at the latest.
	Fresh(ctx context.Context) Credentials
}

// A login is the credentials for a registry, and who may see them.
type login struct {
	home       *home
	fixed      Credentials
	source     LoginSource // of the credentials, nil: they are fixed
	realmHosts []string    // as Registry.RealmHosts
}

// given reports whether there are credentials, or may be.
func (l *login) given() bool { return l.fixed != Credentials{} || l.source != nil }

// last returns the credentials of the moment.
func (l *login) last() Credentials {
	if l.source == nil {
		return l.fixed
	}
	return l.source.Last()
}

// ready returns credentials to show to the registry or its token server.
func (l *login) ready(ctx context.Context) (Credentials, error) {
	if l.source == nil {
		return l.fixed, nil
	}
	c, err := l.source.Ready(ctx)
	if err != nil {
		f := l.home.fail(oci.Unavailable, never, l.home.host, "this node's login there cannot be had; its log says why")
		f.Err = err
		f.ended(ctx)
		return c, f
	}
	return c, nil
}

// fresh returns the credentials after a look for new ones.
func (l *login) fresh(ctx context.Context) Credentials {
	if l.source == nil {
		return l.fixed
	}
	return l.source.Fresh(ctx)
}

// header returns an Authorization header with the credentials (RFC 7617).
func (l *login) header(ctx context.Context) (string, error) {
	c, err := l.ready(ctx)
	if err != nil {
		return "", err
	}
	if c.Username == IdentityUser {
		return "", l.home.fail(oci.Denied, never, l.home.host, "it asks for a user and a password, and the login for it is an identity token, which only token servers take")
	}
	return basic(c.Username, c.Password), nil
}

// basic returns an Authorization header with credentials (RFC 7617).
func basic(username, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
}

// mayBeSeenBy reports whether u's host may see the credentials: the registry
// itself, a host of the same registrable domain, or a listed one. Addresses and
// localhost have no such domain, so they must be the registry's own, with the same
// port, or listed. In the clear nobody may, unless the registry itself is spoken to
// in the clear, and always was. That it is insecure is not enough: that may be for a certificate.
func (l *login) mayBeSeenBy(u *url.URL) bool {
	name := strings.ToLower(u.Hostname())
	switch {
	case !l.given(), u.Scheme != "https" && !l.home.isPlain():
		return false
	case l.home.isOwn(u):
		return true
	}
	listed := slices.ContainsFunc(l.realmHosts, func(h string) bool {
		h = strings.ToLower(h)
		return h == name || h == hostPort(u) || h == shown(u)
	})
	return listed || sameSite(name, l.home.name)
}

// mayBeSeenAt is mayBeSeenBy for a realm that was resolved before.
func (l *login) mayBeSeenAt(realm string) bool {
	u, err := url.Parse(realm)
	return err == nil && l.mayBeSeenBy(u)
}

// Domain returns the registrable domain of a registry's host, or host itself if it
// has none.
func Domain(host string) string {
	name := (&url.URL{Host: host}).Hostname()
	if domain, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(name)); err == nil {
		return domain
	}
	return host
}

// sameSite reports whether a and b have their registrable domain in common.
func sameSite(a, b string) bool {
	for _, name := range []string{a, b} {
		if _, err := netip.ParseAddr(name); err == nil {
			return false
		}
	}
	siteA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	siteB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && siteA == siteB
}
