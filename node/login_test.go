package node

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

const login = `auth: {username: puller, password: "right:one"`

func TestOneChallengeOnEveryPath(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 100))
	p := newProxy(t, up, settings{top: login + "}\ntrusted_proxies: [127.0.0.0/8]"})
	many := 0
	challenge := `Basic realm="oci-proxy", charset="UTF-8"`
	for _, path := range []string{
		"/v2/", "/v2", "/v2/" + repo + "/manifests/v1", blobPath(img.Config), "/v2/" + repo + "/tags/list",
		"/v2/" + repo + "/referrers/" + img.Manifest.String(), "/v2/_catalog", "/v2/ghcr.io/A/B", "/_/stats",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for name, header := range map[string][]string{
				"none": nil, "wrong password": basic("puller", "right:onf"), "wrong user": basic("pullers", "right:one"),
				"empty": basic("", ""), "bearer": {"Authorization", "Bearer right:one"},
				"garbage": {"Authorization", "Basic !!!"}, "longer": basic("puller", "right:one "),
			} {
				many++ // each client has its own address, because a single one would be slowed down
				a := p.do(method, path, append(header, "X-Forwarded-For", fmt.Sprintf("10.0.%d.%d", many/250, many%250))...)
				a.want(t, http.StatusUnauthorized, "WWW-Authenticate", challenge)
				if method == http.MethodGet {
					a.wantError(t, http.StatusUnauthorized, "UNAUTHORIZED")
				}
				if t.Failed() {
					t.Fatalf("%s %s: %s", method, path, name)
				}
			}
		}
	}
	if n := len(up.Requests()); n > 0 {
		t.Errorf("upstream saw %d requests of strangers", n)
	}
	for _, path := range []string{"/v2/", "/v2/" + repo + "/manifests/v1", blobPath(img.Config), "/_/stats"} {
		p.get(path, basic("puller", "right:one")...).want(t, http.StatusOK, "WWW-Authenticate", "")
	}
	p.get(blobPath(img.Config), basic("puller", "right:one")...).want(t, 200, "Cache-Control", "private, max-age=31536000, immutable")
	for _, path := range []string{"/_/health", "/_/ready", "/", "/app.js"} {
		p.get(path).want(t, http.StatusOK)
	}
	for _, r := range up.Requests() {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the client's login went upstream: %s", r.Path)
		}
	}
}

func basic(user, password string) []string {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(user, password)
	return []string{"Authorization", r.Header.Get("Authorization")}
}

func TestAnonymousClientsMayOnlyPull(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 100))
	for _, c := range []struct {
		name, top string
		forwarded []string
		status    int
	}{
		{"its own address", "anonymous_from: [127.0.0.0/8]}", nil, 200},
		{"another address", "anonymous_from: [10.0.0.0/8]}", nil, 401},
		{"spoofed, from no trusted proxy", "anonymous_from: [10.0.0.0/8]}", []string{"10.1.2.3"}, 401},
		{"spoofed, from an address that may", "anonymous_from: [127.0.0.1/32]}", []string{"192.0.2.1"}, 200},
		{"told by a trusted proxy", "anonymous_from: [10.0.0.0/8]}\ntrusted_proxies: [127.0.0.0/8]", []string{"10.1.2.3"}, 200},
		{"with a port", "anonymous_from: [10.0.0.0/8]}\ntrusted_proxies: [127.0.0.0/8]", []string{"10.1.2.3:4711"}, 200},
		{"mapped", "anonymous_from: [10.0.0.0/8]}\ntrusted_proxies: [127.0.0.0/8]", []string{"::ffff:10.1.2.3"}, 200},
		{"spoofed through a trusted proxy", "anonymous_from: [10.0.0.0/8]}\ntrusted_proxies: [127.0.0.0/8]", []string{"10.1.2.3, 192.0.2.1"}, 401},
		{"spoofed on a line of its own", "anonymous_from: [10.0.0.0/8]}\ntrusted_proxies: [127.0.0.0/8]", []string{"10.1.2.3", "192.0.2.1"}, 401},
		{"a chain of trusted ones", "anonymous_from: [10.0.0.0/8]}\ntrusted_proxies: [127.0.0.0/8, 192.0.2.0/24]", []string{"10.1.2.3, 192.0.2.1"}, 200},
		{"nonsense through a proxy that may itself", "anonymous_from: [127.0.0.0/8]}\ntrusted_proxies: [127.0.0.0/8]", []string{"unknown"}, 401},
		{"the trusted proxy itself", "anonymous_from: [127.0.0.0/8]}\ntrusted_proxies: [127.0.0.0/8]", nil, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, up, settings{top: login + ", " + c.top})
			var header []string
			for _, f := range c.forwarded {
				header = append(header, "X-Forwarded-For", f)
			}
			for _, path := range []string{"/v2/", "/v2/" + repo + "/manifests/v1", blobPath(img.Config)} {
				p.get(path, header...).want(t, c.status)
			}
			p.get("/_/stats", header...).want(t, http.StatusUnauthorized)
			p.get("/v2/", append(header, basic("puller", "right:one")...)...).want(t, http.StatusOK)
		})
	}
}

func TestTheLogNamesTheClientBehindATrustedProxy(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{top: "trusted_proxies: [127.0.0.1/32]"})
	p.get("/v2/a/b/tags/list", "X-Forwarded-For", "198.51.100.7")
	if l := p.line("a/b"); l["client"] != "198.51.100.7" {
		t.Errorf("line %v", l)
	}
	q := newProxy(t, up, settings{})
	q.get("/v2/a/b/tags/list", "X-Forwarded-For", "198.51.100.7")
	if l := q.line("a/b"); l["client"] != "127.0.0.1" {
		t.Errorf("line %v", l)
	}
}
