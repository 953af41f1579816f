package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/config"
	"oci-proxy/node/health"
	"oci-proxy/transfer/upstreamtest"
)

// A reloader is a proxy whose config can be written anew.
type reloader struct {
	*proxy
	settings
	text  atomic.Pointer[string]
	level slog.LevelVar
}

// newReloader serves a node of those settings in front of up.
func newReloader(t *testing.T, up *upstreamtest.Registry, s settings) *reloader {
	t.Helper()
	s.dir = t.TempDir()
	r := &reloader{proxy: newProxy(t, up, s), settings: s}
	r.node.ReloadFrom(Source{Level: &r.level, Load: func() (*config.Config, error) {
		return config.Parse("test.yaml", []byte(*r.text.Load()), nil)
	}})
	return r
}

// reload writes the settings and has them read. It returns the answer.
func (r *reloader) reload(s settings, header ...string) answer {
	r.t.Helper()
	s.dir = r.dir
	text := s.text(r.t, r.up)
	if strings.Contains(s.top, "log_level") { // the tests' own is left out
		text = strings.Replace(text, "log_level: debug\n", "", 1)
	}
	r.text.Store(&text)
	return r.do(http.MethodPost, "/_/reload", append(header, "Content-Type", "application/json")...)
}

// takes fails the test unless a reload takes the settings and names those keys.
func (r *reloader) takes(s settings, live, restart []string, header ...string) {
	r.t.Helper()
	line := func(keys []string) string {
		if len(keys) == 0 {
			return "[]"
		}
		return `["` + strings.ReplaceAll(strings.Join(keys, `","`), "UP", r.up.Host()) + `"]`
	}
	a := r.reload(s, header...)
	a.want(r.t, http.StatusOK)
	if want := fmt.Sprintf(`{"took_effect":%s,"needs_restart":%s}`+"\n", line(live), line(restart)); string(a.body) != want {
		r.t.Errorf("the answer is %s, want %s", a.body, want)
	}
}

