package node

import (
	"log/slog"
	"slices"

	"oci-proxy/node/config"
	"oci-proxy/transfer/mirrors"
	"oci-proxy/transfer/oci"
)

// sourceOf is how the node itself asks registries: by way of their mirrors, over inner, which
// asks one host. m is nil if the config names no mirrors.
func sourceOf(inner oci.Upstream, m *mirrors.Mirrors) oci.Upstream {
	if m == nil {
		return inner
	}
	return m.Over(inner)
}

// newMirrors returns the mirrors that the config names, over what asks one host; nil if it names none.
func newMirrors(cfg *config.Config, inner oci.Upstream, log *slog.Logger) *mirrors.Mirrors {
	of := map[string][]mirrors.Mirror{}
	for _, r := range cfg.Registries {
		for _, m := range r.Mirrors {
			if own, _ := cfg.Registry(m.Host); !own.Offline { // never asked, as what it is either
				of[r.Host] = append(of[r.Host], mirrors.Mirror{Host: m.Host, Tags: m.Tags})
			}
		}
	}
	if len(of) == 0 {
		return nil
	}
	return mirrors.New(mirrors.Config{Upstream: inner, Of: of, Log: log})
}

// isMirror reports whether a host is some registry's mirror.
func isMirror(cfg *config.Config, host string) bool {
	return slices.ContainsFunc(cfg.Registries, func(r config.Registry) bool {
		return slices.ContainsFunc(r.Mirrors, func(m config.Mirror) bool { return m.Host == host })
	})
}

// unlisted lists the mirrors without an entry of their own. The operator has named them, so
// they may be anywhere, and are asked as the defaults say.
func unlisted(cfg *config.Config) (hosts []string) {
	for _, r := range cfg.Registries {
		for _, m := range r.Mirrors {
			if _, listed := cfg.Registry(m.Host); !listed && !slices.Contains(hosts, m.Host) {
				hosts = append(hosts, m.Host)
			}
		}
	}
	return hosts
}
