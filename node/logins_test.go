package node

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oci-proxy/node/config"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A cloud is where logins come from that do not last: a program that prints what is in a file,
// as a command does and as a credential helper does.
type cloud struct{ dir string }

func newCloud(t *testing.T) cloud {
	t.Helper()
	c := cloud{t.TempDir()}
	text := fmt.Sprintf("#!/bin/sh\ncd %q && echo run >> runs && cat said\n", c.dir)
	if err := os.WriteFile(c.program(), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c cloud) program() string { return filepath.Join(c.dir, "login") }

// says is what the program prints from now on; nothing makes it fail.
func (c cloud) says(t *testing.T, text string) {
	t.Helper()
	if text == "" {
		_ = os.Remove(filepath.Join(c.dir, "said"))
		return
	}
	testkit.Replace(t, filepath.Join(c.dir, "said"), text)
}

// runs is how often the program ran.
func (c cloud) runs(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "runs"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "run")
}

func aLogin(user, password string) string {
	return fmt.Sprintf(`{"username":%q,"password":%q,"expires_in":43200}`, user, password)
}

// pull pulls an image, a tag and a list of up through p.
func pull(t *testing.T, p *proxy, up *upstreamtest.Registry, tag string) {
	t.Helper()
	img := up.PutImage(repo, tag, random(uint64(len(tag)), 1000))
	for _, path := range []string{"/v2/" + repo + "/manifests/" + tag, blobPath(img.Layers[0]), "/v2/" + repo + "/tags/list"} {
		p.get(path).want(t, http.StatusOK)
	}
}

// A login that a command gives is used, and replaced when the registry refuses it. No pull fails.
func TestACommandGivesTheLogin(t *testing.T) {
	t.Parallel()
	for kind, option := range map[string]upstreamtest.Option{
		"Basic": upstreamtest.Basic("AWS", "first"), "tokens": upstreamtest.Bearer(upstreamtest.BearerAuth{User: "AWS", Password: "first"}),
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			up, c := upstreamtest.New(t, option), newCloud(t)
			c.says(t, aLogin("AWS", "first"))
			p := newProxy(t, up, settings{registry: fmt.Sprintf("auth: {exec: [%q, get]}", c.program())})
			pull(t, p, up, "v1")
			pull(t, p, up, "v1.1")
			if n := c.runs(t); n != 1 {
				t.Errorf("%d runs for one login", n)
			}
			c.says(t, aLogin("AWS", "second"))
			up.SetPassword("second")
			up.RevokeTokens()
			pull(t, p, up, "v1.1.1")
			if n := c.runs(t); n != 2 {
				t.Errorf("%d runs for two logins", n)
			}
			if got := p.get("/_/health"); !strings.Contains(string(got.body), `"healthy"`) {
				t.Errorf("health: %s", got.body)
			}
			if one, _ := p.node.cfg.Registry(up.Host()); !one.Private {
				t.Error("a registry with a login is not private")
			}
			if log := p.log.String(); strings.Contains(log, "second") || !strings.Contains(log, "login refused; trying again with the new one") {
				t.Error("the log holds a password, or not what happened")
			}
		})
	}
}

// A wrong login does not run the command at each pull.
func TestAWrongLoginOfACommand(t *testing.T) {
	t.Parallel()
	up, c := upstreamtest.New(t, upstreamtest.Basic("AWS", "right")), newCloud(t)
	up.PutImage(repo, "v1", random(1, 1000))
	c.says(t, aLogin("AWS", "wrong"))
	p := newProxy(t, up, settings{registry: fmt.Sprintf("auth: {exec: [%q]}", c.program())})
	for range 10 {
		p.get("/v2/"+repo+"/manifests/v1").wantError(t, http.StatusForbidden, "DENIED")
	}
	if n := c.runs(t); n > 3 {
		t.Errorf("%d runs for 10 pulls", n)
	}
}

// While the command fails, the error, the log and health say so, and not what it printed. What
// is cached is served.
func TestACommandThatFails(t *testing.T) {
	t.Parallel()
	up, c := upstreamtest.New(t, upstreamtest.Basic("AWS", "first")), newCloud(t)
	dir := t.TempDir()
	s := settings{dir: dir, registry: fmt.Sprintf("auth: {exec: [%q]}", c.program())}
	c.says(t, aLogin("AWS", "first"))
	p := newProxy(t, up, s)
	pull(t, p, up, "v1")
	up.PutImage(repo, "v2", random(2, 1000))
	p.close()
	c.says(t, "")
	p = newProxy(t, up, s)
	p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	got := p.get("/v2/" + repo + "/manifests/v2")
	got.wantError(t, http.StatusBadGateway, "UNAVAILABLE")
	if !strings.Contains(string(got.body), "this node's login there cannot be had; its log says why") || strings.Contains(string(got.body), c.dir) {
		t.Errorf("%s", got.body)
	}
	health := string(p.get("/_/health").body)
	for _, text := range []string{health, p.log.String()} {
		if !strings.Contains(text, "registries."+up.Host()+".auth.exec") || !strings.Contains(text, "exit status 1; run it as the node's user to see why") {
			t.Errorf("neither health nor log may be silent: %s", text)
		}
	}
}

