package node

import (
	"log/slog"

	"oci-proxy/node/config"
	"oci-proxy/transfer/archive"
	"oci-proxy/transfer/oci"
)

// newArchive returns the bucket that the config names, over what asks registries; nil if it
// names none.
func newArchive(cfg *config.Config, registries oci.Upstream, private func(registry string) bool, log *slog.Logger) (*archive.Archive, error) {
	a := cfg.Archive
	if a == nil {
		return nil, nil
	}
	return archive.New(archive.Config{
		Bucket: archive.Bucket{
			Endpoint: a.Endpoint, Name: a.Bucket, Prefix: a.Prefix, Region: a.Region, AccessKey: a.AccessKey, SecretKey: a.SecretKey.Reveal(),
		},
		Upstream: registries, Private: private, Log: log,
	})
}
