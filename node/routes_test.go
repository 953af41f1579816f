package node

import (
	"net/http"
	"strings"
	"testing"

	"oci-proxy/node/gate"
	"oci-proxy/transfer/upstreamtest"
)

// This lists all URLs and what their classes mean. A URL that is not listed fails the
// test: add it, and say who may ask for it.
func TestEveryEndpointHasItsClassAndHeaders(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 100))
	type listed struct {
		class gate.Class
		asks  []string // paths
	}
	table := map[string]listed{
		"/v2/": {gate.Pullers, []string{
			"/v2/", "/v2", "/v2/" + repo + "/manifests/v1", "/v2/" + repo + "/manifests/none", blobPath(img.Config), "/v2/" + repo + "/tags/list",
			"/v2/" + repo + "/referrers/" + img.Manifest.String(), "/v2/_catalog", "/v2/x/../y",
		}},
		"GET /_/health":         {gate.Probe, []string{"/_/health"}},
		"GET /_/ready":          {gate.Probe, []string{"/_/ready"}},
		"GET /_/stats":          {gate.Guarded, []string{"/_/stats", "/_/stats?scope=node"}},
		"GET /_/cluster":        {gate.Guarded, []string{"/_/cluster"}},
		"GET /_/owner/{digest}": {gate.Guarded, []string{"/_/owner/" + img.Config.String(), "/_/owner/x"}},
		"GET /_/upstreams":      {gate.Guarded, []string{"/_/upstreams"}},
		"GET /_/events":         {gate.Guarded, []string{"/_/events"}},
		"GET /_/metrics":        {gate.Guarded, []string{"/_/metrics"}},
		"POST /_/leave":         {gate.Operators, []string{"/_/leave"}},
		"POST /_/forget":        {gate.Operators, []string{"/_/forget"}},
		"GET /_/images":         {gate.Guarded, []string{"/_/images", "/_/images?match=**"}},
		"GET /_/image":          {gate.Public, []string{"/_/image", "/_/image?name=" + repo + ":v1"}},
		"POST /_/purge":         {gate.Operators, []string{"/_/purge"}},
		"POST /_/pin":           {gate.Operators, []string{"/_/pin"}},
		"POST /_/unpin":         {gate.Operators, []string{"/_/unpin"}},
		"POST /_/verify":        {gate.Operators, []string{"/_/verify"}},
		"POST /_/doctor":        {gate.Operators, []string{"/_/doctor"}},
		"POST /_/reload":        {gate.Operators, []string{"/_/reload"}},
		"POST /_/warm":          {gate.Operators, []string{"/_/warm"}},
		"POST /_/import":        {gate.Operators, []string{"/_/import"}},
		"GET /_/setup/{client}": {gate.Probe, []string{"/_/setup/docker", "/_/setup/k3s?format=json", "/_/setup/none", "/_/setup/docker?registries=;"}},
		"/":                     {gate.Public, []string{"/", "/app.js", "/style.css", "/none", "/_/", "/_/none", "/_/../_/stats", "/_//stats"}},
	}
	p := newProxy(t, up, settings{top: login + ", anonymous_from: [192.0.2.0/24]}\ntrusted_proxies: [127.0.0.0/8]"})
	p.node.events.live.Close() // its answers do not end by themselves
	for _, e := range p.node.endpoints() {
		want, ok := table[e.pattern]
		if !ok || want.class != e.class {
			t.Errorf("%s is of class %d; the table says %v %v", e.pattern, e.class, want.class, ok)
		}
		delete(table, e.pattern)
		method, _, named := strings.Cut(e.pattern, " ")
		if !named {
			method = http.MethodGet
		}
		for _, path := range want.asks {
			for who, header := range map[string][]string{
				"a stranger": nil, "one who may pull": {"X-Forwarded-For", "192.0.2.1"}, "a user": basic("puller", "right:one"),
			} {
				headers(t, who, p.do(method, path, header...), e.class)
			}
			strange := ask(t, p, method, path, "evil.example")
			if (strange.StatusCode == http.StatusMisdirectedRequest) == (e.class == gate.Probe || e.class == gate.Pullers) {
				t.Errorf("%s by another name: status %d", path, strange.StatusCode)
			}
		}
	}
	for pattern := range table {
		t.Errorf("%s is gone", pattern)
	}
}

// headers checks an answer's status and headers by the class of its URL.
func headers(t *testing.T, who string, a answer, c gate.Class) {
	t.Helper()
	path := a.Request.URL.Path
	open := c == gate.Public || c == gate.Probe || who == "a user" || who == "one who may pull" && c == gate.Pullers
	if (a.StatusCode != http.StatusUnauthorized) != open {
		t.Errorf("%s asks for %s: status %d", who, path, a.StatusCode)
	}
	policy := a.Header.Get("Content-Security-Policy")
	page := c == gate.Public && !strings.HasPrefix(path, "/_/image") // which alone is for browsers to run
	if !strings.HasPrefix(policy, "default-src 'none'; ") || page == strings.Contains(policy, "sandbox") || strings.Contains(policy, "unsafe") {
		t.Errorf("%s: policy %q", path, policy)
	}
	a.want(t, a.StatusCode, "X-Content-Type-Options", "nosniff", "Referrer-Policy", "no-referrer")
	for name := range a.Header {
		if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" || name == "Server" || name == "X-Powered-By" {
			t.Errorf("%s: %s: %s", path, name, a.Header.Get(name))
		}
	}
	kind := a.Header.Get("Content-Type")
	if strings.Contains(kind, "html") && path != "/" || len(a.body) > 0 && kind == "" {
		t.Errorf("%s: type %q", path, kind)
	}
}

// ask sends a request with a Host.
func ask(t *testing.T, p *proxy, method, path, host string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	p.sent.Add(1)
	return read(resp)
}

func TestLeaveByAnotherNameIsRefused(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	ask(t, p, http.MethodPost, "/_/leave", "evil.example").wantError(t, http.StatusMisdirectedRequest, "DENIED")
	ask(t, p, http.MethodPost, "/_/leave", "localhost", "Origin", "http://evil.example").want(t, http.StatusForbidden)
	ask(t, p, http.MethodPost, "/_/leave", "localhost").wantError(t, http.StatusConflict, "UNSUPPORTED") // it is not in a cluster
}
