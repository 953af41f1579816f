package node

import (
	"context"
	"errors"
	"os"

	"oci-proxy/cache"
	"oci-proxy/node/config"
)

// diskInspections look at the cache directories: whether they can be written to, and
// whether their bounds fit on the disk.
func diskInspections(cfg *config.Config) (all []inspection) {
	seen := map[string]bool{}
	add := func(section string, r config.Registry) {
		dir := resolve(r.CacheDir)
		if seen[dir] {
			return
		}
		seen[dir] = true
		all = append(all, inspection{[]string{section + ".cache_dir", "defaults.cache_dir"}, func(ctx context.Context) Finding {
			return lookAtDisk(ctx, dir, r.CacheMaxSize)
		}})
	}
	if !cfg.WhitelistMode {
		add("defaults", cfg.Defaults)
	}
	for _, r := range cfg.Registries {
		add("registries."+r.Host, r)
	}
	return all
}

// lookAtDisk looks at one cache directory with its bound in bytes, 0 for none.
func lookAtDisk(ctx context.Context, dir string, bound int64) Finding {
	s, err := cache.Probe(ctx, dir)
	size := config.FormatSize
	room := s.Free + s.Held
	switch {
	case errors.Is(err, cache.ErrNotOwn):
		return doubtful("%s", err)
	case err != nil:
		return wrong("%s", err)
	case bound == 0:
		return fine("%s can be used by uid %d: %s free, no bound", dir, os.Geteuid(), size(s.Free))
	case room < bound && s.Whole:
		return doubtful("%s can be used by uid %d, but its disk has room for %s (%s held, %s free), less than the bound of %s", dir, os.Geteuid(), size(room), size(s.Held), size(s.Free), size(bound))
	default:
		return fine("%s can be used by uid %d: %s held, %s free, bound %s", dir, os.Geteuid(), size(s.Held), size(s.Free), size(bound))
	}
}
