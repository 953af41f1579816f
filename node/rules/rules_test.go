package rules

import (
	"strings"
	"testing"

	"oci-proxy/node/config"
	"oci-proxy/transfer/oci"
)

// of returns the rules of a config.
func of(t *testing.T, text string) (*Rules, *config.Config) {
	t.Helper()
	cfg, err := config.Parse("c.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return New(cfg), cfg
}

// place returns where the rule is that refuses a repository to the user, "" if none does.
func place(r *Rules, u oci.User, name string) string {
	registry, repository, _ := strings.Cut(name, "/")
	err := r.Refuse(u, oci.Ref{Registry: registry, Repository: repository})
	if refusal, is := err.(*Refusal); is { //nolint:errorlint // it is returned as it is
		return refusal.Place
	}
	return ""
}

const hubHost = config.DockerHub

func TestPatterns(t *testing.T) {
	t.Parallel()
	for pattern, names := range map[string]struct{ is, not []string }{
		"**":                      {[]string{"a.io/b", "a.io/b/c/d", hubHost + "/library/x"}, nil},
		"docker.io/library/**":    {[]string{hubHost + "/library/x", hubHost + "/library/x/y"}, []string{hubHost + "/lib/x", "a.io/library/x", hubHost + "/library2/x"}},
		"Docker.IO/alpine":        {[]string{hubHost + "/library/alpine"}, []string{hubHost + "/org/alpine", hubHost + "/library/alpine2"}},
		"docker.io/*":             {[]string{hubHost + "/library/alpine"}, []string{hubHost + "/org/alpine"}},
		"index.docker.io/org/*":   {[]string{hubHost + "/org/a"}, []string{hubHost + "/org/a/b", hubHost + "/org"}},
		"*/org/*":                 {[]string{"a.io/org/x", hubHost + "/org/x"}, []string{"a.io/org/x/y", "a.io/orgs/x"}},
		"**/secret/**":            {[]string{"a.io/secret", "a.io/b/secret/c/d", "a.io/secret/x"}, []string{"a.io/secrets/x", "a.io/x"}},
		"**/**/x":                 {[]string{"a.io/x", "a.io/b/c/x"}, []string{"a.io/x/y", "a.io/xx"}},
		"*.corp.io/app-*":         {[]string{"r.corp.io/app-1", "a.b.corp.io/app-"}, []string{"corp.io/app-1", "r.corp.io/app", "r.corp.io/app-1/x", "rxcorp.io/app-1"}},
		"a.io/**/b/**/c":          {[]string{"a.io/b/c", "a.io/x/y/b/z/c"}, []string{"a.io/b/x", "a.io/x/c"}},
		"localhost_5000/**":       {[]string{"localhost:5000/x"}, []string{"localhost/x"}},
		"mine/x":                  {[]string{"a.io/x"}, []string{"b.io/x"}},
		"a.io:5000/x":             {[]string{"a.io:5000/x"}, []string{"a.io/x"}},
		"[2001:DB8:0::1]:5000/**": {[]string{"[2001:db8::1]:5000/x"}, nil},
	} {
		r, _ := of(t, "access: [{deny: ["+quoted(pattern)+"]}]\nregistries: {a.io: {alias: [mine]}}")
		for _, name := range names.is {
			if place(r, oci.Anonymous, name) != "c.yaml:1" {
				t.Errorf("%s does not match %s", pattern, name)
			}
		}
		for _, name := range names.not {
			if place(r, oci.Anonymous, name) != "" {
				t.Errorf("%s matches %s", pattern, name)
			}
		}
	}
}

func quoted(s string) string { return "'" + s + "'" }

const auth = "auth: {username: bob, password: x7, anonymous_from: [10.0.0.0/8]}\n"

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	t.Parallel()
	r, _ := of(t, auth+`access:
- {users: [bob], allow: [a.io/team/**]}
- {users: [eve, anonymous], deny: ["a.io/**"]}
- {allow: ["a.io/**", "docker.io/**"]}
- {users: ["*"], deny: ["**"]}
`)
	bob, eve := oci.Named("bob"), oci.Named("eve")
	for _, test := range []struct {
		user oci.User
		name string
		want string
	}{
		{bob, "a.io/team/x", ""},
		{bob, "a.io/x", ""},
		{bob, "b.io/x", "c.yaml:6"},
		{eve, "a.io/team/x", "c.yaml:4"},
		{eve, hubHost + "/library/x", ""},
		{oci.Anonymous, "a.io/x", "c.yaml:4"},
		{oci.Named("anonymous"), "a.io/x", ""}, // a login of that name
		{oci.Unknown, "a.io/team/x", "c.yaml:4"},
		{oci.Unknown, hubHost + "/library/x", ""},
		{oci.Unknown, "b.io/x", "c.yaml:6"},
		{oci.Node, "b.io/x", ""},
	} {
		if got := place(r, test.user, test.name); got != test.want {
			t.Errorf("%s, %s: %q, want %q", test.user, test.name, got, test.want)
		}
	}
}

