package config

import (
	"reflect"
	"slices"
	"strings"
)

// Changes are what one config changes of another, as paths of keys in their order: those of
// a registry that comes or goes are the registry's own path, `registries.HOST`.
type Changes struct {
	Live    []string // take effect in a running node
	Restart []string // count from the next start on
}

// Any reports whether anything has changed.
func (c Changes) Any() bool { return len(c.Live)+len(c.Restart) > 0 }

// add notes a change of a key. The name of the key is its path with <host> for a registry.
func (c *Changes) add(path, name string) {
	if slices.Contains(restarts, name) {
		c.Restart = append(c.Restart, path)
	} else {
		c.Live = append(c.Live, path)
	}
}

// Merge returns what a running node of the config old makes of the config wanted: wanted, with
// old's values of the keys that need a restart. It shares values with both, and changes neither.
func Merge(old, wanted *Config) (*Config, Changes) {
	m := &merger{wanted: wanted}
	now := *wanted
	mergeSection(m, old, &now, configKeys, "")
	m.tls(old, &now)
	mergeSection(m, &old.Defaults, &now.Defaults, shared(registryKeys), "defaults.")
	now.Registries = slices.Clone(wanted.Registries)
	m.registries(old, &now)
	now.Cluster = m.cluster(old.Cluster, now.Cluster)
	if now.Archive = old.Archive; (old.Archive == nil) != (wanted.Archive == nil) {
		m.Restart = append(m.Restart, "archive")
	} else if old.Archive != nil {
		other := *wanted.Archive
		mergeSection(m, old.Archive, &other, archiveKeys, "archive.")
	}
	return &now, m.Changes
}

// A merger merges one config into another.
type merger struct {
	Changes
	wanted *Config
}

// mergeSection notes what differs between two states of a section, and gives now the values of
// old where a change needs a restart.
func mergeSection[T any](m *merger, old, now *T, keys []key[T], before string) {
	for _, k := range keys {
		if k.of == nil || same(k.of(old), k.of(now)) {
			continue
		}
		m.add(before+k.path, before+k.path)
		if slices.Contains(restarts, before+k.path) {
			copyAll(k.of(now), k.of(old))
		}
	}
}

// tls takes back a change that turns TLS on or off at the clients' port, which is open, or
// lets the certificate come from elsewhere: files or an ACME server.
func (m *merger) tls(old, now *Config) {
	if old.TLS.Files() == now.TLS.Files() && old.TLS.ACME.On() == now.TLS.ACME.On() {
		return
	}
	now.TLS = old.TLS
	m.Live = slices.DeleteFunc(m.Live, func(path string) bool {
		turned := strings.HasPrefix(path, "tls.")
		if turned {
			m.Restart = append(m.Restart, path)
		}
		return turned
	})
}

// registries merges the registries.
func (m *merger) registries(old, now *Config) {
	for i := range now.Registries {
		one := &now.Registries[i]
		was, known := old.Registry(one.Host)
		m.registry(&was, one, old, known)
	}
	for _, was := range old.Registries {
		if _, stays := now.Registry(was.Host); !stays {
			m.Live = append(m.Live, "registries."+was.Host)
		}
	}
}

// registry merges one registry. One that is new begins with what the node does for any other.
func (m *merger) registry(was, one *Registry, old *Config, known bool) {
	path := "registries." + one.Host
	if !known {
		m.Live = append(m.Live, path)
	}
	moved := storeOf(was.CacheDir) != storeOf(one.CacheDir)
	for _, k := range registryKeys {
		name := "registries.<host>." + k.path
		if same(k.of(was), k.of(one)) {
			continue
		}
		restart := slices.Contains(restarts, name) || moved && k.path == "cache_max_size" // which is of the store
		inherited := k.shared && same(k.of(was), k.of(&old.Defaults)) && same(k.of(one), k.of(&m.wanted.Defaults)) && m.has("defaults."+k.path)
		switch {
		case inherited, !known && !restart:
		case restart:
			m.Restart = append(m.Restart, path+"."+k.path)
		default:
			m.Live = append(m.Live, path+"."+k.path)
		}
		if restart {
			copyAll(k.of(one), k.of(was))
		}
	}
}

// has reports whether a change of the key is noted.
func (m *merger) has(path string) bool {
	return slices.Contains(m.Live, path) || slices.Contains(m.Restart, path)
}

// cluster merges the cluster's section. A node does not join or leave a cluster meanwhile.
func (m *merger) cluster(old, now *Cluster) *Cluster {
	if old == nil || now == nil {
		if old != now {
			m.Restart = append(m.Restart, "cluster")
		}
		return old
	}
	merged := *now
	mergeSection(m, old, &merged, clusterKeys, "cluster.")
	if (len(old.Secrets) == 0) != (len(merged.Secrets) == 0) {
		m.Live = slices.DeleteFunc(m.Live, func(path string) bool { return path == "cluster.secrets" })
		m.Restart = append(m.Restart, "cluster.secrets")
		merged.Secrets = old.Secrets
	}
	return &merged
}

// same reports whether two sets of fields have the same values. A list that is not set is an
// empty one.
func same(a, b []any) bool {
	for i := range a {
		x, y := reflect.ValueOf(a[i]).Elem(), reflect.ValueOf(b[i]).Elem()
		if x.Kind() == reflect.Slice && x.Len()+y.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(x.Interface(), y.Interface()) {
			return false
		}
	}
	return true
}

// copyAll copies what the pointers in from point to.
func copyAll(to, from []any) {
	for i := range to {
		reflect.ValueOf(to[i]).Elem().Set(reflect.ValueOf(from[i]).Elem())
	}
}
