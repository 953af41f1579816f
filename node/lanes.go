package node

import (
	"log/slog"
	"slices"

	"oci-proxy/node/config"
	"oci-proxy/transfer/lanes"
	"oci-proxy/transfer/oci"
)

// withLanes returns source, with lanes over it if a registry may have several connections
// for a blob (upstream_connections).
func withLanes(cfg *config.Config, source lanes.Source, log *slog.Logger) oci.Upstream {
	several := func(r config.Registry) bool { return r.UpstreamConnections > 1 }
	if !several(cfg.Defaults) && !slices.ContainsFunc(cfg.Registries, several) {
		return source
	}
	return lanes.New(source, func(registry string) int {
		if r, ok := cfg.Registry(registry); ok {
			return r.UpstreamConnections
		}
		return cfg.Defaults.UpstreamConnections
	}, log)
}