// A pull goes on while the config changes, and what changed counts from then on.
func TestReloadCutsNoPull(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	const size = 3 << 20
	d := up.PutBlob(repo, random(1, size))
	r := newReloader(t, up, settings{})
	release := halve(up, d.String(), size)
	defer release()
	resp := r.send(http.MethodGet, blobPath(d))
	defer func() { _ = resp.Body.Close() }()
	sum := sha256.New()
	if _, err := io.CopyN(sum, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	deny := settings{
		top: "log_level: warn\nport: 81\naccess: [{deny: ['**']}]", registry: "auth: {username: robot, password: pw7}, upstream_requests: 2, upstream_rate: 100m, tag_ttl: 1h, upstream_connections: 2",
	}
	r.takes(deny, []string{
		"log_level", "access", "registries.UP.auth.username", "registries.UP.auth.password", "registries.UP.private", "registries.UP.tag_ttl", "registries.UP.upstream_requests", "registries.UP.upstream_rate",
	}, []string{"port", "registries.UP.upstream_connections"})
	r.do(http.MethodHead, blobPath(d)).want(t, http.StatusForbidden)
	release()
	if _, err := io.Copy(sum, resp.Body); err != nil || digest.NewDigest(digest.SHA256, sum) != d {
		t.Errorf("the pull under way ended with %v", err)
	}
	if r.level.Level() != slog.LevelWarn {
		t.Errorf("the log's level is %s", r.level.Level())
	}
	r.takes(deny, nil, []string{"port", "registries.UP.upstream_connections"})
}

// Each kind of change is felt by the next request.
func TestReloadIsFelt(t *testing.T) {
	t.Parallel()
	up, second := upstreamtest.New(t, upstreamtest.Basic("robot", "pw7")), upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 1000))
	second.PutImage(repo, "v2", random(2, 1000))
	r := newReloader(t, up, settings{})
	v1, bob := "/v2/"+repo+"/manifests/v1", basic("bob", "x7")
	login := "auth: {username: robot, password: pw7}"

	r.get(v1).want(t, http.StatusForbidden) // the registry wants a login
	r.takes(settings{registry: login}, []string{"registries.UP.auth.username", "registries.UP.auth.password", "registries.UP.private"}, nil)
	r.get(v1).want(t, http.StatusOK, "Docker-Content-Digest", img.Manifest.String())

	other := "/v2/" + second.Host() + "/" + repo + "/manifests/v2"
	if a := r.get(other); a.StatusCode == http.StatusOK {
		t.Error("a registry that nobody configured is asked over plain HTTP")
	}
	more := "  '" + second.Host() + "': {insecure: true, alias: [two]}"
	r.takes(settings{registry: login, more: more}, []string{"registries." + second.Host()}, nil)
	r.get(other).want(t, http.StatusOK)
	r.get("/v2/two/"+repo+"/manifests/v2").want(t, http.StatusOK)

	r.takes(settings{more: more, registry: login, top: "whitelist_mode: true"}, []string{"whitelist_mode"}, nil)
	r.get("/v2/quay.io/x/y/manifests/v1").wantError(t, http.StatusForbidden, "DENIED")
	r.takes(settings{registry: login, top: "whitelist_mode: true"}, []string{"registries." + second.Host()}, nil)
	r.get(other).wantError(t, http.StatusForbidden, "DENIED")

	users := "auth: {username: bob, password: x7}\nallowed_hosts: [proxy.example.com]\nbase_url: https://proxy.example.com"
	r.takes(settings{registry: login, top: users}, []string{"whitelist_mode", "base_url", "allowed_hosts", "auth.username", "auth.password", "auth.admins"}, nil)
	r.get(v1).want(t, http.StatusUnauthorized)
	r.get(v1, bob...).want(t, http.StatusOK)
	r.takes(settings{registry: login, top: strings.Replace(users, "x7", "x7, anonymous_from: [127.0.0.0/8]", 1)}, []string{"auth.anonymous_from"}, nil, bob...)
	r.get(v1).want(t, http.StatusOK)
	r.get("/_/stats").want(t, http.StatusUnauthorized)
	r.takes(settings{registry: login, top: strings.Replace(users, "x7", "x8", 1)}, []string{"auth.password", "auth.anonymous_from"}, nil, bob...)
	r.get(v1, bob...).want(t, http.StatusUnauthorized)
	r.get(v1, basic("bob", "x8")...).want(t, http.StatusOK)

	up.Down()
	r.takes(settings{registry: login + ", offline: true"}, []string{"base_url", "allowed_hosts", "auth.username", "auth.password", "auth.admins", "registries.UP.offline"}, nil, basic("bob", "x8")...)
	r.get(v1).want(t, http.StatusOK, "Warning", "")
}

// A bad config is refused as a whole, health says so, and the next good one counts.
func TestReloadRefusesABadConfigAsAWhole(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutImage(repo, "v1", random(1, 1000))
	r := newReloader(t, up, settings{})
	path := "/v2/" + repo + "/manifests/v1"
	for name, bad := range map[string]settings{
		"a key":         {top: "access: [{deny: ['**']}]\nprot: 80"},
		"a certificate": {top: "access: [{deny: ['**']}]", registry: "ca_file: /none"},
		"users":         {top: "access: [{deny: ['**']}]\nauth: {htpasswd_file: /none}"},
		"a password":    {top: "access: [{deny: ['**']}]", registry: "auth: {username: u, password_file: /none}"},
	} {
		a := r.reload(bad)
		a.wantError(t, http.StatusConflict, "UNSUPPORTED")
		if !strings.Contains(string(a.body), "test.yaml:") {
			t.Errorf("%s: the answer does not say where: %s", name, a.body)
		}
		r.get(path).want(t, http.StatusOK)
		if h := r.get("/_/health"); !strings.Contains(string(h.body), "config: it was not reloaded, and the one before stays in force: test.yaml:") {
			t.Errorf("%s: health says %s", name, h.body)
		}
		wantCodes(t, r.node, health.Config)
	}
	if l := r.line(`"action":"reload"`); l["status"] != 409.0 {
		t.Errorf("line %v", l)
	}
	r.takes(settings{}, nil, nil)
	if h := r.get("/_/health"); !strings.Contains(string(h.body), "healthy") {
		t.Errorf("health says %s", h.body)
	}
	p := newProxy(t, up, settings{})
	if _, err := p.node.Reload(t.Context()); !errors.Is(err, ErrNoSource) {
		t.Error(err)
	}
}

