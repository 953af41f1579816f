package node

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// The JSON of /_/setup/ is what the page and others rely on.
func TestSetupAsJSON(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	host := strings.TrimPrefix(p.url, "http://")
	for _, client := range []string{"docker", "containerd", "podman", "cri-o", "k3s", "buildkit"} {
		a := p.do(http.MethodGet, "/_/setup/"+client+"?format=json&registries=ghcr.io,localhost:5000")
		a.want(t, http.StatusOK, "Content-Type", "application/json", "Cache-Control", "no-store")
		var plan struct {
			Client, Endpoint, Restart, Command *string
			Notes                              *[]string
			Files                              []struct {
				Path, Content, Note *string
				Merge               *bool
			}
		}
		dec := json.NewDecoder(strings.NewReader(string(a.body)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&plan); err != nil || plan.Restart == nil || plan.Notes == nil || *plan.Notes == nil || len(plan.Files) == 0 {
			t.Fatalf("%s: %v\n%s", client, err, a.body)
		}
		if *plan.Client != client || *plan.Endpoint != "http://"+host || *plan.Command != "curl -fsS 'http://"+host+"/_/setup/"+client+"?registries=ghcr.io,localhost:5000' | sh" {
			t.Errorf("%s: %s %s %s", client, *plan.Client, *plan.Endpoint, *plan.Command)
		}
		for _, f := range plan.Files {
			if f.Note == nil || f.Merge == nil || !strings.HasPrefix(*f.Path, "/etc/") || *f.Content == "" {
				t.Errorf("%s: %s", client, a.body)
			}
		}
	}
	p.do(http.MethodGet, "/_/setup/none").want(t, http.StatusNotFound)
	p.do(http.MethodGet, "/_/setup/docker?format=xml").want(t, http.StatusBadRequest)
}

// Nothing that strangers send gets into the script unless it is a host.
func TestSetupHoldsNothingOfStrangers(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{top: "allowed_hosts: [known.example]"})
	for _, evil := range []string{"$(id)", "`id`", "a';id;'", "a\nid", "a\r\nid", "a b", "a\"", "a\\", "x|sh", "a&b", "a>b", "${IFS}", "a#b", "'", "\x00", "ä", "_default", "../../etc"} {
		for _, query := range []string{"?registries=" + url.QueryEscape(evil), "?registries=ghcr.io&registries=" + url.QueryEscape(evil), "?registries=ghcr.io," + url.QueryEscape(evil), "?format=json&registries=" + url.QueryEscape(evil)} {
			if a := p.do(http.MethodGet, "/_/setup/docker"+query); a.StatusCode != http.StatusBadRequest || strings.Contains(string(a.body), "#!/bin/sh") {
				t.Errorf("%s: status %d, %s", query, a.StatusCode, a.body)
			}
		}
		// Other parts of the query are nobody's business.
		a := p.do(http.MethodGet, "/_/setup/docker?x="+url.QueryEscape(evil))
		a.want(t, http.StatusOK)
		if strings.Contains(string(a.body), "id;") {
			t.Errorf("%q is in the script", evil)
		}
	}
	for host, status := range map[string]int{
		"known.example": http.StatusOK, "known.example:81": http.StatusOK, "KNOWN.example": http.StatusOK, "[::1]:80": http.StatusOK, "127.0.0.1": http.StatusOK, "a_b-c": http.StatusOK,
		"known.example.": http.StatusBadRequest, "known.example:0": http.StatusBadRequest, "known.example:99999": http.StatusBadRequest, "-a": http.StatusBadRequest, "a-": http.StatusBadRequest,
		"other.example:5000": http.StatusOK, "known.example:80$(id)": http.StatusBadRequest, "a'b": http.StatusBadRequest,
	} {
		a := ask(t, p, http.MethodGet, "/_/setup/docker", host)
		if a.StatusCode != status {
			t.Errorf("%s: status %d, want %d", host, a.StatusCode, status)
		}
		if status == http.StatusOK && !strings.Contains(string(a.body), "endpoint='http://"+strings.ToLower(host)+"'") {
			t.Errorf("%s: %.300s", host, a.body)
		}
	}
}

// base_url counts before the Host; a login is told of, and never its password.
func TestSetupSaysWhatTheConfigSays(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{top: login + "}\nbase_url: https://public.example/prefix"})
	a := p.do(http.MethodGet, "/_/setup/docker")
	a.want(t, http.StatusOK)
	for _, want := range []string{"endpoint='https://public.example'", "The proxy asks for a login", "No mirror for Docker Hub is set"} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("the script has no %q:\n%.900s", want, a.body)
		}
	}
	for _, secret := range []string{"right:one", "right%3Aone", "puller", "daemon.json'"} {
		if strings.Contains(string(a.body), secret) {
			t.Errorf("the script has %q", secret)
		}
	}
}

// A node that stands behind TLS and does not know its URL tells no client to do without TLS.
func TestSetupBehindTLS(t *testing.T) {
	t.Parallel()
	unset := newProxy(t, upstreamtest.New(t), settings{})
	set := newProxy(t, upstreamtest.New(t), settings{top: "base_url: https://public.example"})
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"X-Forwarded-Proto", "https", http.StatusBadRequest},
		{"X-Forwarded-Proto", "HTTPS, http", http.StatusBadRequest},
		{"X-Forwarded-Scheme", "https", http.StatusBadRequest},
		{"X-Forwarded-Ssl", "on", http.StatusBadRequest},
		{"Forwarded", `for=192.0.2.1;Proto="https";by=x`, http.StatusBadRequest},
		{"Forwarded", "for=a, for=b; proto=https", http.StatusBadRequest},
		{"X-Forwarded-Proto", "http", http.StatusOK},
		{"Forwarded", "for=https;proto=http", http.StatusOK},
		{"X-Forwarded-For", "192.0.2.1", http.StatusOK},
	} {
		for _, query := range []string{"", "?format=json"} {
			a := unset.do(http.MethodGet, "/_/setup/docker"+query, c.name, c.value)
			if told := strings.Contains(string(a.body), "set base_url"); a.StatusCode != c.status || told != (c.status != http.StatusOK) {
				t.Errorf("%s: %s: status %d, %.300s", c.name, c.value, a.StatusCode, a.body)
			}
			set.do(http.MethodGet, "/_/setup/docker"+query, c.name, c.value).want(t, http.StatusOK)
		}
	}
}
