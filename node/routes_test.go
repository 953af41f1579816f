package node

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"oci-proxy/node/config"
	"oci-proxy/transfer/upstreamtest"
)

// Every URL there is, and what its class means. One that is not listed here
// fails the test: say who may ask for it.
func TestEveryEndpointHasItsClassAndHeaders(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 100))
	type listed struct {
		class class
		asks  []string // paths
	}
	table := map[string]listed{
		"/v2/": {pullers, []string{
			"/v2/", "/v2", "/v2/" + repo + "/manifests/v1", "/v2/" + repo + "/manifests/none", blobPath(img.Config), "/v2/" + repo + "/tags/list",
			"/v2/" + repo + "/referrers/" + img.Manifest.String(), "/v2/_catalog", "/v2/x/../y",
		}},
		"GET /_/health":         {probe, []string{"/_/health"}},
		"GET /_/ready":          {probe, []string{"/_/ready"}},
		"GET /_/stats":          {guarded, []string{"/_/stats", "/_/stats?scope=node"}},
		"GET /_/cluster":        {guarded, []string{"/_/cluster"}},
		"GET /_/owner/{digest}": {guarded, []string{"/_/owner/" + img.Config.String(), "/_/owner/x"}},
		"GET /_/metrics":        {guarded, []string{"/_/metrics"}},
		"POST /_/leave":         {operators, []string{"/_/leave"}},
		"/":                     {public, []string{"/", "/app.js", "/style.css", "/none", "/_/", "/_/none", "/_/../_/stats", "/_//stats"}},
	}
	p := newProxy(t, up, settings{top: login + ", anonymous_from: [192.0.2.0/24]}\ntrusted_proxies: [127.0.0.0/8]"})
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
			if (strange.StatusCode == http.StatusMisdirectedRequest) == (e.class == probe || e.class == pullers) {
				t.Errorf("%s by another name: status %d", path, strange.StatusCode)
			}
		}
	}
	for pattern := range table {
		t.Errorf("%s is gone", pattern)
	}
}

// headers checks an answer's status and headers by the class of its URL.
func headers(t *testing.T, who string, a answer, c class) {
	t.Helper()
	path := a.Request.URL.Path
	open := c == public || c == probe || who == "a user" || who == "one who may pull" && c == pullers
	if (a.StatusCode != http.StatusUnauthorized) != open {
		t.Errorf("%s asks for %s: status %d", who, path, a.StatusCode)
	}
	policy := a.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; ") || c == public == strings.Contains(policy, "sandbox") || strings.Contains(policy, "unsafe") {
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

// ask asks by a name.
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

func TestNamesInHost(t *testing.T) {
	t.Parallel()
	const text = `base_url: https://Proxy.Example/sub
allowed_hosts: [also.example, "port.example:8080"]
cluster: {name: node-7, advertise: node-7.lan, bind_addr: "127.0.0.1:0", peer_addr: "127.0.0.1:0", secret: 0123456789abcdef}`
	cfg, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := newNodeOf(t, "defaults: {cache_dir: "+t.TempDir()+"}")
	n.hosts = newHosts(cfg)
	defer func() {
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	h := n.Handler()
	for host, allowed := range map[string]bool{
		"localhost": true, "localhost:8080": true, "LOCALHOST": true, "localhost.": true,
		"127.0.0.1": true, "127.0.0.1:80": true, "[::1]": true, "[::1]:80": true, "10.1.2.3:5000": true, "192.0.2.1": true, "[2001:db8::1]:80": true,
		"proxy.example": true, "PROXY.example:443": true, "proxy.example.": true, "also.example": true, "also.example:1": true,
		"port.example:8080": true, "port.example": false, "port.example:81": false,
		"node-7": true, "node-7:5000": true, "node-7.lan": true, own: true, own + ":80": true,
		"": false, "evil.example": false, "evil.example:80": false, "proxy.example.evil.example": false, "localhost.evil.example": false,
		"127.0.0.1.evil.example": false, "xproxy.example": false, "0x7f000001": false, "2130706433": false, "127.1": false,
		"[fe80::1%25eth0]": false, "localhost@evil.example": false, ":80": false, "a b": false, "[::1": false,
	} {
		for path, exempt := range map[string]bool{"/": false, "/app.js": false, "/_/stats": false, "/_/none": false, "/_/health": true, "/_/ready": true, "/v2/": true} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
			r.Host = host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if (w.Code != http.StatusMisdirectedRequest) != (allowed || exempt) {
				t.Errorf("Host %q at %s: status %d", host, path, w.Code)
			}
			if w.Code == http.StatusMisdirectedRequest && (!strings.Contains(w.Body.String(), `"code":"DENIED"`) || strings.Contains(w.Body.String(), "evil")) {
				t.Errorf("body %s", w.Body)
			}
		}
	}
}

func TestLeaveByAnotherNameIsRefused(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	ask(t, p, http.MethodPost, "/_/leave", "evil.example").wantError(t, http.StatusMisdirectedRequest, "DENIED")
	ask(t, p, http.MethodPost, "/_/leave", "localhost", "Origin", "http://evil.example").want(t, http.StatusForbidden)
	ask(t, p, http.MethodPost, "/_/leave", "localhost").wantError(t, http.StatusConflict, "UNSUPPORTED") // it has no cluster
}

// Whatever Host says, it is allowed only for an IP address or a known name.
func FuzzHosts(f *testing.F) {
	for _, s := range []string{"", "localhost", "localhost:80", "a.example", "[::1]:80", "[::1%25x]", "127.0.0.1:99999", "p.example:8080", "::1", "p.example.:8080", "[::]:X"} {
		f.Add(s)
	}
	h := hosts{"localhost": true, "p.example:8080": true}
	f.Fuzz(func(t *testing.T, host string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		if !h.allow(r) {
			return
		}
		low := strings.ToLower(host)
		known := low == "p.example:8080" || low == "localhost" || strings.HasPrefix(low, "localhost:") || strings.HasPrefix(low, "localhost.")
		if address := strings.Trim(low, "0123456789abcdef.:[]") == ""; !known && !address {
			t.Errorf("%q is allowed", host)
		}
	})
}
