package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every key either takes effect at a reload or says that it needs a restart.
func TestEveryKeySaysWhenItTakesEffect(t *testing.T) {
	t.Parallel()
	var all []string
	for _, k := range Keys() {
		all = append(all, k.Path)
		if live, restart := slices.Contains(reloads, k.Path), slices.Contains(restarts, k.Path); live == restart {
			t.Errorf("%s: put it into one of reloads and restarts in effects.go (it is in reloads: %v, in restarts: %v)", k.Path, live, restart)
		}
	}
	for _, path := range slices.Concat(reloads, restarts) {
		if !slices.Contains(all, path) {
			t.Errorf("%s in effects.go is no key", path)
		}
	}
}

// change gives what p points to another value.
func change(t *testing.T, p any) {
	t.Helper()
	switch v := reflect.ValueOf(p).Elem(); v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		t.Fatalf("a key sets a %s", v.Kind())
	}
}

// changing returns a config in which one key of a section has another value.
func changing[T any](t *testing.T, c *Config, section *T, k key[T]) *Config {
	t.Helper()
	for _, p := range k.of(section) {
		change(t, p)
	}
	return c
}

// whole is a config with all sections.
const whole = `
registries: {a.io: {cache_dir: /x}}
cluster: {name: n, secret: 0f3a9c17e8b24d65}
archive: {endpoint: 'https://s3.example.com', bucket: bucket}
`

// Each key of the tables is found by Merge, and is as wanted or as before.
func TestMergeFindsEachKey(t *testing.T) {
	t.Parallel()
	parse := func() *Config {
		c := must(t, whole)
		c.TLS = TLS{CertFile: "cert", KeyFile: "key", ACME: ACME{Domains: []string{"a.example.com"}}}
		return c
	}
	wanted := map[string]*Config{}
	for _, k := range configKeys {
		if c := parse(); k.of != nil {
			wanted[k.path] = changing(t, c, c, k)
		}
	}
	for _, k := range shared(registryKeys) {
		c := parse()
		wanted["defaults."+k.path] = changing(t, c, &c.Defaults, k)
	}
	for _, k := range registryKeys {
		c := parse()
		wanted["registries.a.io."+k.path] = changing(t, c, &c.Registries[0], k)
	}
	for _, k := range clusterKeys {
		c := parse()
		wanted["cluster."+k.path] = changing(t, c, c.Cluster, k)
	}
	for _, k := range archiveKeys {
		c := parse()
		wanted["archive."+k.path] = changing(t, c, c.Archive, k)
	}
	for path, want := range wanted {
		old := parse()
		now, changes := Merge(old, want)
		restart := slices.Contains(restarts, strings.ReplaceAll(path, "a.io", "<host>"))
		list, like := changes.Live, want
		if restart {
			list, like = changes.Restart, old
		}
		if strings.HasPrefix(path, "archive.") {
			like = old
		}
		if !slices.Equal(list, []string{path}) || len(changes.Live)+len(changes.Restart) != 1 {
			t.Errorf("%s: found %+v", path, changes)
		}
		if !reflect.DeepEqual(now, like) {
			t.Errorf("%s: the result is neither as before nor as wanted", path)
		}
		if _, none := Merge(want, want); none.Any() {
			t.Errorf("%s: without a change %+v is found", path, none)
		}
	}
}

func TestChangesAreNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		old, now      string
		live, restart string
	}{
		"nothing":              {"port: 80", "port: 80\ntrusted_proxies: []", "", ""},
		"a registry comes":     {"", "registries: {a.io: {tag_ttl: 5m}}", "registries.a.io", ""},
		"a registry goes":      {"registries: {a.io: }", "", "registries.a.io", ""},
		"one with a directory": {"", "registries: {a.io: {cache_dir: /x, mirrors: [b.io]}}", "registries.a.io", "registries.a.io.mirrors registries.a.io.cache_dir"},
		"a login":              {"registries: {a.io: }", "registries: {a.io: {auth: {username: u, password: x7}}}", "registries.a.io.auth.username registries.a.io.auth.password registries.a.io.private", ""},
		"the defaults":         {"registries: {a.io: , b.io: {insecure: true}}", "defaults: {insecure: true}\nregistries: {a.io: , b.io: {insecure: true}}", "defaults.insecure", ""},
		"a registry's own":     {"registries: {a.io: {max_idle: 1h}}", "defaults: {max_idle: 2h}\nregistries: {a.io: }", "defaults.max_idle registries.a.io.max_idle", ""},
		"a size":               {"", "defaults: {cache_max_size: 20g}", "defaults.cache_max_size", ""},
		"a share":              {"registries: {a.io: }", "registries: {a.io: {cache_max_size: 2g}}", "registries.a.io.cache_max_size", ""},
		"a store of its own":   {"registries: {a.io: }", "registries: {a.io: {cache_max_size: 2g, cache_dir: /x}}", "", "registries.a.io.cache_dir registries.a.io.cache_max_size"},
		"a cluster":            {"", "cluster: {secret: 0f3a9c17e8b24d65}", "", "cluster"},
		"its secret":           {"cluster: {name: a, secret: 0f3a9c17e8b24d65}", "cluster: {name: b, secrets: [0f3a9c17e8b24d66, 0f3a9c17e8b24d65]}", "cluster.secrets", "cluster.name"},
		"its first secret":     {"cluster: {name: a, bind_addr: '127.0.0.1:1', peer_addr: '127.0.0.1:2'}", "cluster: {name: a, bind_addr: '127.0.0.1:1', peer_addr: '127.0.0.1:2', secret: 0f3a9c17e8b24d65}", "", "cluster.secrets"},
		"an archive":           {"", "archive: {endpoint: 'https://s3.example.com', bucket: bucket}", "", "archive"},
		"rules":                {"", "access: [{deny: ['a.io/**']}]", "access", ""},
	} {
		old, wanted := must(t, test.old), must(t, test.now)
		before := *old
		now, changes := Merge(old, wanted)
		if live, restart := strings.Join(changes.Live, " "), strings.Join(changes.Restart, " "); live != test.live || restart != test.restart {
			t.Errorf("%s: live %q, restart %q, want %q and %q", name, live, restart, test.live, test.restart)
		}
		if !reflect.DeepEqual(*old, before) {
			t.Errorf("%s: the old config has changed", name)
		}
		// What took effect is no change any more; what needs a restart is one again.
		if _, again := Merge(now, wanted); len(again.Live) > 0 || strings.Join(again.Restart, " ") != test.restart {
			t.Errorf("%s: a second time %+v", name, again)
		}
	}
	old, wanted := must(t, ""), must(t, "queue_timeout: 5s")
	wanted.TLS.CertFile, wanted.TLS.KeyFile = "cert", "key"
	now, changes := Merge(old, wanted)
	if now.TLS.On() || now.QueueTimeout != 5*time.Second || !slices.Equal(changes.Restart, []string{"tls.cert_file", "tls.key_file"}) || !slices.Equal(changes.Live, []string{"queue_timeout"}) {
		t.Errorf("TLS is turned on: %+v", changes)
	}
	files, other := must(t, ""), must(t, "")
	files.TLS.CertFile, files.TLS.KeyFile, other.TLS.ACME.Domains = "cert", "key", []string{"a.example.com"}
	if now, changes := Merge(files, other); now.TLS.ACME.On() || !now.TLS.Files() || len(changes.Live) > 0 || len(changes.Restart) != 3 {
		t.Errorf("the certificate comes from elsewhere: %+v", changes)
	}
	more := must(t, "")
	more.TLS.ACME.Domains = []string{"a.example.com", "b.example.com"}
	if now, changes := Merge(other, more); len(now.TLS.ACME.Domains) != 2 || !slices.Equal(changes.Live, []string{"tls.acme.domains"}) || len(changes.Restart) > 0 {
		t.Errorf("a domain is added: %+v", changes)
	}
}