// Logins that do not last come and go by a reload. One that stays is not got again for it.
func TestReloadOfLoginsThatDoNotLast(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Basic("AWS", "first"))
	first, second := newCloud(t), newCloud(t)
	first.says(t, aLogin("AWS", "first"))
	second.says(t, aLogin("AWS", "second"))
	r := newReloader(t, up, settings{})
	exec := func(c cloud, more string) settings {
		return settings{registry: fmt.Sprintf("auth: {exec: [%q]}%s", c.program(), more)}
	}
	r.takes(exec(first, ""), []string{"registries.UP.auth.exec", "registries.UP.private"}, nil)
	pull(t, r.proxy, up, "v1")
	r.takes(exec(first, ", tag_ttl: 1h"), []string{"registries.UP.tag_ttl"}, nil)
	pull(t, r.proxy, up, "v2")
	if n := first.runs(t); n != 1 {
		t.Errorf("the command of a login that stays ran %d times", n)
	}
	up.SetPassword("second")
	r.takes(exec(second, ", tag_ttl: 1h"), []string{"registries.UP.auth.exec"}, nil)
	pull(t, r.proxy, up, "v3")
	if n := first.runs(t); n != 1 {
		t.Errorf("the command that is configured no more ran %d times", n)
	}
	docker := filepath.Join(t.TempDir(), "config.json")
	write(t, docker, fmt.Sprintf(`{"auths": {%q: {"auth": "QVdTOnRoaXJk"}}}`, up.Host())) // AWS:third
	up.SetPassword("third")
	r.takes(settings{registry: fmt.Sprintf("auth: {docker_config: %q}", docker)}, []string{"registries.UP.auth.exec", "registries.UP.auth.docker_config", "registries.UP.tag_ttl"}, nil)
	pull(t, r.proxy, up, "v4")
	if got := string(r.get("/_/health").body); !strings.Contains(got, "healthy") {
		t.Errorf("health says %s", got)
	}
}

// What a node's new config says of a registry is heard by the other members: they ask that one
// which has the login, and treat the content as private.
func TestMeshHearsOfAReload(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Basic("robot", "pw7"))
	c := formCluster(t, 2, up, func(int) form { return form{} })
	b := c.blobOf(1, mib)
	c.get(1, blobPath(b.Digest)).want(t, http.StatusForbidden) // nobody has the login
	cfg := c.nodes[0].config(form{settings: settings{registry: "auth: {username: robot, password: pw7}"}})
	c.nodes[0].node.ReloadFrom(Source{Load: func() (*config.Config, error) { return cfg, nil }})
	if _, err := c.nodes[0].node.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.await("the other member hears of it", func() bool { return c.nodes[1].node.cluster.Private(up.Host()) })
	c.get(1, blobPath(b.Digest)).want(t, http.StatusOK)
}

// The bounds of stores follow the config.
func TestReloadChangesTheBoundsOfStores(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	r := newReloader(t, up, settings{defaults: "cache_max_size: 10m"})
	r.takes(settings{defaults: "cache_max_size: 20m, max_idle: 30d", registry: "cache_max_size: 2m"}, []string{"defaults.cache_max_size", "defaults.max_idle", "registries.UP.cache_max_size"}, nil)
	shard := r.node.registries.Shards()[0]
	if own := r.node.registries.options(nil)[r.node.registries.home]; shard.Bound() != 20*mib || own.Shares[up.Host()] != 2*mib || r.node.registries.maxIdle(up.Host()) != 720*time.Hour {
		t.Errorf("the bound is %d, that of the share %d", shard.Bound(), own.Shares[up.Host()])
	}
	up.PutImage(repo, "v1", random(1, 1000))
	r.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	if s := shard.Stats()[up.Host()]; s.Bound != 2*mib {
		t.Errorf("the share's bound is %d", s.Bound)
	}
}