// A docker config gives the login: its own, a credential helper's, an identity token.
func TestADockerConfigGivesTheLogin(t *testing.T) {
	c := newCloud(t)
	helper := filepath.Join(c.dir, "docker-credential-cloud")
	if err := os.Rename(c.program(), helper); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", c.dir+":"+os.Getenv("PATH"))
	tokens := upstreamtest.Bearer(upstreamtest.BearerAuth{User: "u", Password: "p", Identity: "refresh"})
	for name, one := range map[string]struct {
		option       upstreamtest.Option
		config, says string
	}{
		"its own":                   {upstreamtest.Basic("u", "p"), `{"auths":{"HOST":{"auth":"dTpw"}}}`, ""},
		"a helper's":                {tokens, `{"credHelpers":{"HOST":"cloud"}}`, `{"ServerURL":"HOST","Username":"u","Secret":"p"}`},
		"an identity token":         {tokens, `{"auths":{"HOST":{"auth":"MDAwOg==","identitytoken":"refresh"}}}`, ""},
		"a helper's identity token": {tokens, `{"credsStore":"cloud"}`, `{"ServerURL":"HOST","Username":"<token>","Secret":"refresh"}`},
	} {
		t.Run(name, func(t *testing.T) {
			up := upstreamtest.New(t, one.option)
			file := filepath.Join(t.TempDir(), "config.json")
			write(t, file, strings.ReplaceAll(one.config, "HOST", up.Host()))
			if one.says != "" {
				c.says(t, strings.ReplaceAll(one.says, "HOST", up.Host()))
			}
			p := newProxy(t, up, settings{registry: fmt.Sprintf("auth: {docker_config: %q}", file)})
			pull(t, p, up, "v1")
		})
	}
}

// A registry that is never asked needs no login.
func TestAnOfflineRegistryRunsNoCommand(t *testing.T) {
	t.Parallel()
	up, c := upstreamtest.New(t), newCloud(t)
	c.says(t, "")
	p := newProxy(t, up, settings{registry: fmt.Sprintf("offline: true, auth: {exec: [%q]}", c.program())})
	p.get("/v2/"+repo+"/manifests/v1").wantError(t, http.StatusGatewayTimeout, "UNAVAILABLE")
	if health := string(p.get("/_/health").body); c.runs(t) != 0 || !strings.Contains(health, `"healthy"`) {
		t.Errorf("%d runs, %s", c.runs(t), health)
	}
}

// Each of several accounts may have a command of its own.
func TestAnAccountOfACommand(t *testing.T) {
	t.Parallel()
	up, c := upstreamtest.New(t, upstreamtest.Basic("AWS", "first")), newCloud(t)
	c.says(t, aLogin("AWS", "first"))
	p := newProxy(t, up, settings{registry: fmt.Sprintf("auth: {username: robot, password: gone}, accounts: [{exec: [%q]}]", c.program())})
	pull(t, p, up, "v1")
}

// check -live tries the command.
func TestALookAtACommand(t *testing.T) {
	t.Parallel()
	up, c := upstreamtest.New(t, upstreamtest.Basic("AWS", "first")), newCloud(t)
	text := settings{registry: fmt.Sprintf("auth: {exec: [%q]}", c.program())}.text(t, up)
	c.says(t, aLogin("AWS", "first"))
	lookFor(t, text, up.Host(), Fine, "takes the login")
	c.says(t, aLogin("AWS", "second"))
	lookFor(t, text, up.Host(), Wrong, "access denied")
	c.says(t, "")
	lookFor(t, text, up.Host(), Wrong, `the command "`+c.program()+`" failed: exit status 1`)
}

// lookFor fails unless the look at a registry says that.
func lookFor(t *testing.T, text, registry, level, says string) {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := Look(t.Context(), cfg, func(context.Context) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Keys[0] == "registries."+registry {
			if f.Level != level || !strings.Contains(f.Text, says) {
				t.Errorf("%s: %s, want %s: …%s…", f.Level, f.Text, level, says)
			}
			return
		}
	}
	t.Errorf("nothing about %s", registry)
}
