package upstream

import (
	"context"
	"encoding/base64"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// A PasswordSource gives a password that may change while the node runs. Its methods may
// be called from any goroutine.
type PasswordSource interface {
	// Password returns the password of the moment, at once.
	Password() string
	// Fresh returns the password after looking for a new one: the old one was refused. It
	// returns when ctx ends at the latest.
	Fresh(ctx context.Context) string
}

// A login is the credentials for a registry, and who may see them.
type login struct {
	home               *home
	username, password string
	source             PasswordSource // of the password, nil: it stays
	realmHosts         []string       // as Registry.RealmHosts
}

// given reports whether there are credentials.
func (l *login) given() bool { return l.username != "" || l.password != "" || l.source != nil }

// now returns the password of the moment.
func (l *login) now() string {
	if l.source == nil {
		return l.password
	}
	return l.source.Password()
}

// fresh returns the password after a look for a new one.
func (l *login) fresh(ctx context.Context) string {
	if l.source == nil {
		return l.password
	}
	return l.source.Fresh(ctx)
}

// basic returns an Authorization header with credentials (RFC 7617).
func basic(username, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
}

// mayBeSeenBy reports whether u's host may see the credentials: the registry
// itself, a host of the same registrable domain, or a listed one. Addresses and
// localhost have no such domain, so they must be the registry's own, with the same
// port, or listed. In the clear nobody may, unless the registry itself is spoken to
// in the clear. That it is insecure is not enough: that may be for a certificate.
func (l *login) mayBeSeenBy(u *url.URL) bool {
	name := strings.ToLower(u.Hostname())
	switch {
	case !l.given(), u.Scheme != "https" && !(l.home.insecure && l.home.plain.Load()):
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