// What is refused under one name is refused under others that lead to the same content. What
// is allowed is allowed under its own name only.
func TestOtherNamesOfTheSameContent(t *testing.T) {
	t.Parallel()
	const registries = "\nregistries: {docker.io: {mirrors: [mirror.io, 'm2.io:443']}, ghcr.io: {mirrors: [mirror.io]}}"
	r, _ := of(t, "access: [{deny: [docker.io/library/secret, ghcr.io/x]}]"+registries)
	for name, want := range map[string]string{
		hubHost + "/library/secret":              "c.yaml:1",
		hubHost + ":443/library/secret":          "c.yaml:1",
		"docker.io:443/secret":                   "c.yaml:1",
		"registry.hub.docker.com/library/secret": "c.yaml:1",
		"mirror.io/library/secret":               "c.yaml:1",
		"mirror.io:443/library/secret":           "c.yaml:1",
		"m2.io/secret":                           "c.yaml:1",
		"mirror.io/x":                            "c.yaml:1",
		"ghcr.io:80/x":                           "c.yaml:1",
		"m2.io/x":                                "",
		"mirror.io/library/other":                "",
	} {
		if got := place(r, oci.Anonymous, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	r, _ = of(t, "access: [{allow: ['docker.io/**']}, {deny: ['**']}]"+registries)
	if place(r, oci.Anonymous, "mirror.io/library/x") == "" || place(r, oci.Anonymous, "registry.hub.docker.com/library/x") == "" || place(r, oci.Anonymous, hubHost+"/library/x") != "" {
		t.Error("what is allowed under one name is allowed under another")
	}
}

func TestRulesAreReplaced(t *testing.T) {
	t.Parallel()
	r, _ := of(t, "access: [{deny: ['**']}]")
	_, open := of(t, "")
	if !r.Any() || place(r, oci.Anonymous, "a.io/x") == "" {
		t.Error("the rule does not count")
	}
	r.Use(open)
	if r.Any() || place(r, oci.Anonymous, "a.io/x") != "" {
		t.Error("the rule still counts")
	}
}

// A registry is the same with TLS's own port and without it, on either side, and there is no
// third way to write that: a port with zeros before it is none.
func TestAPortIsNoWayAroundARule(t *testing.T) {
	t.Parallel()
	r := New(&config.Config{Access: []config.AccessRule{{Users: []string{"*"}, Deny: []string{"a.example.com:443/secret/**", "b.example.com/secret/**"}, Place: "c.yaml:1"}}})
	for _, registry := range []string{"a.example.com", "a.example.com:443", "b.example.com", "b.example.com:443"} {
		if r.Refuse(oci.Anonymous, oci.Ref{Registry: registry, Repository: "secret/image"}) == nil {
			t.Errorf("%s gives what is denied", registry)
		}
	}
	names := oci.Names{Default: config.DockerHub, Hub: config.DockerHub, Canonical: config.Canonical, Known: func(string) bool { return false }}
	for _, spelling := range []string{"b.example.com:0443", "b.example.com:00443", "b.example.com_0443", "[2001:db8::1]:0443"} {
		if got, err := oci.ParsePath("/v2/"+spelling+"/secret/image/manifests/v1", "", names); err == nil {
			t.Errorf("%s is %s", spelling, got.Registry)
		}
		if got, err := oci.ParsePath("/v2/secret/image/manifests/v1", spelling, names); err == nil {
			t.Errorf("?ns=%s is %s", spelling, got.Registry)
		}
	}
}
