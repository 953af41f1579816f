package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// fillRegistries reads the registries, each of which starts from the defaults.
func (l *loader) fillRegistries() {
	if l.config.Defaults.CacheDir == "" {
		l.config.Defaults.CacheDir = defaultCacheDir()
	}
	if l.registries != nil && l.is(l.registries, mapping, "registries") {
		for _, p := range l.registries.pairs {
			l.fillRegistry(p)
		}
	}
	host := l.config.DefaultRegistry
	if !slices.ContainsFunc(l.entries, func(e entry) bool { return e.Host == host }) {
		e := entry{Registry: l.config.Defaults, path: "registries." + host, at: l.at("default_registry")}
		e.Host = host
		l.entries = append(l.entries, e)
	}
}

func (l *loader) fillRegistry(p pair) {
	e := entry{Registry: l.config.Defaults, path: join("registries", p.key), at: p.at}
	var err error
	if e.Host, err = registryKind.parse(p.key); err != nil {
		l.problem(p.at, e.path, "%s %s", shown(&node{text: p.key, literal: true}, false), err)
	}
	e.CacheDir = ""
	fill(l, &e.Registry, registryKeys, p.value, e.path, "")
	if e.CacheDir == "" {
		e.CacheDir = l.config.Defaults.CacheDir
	}
	for _, other := range l.entries {
		if e.Host != "" && other.Host == e.Host {
			l.problem(p.at, e.path, "is the same registry as %s (%s)", strings.TrimPrefix(other.path, "registries."), other.at)
		}
	}
	l.entries = append(l.entries, e)
}

// defaultCacheDir returns where content goes if nobody says where. A user
// without a home is most likely a container's, whose volume is mounted at the
// place for root.
func defaultCacheDir() string {
	const system = "/var/lib/oci-proxy"
	if os.Getuid() == 0 {
		return system
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return system
	}
	return filepath.Join(dir, "oci-proxy")
}

// boundStores settles the bounds of stores that registries share. A store's
// bound is the largest that is asked for it, so that no registry is held below
// what the operator gave it; the others' own bounds hold for their share.
func (l *loader) boundStores() {
	home := storeOf(l.config.Defaults.CacheDir)
	bounds := map[string]int64{home: l.config.Defaults.CacheMaxSize}
	users := map[string]int{home: 1} // every registry that is not configured
	for _, e := range l.entries {
		dir := storeOf(e.CacheDir)
		bound, open := bounds[dir]
		switch {
		case !open:
			bounds[dir] = e.CacheMaxSize
		case dir == home && e.CacheMaxSize == 0: // no bound of its own; the store's holds
		case bound == 0 || e.CacheMaxSize == 0:
			bounds[dir] = 0
		default:
			bounds[dir] = max(bound, e.CacheMaxSize)
		}
		users[dir]++
	}
	for i := range l.entries {
		e := &l.entries[i]
		dir := storeOf(e.CacheDir)
		if _, own := l.places[e.path+".cache_max_size"]; own && users[dir] > 1 {
			e.OwnBound = e.CacheMaxSize
		}
		e.CacheMaxSize = bounds[dir]
	}
	l.config.Defaults.CacheMaxSize = bounds[home]
}

// storeOf returns one name for each directory, however it is written.
func storeOf(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
