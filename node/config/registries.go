package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// fillRegistries reads the registries. Each starts from the defaults.
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
		if len(l.config.AllowAddresses) > 0 {
			e.AllowAddresses = l.config.AllowAddresses // nobody wrote the registry down
		}
		l.entries = append(l.entries, e)
	}
}

// BuiltIn reports whether a registry is the one that is there without a config: Docker Hub as
// the default registry, with no setting of its own. Perhaps nobody means to use it.
func (c *Config) BuiltIn(r Registry) bool {
	own := slices.ContainsFunc(registryKeys, func(k key[Registry]) bool {
		given := k.path == "allow_addresses" && slices.Equal(r.AllowAddresses, c.AllowAddresses)
		return k.of != nil && !given && !same(k.of(&r), k.of(&c.Defaults))
	})
	return r.Host == DockerHub && c.DefaultRegistry == DockerHub && !own
}

// fillRegistry reads one registry: its host and its keys.
func (l *loader) fillRegistry(p pair) {
	e := entry{Registry: l.config.Defaults, path: join("registries", p.key), at: p.at}
	var err error
	if e.Host, err = registryKind.parse(p.key); err != nil {
		l.problem(p.at, e.path, "%s %s", shown(&node{text: p.key, literal: true}, false), err)
	} else if doubt := doubtRegistry(p.key); doubt != "" {
		l.warn(p.at, e.path, "%q %s", p.key, doubt)
	}
	if !l.isSet(e.path) {
		l.places[e.path] = p.at
	}
	e.CacheDir = ""
	fill(l.reader, &e.Registry, registryKeys, p.value, e.path, "")
	if e.CacheDir == "" {
		e.CacheDir = l.config.Defaults.CacheDir
	}
	for _, other := range l.entries {
		if e.Host != "" && other.Host == e.Host {
			l.problem(p.at, e.path, "is the same registry as %s (%s); keep one of them", strings.TrimPrefix(other.path, "registries."), other.at)
		}
	}
	l.entries = append(l.entries, e)
}

// defaultCacheDir returns where content goes if no key says where. A user
// without a home directory most likely runs in a container, where the volume is
// mounted at root's directory.
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
