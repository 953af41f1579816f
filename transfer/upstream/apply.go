package upstream

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"oci-proxy/transfer/wait"
)

// A made is what a registry was made of.
type made struct {
	cfg   Registry
	roots *x509.CertPool
}

// A cast is the registries that a Client asks at a time.
type cast struct {
	named     map[string]*registry
	strangers *strangers
	of        map[string]made // by host, the fallback's under ""
}

// newCast makes the registries. Those that were made of the same before stay as they are, with
// their tokens, their turns and what is known of their limits.
func newCast(registries []Registry, fallback Registry, was cast, life *wait.Life, log *slog.Logger) (c cast, err error) {
	fallback.Configured, fallback.Insecure = false, false
	fallback.Username, fallback.Password, fallback.Source, fallback.RealmHosts = "", "", nil, nil
	fallback.Accounts = nil
	c = cast{named: make(map[string]*registry, len(registries)), of: map[string]made{}, strangers: was.strangers}
	var wrong []error
	if slices.ContainsFunc(append(slices.Clone(registries), fallback), func(r Registry) bool { return r.Proxy == nil }) {
		if err := checkEnvironment(); err != nil {
			wrong = append(wrong, err)
		}
	}
	for _, cfg := range registries {
		roots, err := cfg.check()
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		r := newRegistry(cfg, roots, nil, life, log)
		host := r.home.host
		if c.named[host] != nil {
			wrong = append(wrong, fmt.Errorf("registry %s is given twice", host))
		}
		switch old := was.named[host]; {
		case old == nil:
		case was.of[host].like(cfg, roots):
			r = old
		default:
			r.home.secured.Store(old.home.secured.Load()) // a new password does not make TLS forgotten
		}
		c.named[host], c.of[host] = r, made{cfg, roots}
	}
	roots, err := fallback.check()
	if err != nil {
		wrong = append(wrong, err)
	}
	if c.of[""] = (made{fallback, roots}); c.strangers == nil || !was.of[""].like(fallback, roots) {
		c.strangers = &strangers{
			defaults: fallback, roots: roots, turns: turnsOf(strangersRequests), life: life, log: log,
			byHost: newMemory[string, *registry](maxStrangers),
		}
	}
	return c, errors.Join(wrong...)
}

// like reports whether a registry that is made of m would be made of cfg in the same way. Who
// hears of it does not matter.
func (m made) like(cfg Registry, roots *x509.CertPool) bool {
	was := m.cfg
	if !sameSource(was.Source, cfg.Source) || len(was.Accounts) != len(cfg.Accounts) {
		return false
	}
	was.Accounts, cfg.Accounts = slices.Clone(was.Accounts), slices.Clone(cfg.Accounts)
	for i := range was.Accounts {
		if !sameSource(was.Accounts[i].Source, cfg.Accounts[i].Source) {
			return false
		}
		was.Accounts[i].Source, cfg.Accounts[i].Source = nil, nil
	}
	for _, one := range []*Registry{&was, &cfg} {
		one.Source, one.Limited, one.Mark, one.Meter = nil, nil, nil, nil
	}
	return reflect.DeepEqual(was, cfg) && (m.roots == nil) == (roots == nil) && (roots == nil || m.roots.Equal(roots))
}

// sameSource reports whether two sources are one.
func sameSource(a, b LoginSource) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

// leave closes the idle connections of the registries that are not in next.
func (c cast) leave(next cast) {
	for host, r := range c.named {
		if next.named[host] != r {
			r.net.closeIdle()
		}
	}
	if c.strangers != next.strangers {
		for _, r := range c.strangers.all() {
			r.net.closeIdle()
		}
	}
}
