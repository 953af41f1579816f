package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/cache"
	"oci-proxy/node/health"
	"oci-proxy/node/reload"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// wantCodes fails the test unless that is wrong with the node, and operators and Prometheus hear
// of it too.
func wantCodes(t *testing.T, n *Node, want ...health.Code) {
	t.Helper()
	wrong := n.reports.broken()
	if got := health.CodesOf(wrong); !slices.Equal(got, want) {
		t.Errorf("codes %q, want %q: %v", got, want, errors.Join(wrong...))
	}
	for i, text := range reasons(wrong, true) {
		if !strings.HasPrefix(text, string(health.CodeOf(wrong[i]))+": ") {
			t.Errorf("operators hear %q", text)
		}
	}
	for _, code := range health.Codes() {
		if n.reports.snapshot().Broken[string(code)] != slices.Contains(want, code) {
			t.Errorf("the metric of %s is wrong", code)
		}
	}
}

func TestFilesThatAreBadAreToldByCode(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	files := newPair(t, "one.example")
	users, password := filepath.Join(t.TempDir(), "users"), filepath.Join(t.TempDir(), "password")
	write(t, users, "bob:$2y$04$uo0ueOqDnrtVV6x8DDxdvOrOVSAEkxe0oUZxWDoPSN/tTUhIAQ3gG\n")
	write(t, password, "first")
	synctest.Test(t, func(t *testing.T) {
		n, _ := newNodeOf(t, fmt.Sprintf("defaults: {cache_dir: %q}\n%s\nauth: {htpasswd_file: %q}\nregistries: {reg.example.com: {auth: {username: u, password_file: %q}}}",
			t.TempDir(), files.config(), users, password))
		defer func() {
			if err := n.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		wantCodes(t, n)
		for _, c := range []struct {
			file, bad, good string
			code            health.Code
		}{
			{users, "no line of a user", "bob:$2y$04$uo0ueOqDnrtVV6x8DDxdvOrOVSAEkxe0oUZxWDoPSN/tTUhIAQ3gG\n", health.Auth},
			{password, "", "second", health.LoginSource},
			{files.cert, "no PEM", "", health.TLS},
		} {
			testkit.Replace(t, c.file, c.bad)
			time.Sleep(reload.Every) // in the bubble
			n.reports.broken()       // begins to look at files in the background
			synctest.Wait()
			wantCodes(t, n, c.code)
			if c.good == "" {
				break
			}
			testkit.Replace(t, c.file, c.good)
			time.Sleep(reload.Every) // in the bubble
			n.reports.broken()
			synctest.Wait()
			wantCodes(t, n)
		}
		for left, expires := range map[time.Duration]bool{8 * day: false, 6 * day: true, -day: true} {
			cert, key := makePairFor(t, "two.example", time.Now().Add(-90*day), time.Now().Add(left))
			testkit.Replace(t, files.cert, cert)
			testkit.Replace(t, files.key, key)
			time.Sleep(reload.Every) // in the bubble
			var want []health.Code
			if expires {
				want = []health.Code{health.CertificateExpiry}
			}
			wantCodes(t, n, want...)
		}
	})
}

func TestWhenACertificateIsToldOf(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Now()
	for name, c := range map[string]struct {
		since, until time.Duration
		want         string // "": well
	}{
		"a year":                 {-100 * day, 265 * day, ""},
		"8 days of 90":           {-82 * day, 8 * day, ""},
		"6 days of 90":           {-84 * day, 6 * day, "expires soon"},
		"3 days of 6":            {-3 * day, 3 * day, ""},
		"1 day of 6":             {-5 * day, day, "expires soon"},
		"half of a day":          {-day / 4, day / 4, ""},
		"over":                   {-90 * day, -time.Second, "has expired"},
		"the clock is not right": {day, 90 * day, "not valid before"},
	} {
		got := expiry(&tls.Certificate{Leaf: &x509.Certificate{NotBefore: now.Add(c.since), NotAfter: now.Add(c.until)}}, now)
		if (got == nil) != (c.want == "") || got != nil && !strings.Contains(got.Error(), c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDirectoriesAndTheirDisksHaveCodes(t *testing.T) {
	t.Parallel()
	for want, err := range map[health.Code]error{
		health.DiskFull: fmt.Errorf("%w: at most 7 bytes", cache.ErrDiskFull), health.CacheDir: errors.New("input/output error"),
	} {
		if got := ofDirectory("/srv/cache", err); health.CodeOf(got) != want || !strings.Contains(got.Error(), "/srv/cache: ") {
			t.Errorf("%v: %v", want, got)
		}
	}
}

// A registry that refuses the login of the config is told: in /_/health, by its metric and in
// the log.
func TestARefusedLoginIsTold(t *testing.T) {
	t.Parallel()
	for kind, option := range map[string]upstreamtest.Option{
		"Basic": upstreamtest.Basic("robot", "right"), "tokens": upstreamtest.Bearer(upstreamtest.BearerAuth{User: "robot", Password: "right"}),
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t, option)
			up.PutImage(repo, "v1", random(1, 100))
			p := newProxy(t, up, settings{registry: "auth: {username: robot, password: old-sesame}"})
			wantCodes(t, p.node)
			for range 3 {
				p.get("/v2/"+repo+"/manifests/v1").wantError(t, http.StatusForbidden, "DENIED")
			}
			wantCodes(t, p.node, health.RegistryLogin)
			body := string(p.get("/_/health").body)
			if !strings.Contains(body, `"registry_login: registries.`+up.Host()+`.auth: the registry refuses this login`) || strings.Contains(body, "sesame") {
				t.Errorf("health: %s", body)
			}
			if n := p.log.Count(`"level":"WARN","msg":"login refused: correct it in the config","registry":"` + up.Host()); n != 1 || p.log.Has("sesame") {
				t.Errorf("the log tells it %d times: %s", n, p.log)
			}
			up.SetPassword("old-sesame")
			p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
			wantCodes(t, p.node)
		})
	}
}

func TestTheArchiveHasACode(t *testing.T) {
	t.Parallel()
	up, cold := upstreamtest.New(t), newColdStore(t)
	cold.fail(true)
	p := newProxy(t, up, cold.settings(""))
	p.get(blobPath(up.PutBlob(repo, random(6, 5000)))).want(t, http.StatusOK)
	wantCodes(t, p.node, health.Archive)
}

// The log hears of each kind of trouble once, and of its end.
func TestTroubleIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var log testkit.Log
	var wrong []error
	l := &troubleLog{broken: func() []error { return wrong }, log: slog.New(slog.NewTextHandler(&log, nil))}
	l.look()
	wrong = []error{health.Because(health.Seed, errors.New("one")), health.Because(health.Seed, errors.New("two")), health.Because(health.Alone, errors.New("alone"))}
	for range 3 {
		l.look()
	}
	if log.Count("level=WARN msg=degraded code=seed error=one") != 1 || log.Count("msg=degraded") != 2 {
		t.Errorf("the log: %s", &log)
	}
	wrong = wrong[2:]
	l.look()
	l.look()
	if log.Count(`level=INFO msg="no longer degraded" code=seed`) != 1 || log.Count("no longer") != 1 {
		t.Errorf("the log: %s", &log)
	}
	wrong = []error{health.Because(health.Seed, errors.New("again"))}
	l.look()
	if !log.Has("code=seed error=again") || !log.Has(`"no longer degraded" code=alone`) {
		t.Errorf("the log: %s", &log)
	}
}

// Members of two versions are told of.
func TestMeshTellsOfAForgottenUpgrade(t *testing.T) {
	t.Parallel()
	c := formCluster(t, 0, upstreamtest.New(t), func(int) form { return form{} })
	c.seams.SkewTime = time.Nanosecond
	for i := range 2 {
		c.seams.version = fmt.Sprint("v", i+1)
		c.join()
	}
	c.awaitMembers(2)
	c.await("the versions are told", func() bool {
		return slices.Equal(health.CodesOf(c.nodes[0].node.cluster.Health()), []health.Code{health.VersionSkew})
	})
	if body := string(c.get(0, "/_/health").body); !strings.Contains(body, `"version_skew: members run other versions than this node (v1): node-1 (v2): finish the upgrade"`) {
		t.Errorf("health: %s", body)
	}
}
