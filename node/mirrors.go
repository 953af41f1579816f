package node

import (
	"log/slog"
	"slices"

	"oci-proxy/node/config"
	"oci-proxy/transfer/mirrors"
	"oci-proxy/transfer/oci"
)

// sourceOf is how the node itself asks registries: by way of their mirrors, and over several
// connections, where the config says so. m is nil if it names no mirrors.
func sourceOf(inner oci.Upstream, m *mirrors.Mirrors) oci.Upstream {
	if m == nil {
		return inner
	}
	return m
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
