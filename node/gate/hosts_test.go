package gate

import (
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"oci-proxy/node/config"
)

func TestNamesInHost(t *testing.T) {
	t.Parallel()
	const text = `base_url: https://Proxy.Example/sub
allowed_hosts: [also.example, "port.example:8080"]
cluster: {name: node-7, advertise: node-7.lan, bind_addr: "127.0.0.1:0", peer_addr: "127.0.0.1:0", secret: 0123456789abcdef}`
	cfg, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(cfg, limitsOf(1024, 1<<40), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(t.Context())
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	served := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
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
		for class, exempt := range map[Class]bool{Public: false, Guarded: false, Operators: false, Probe: true, Pullers: true} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.Host = host
			w := httptest.NewRecorder()
			g.Guard(class, served).ServeHTTP(w, r)
			if (w.Code != http.StatusMisdirectedRequest) != (allowed || exempt) {
				t.Errorf("Host %q, class %d: status %d", host, class, w.Code)
			}
			if w.Code == http.StatusMisdirectedRequest && (!strings.Contains(w.Body.String(), `"code":"DENIED"`) || strings.Contains(w.Body.String(), "evil")) {
				t.Errorf("body %s", w.Body)
			}
		}
	}
}

// Only an IP address, a known name, or one that nobody outside can own is ever allowed.
func FuzzHosts(f *testing.F) {
	for _, s := range []string{"", "localhost", "localhost:80", "a.example", "[::1]:80", "[::1%25x]", "127.0.0.1:99999", "p.example:8080", "::1", "p.example.:8080", "[::]:X", "oci-proxy:80", "a.svc", "com", "a.svc.evil.com"} {
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
		name, _, _ := strings.Cut(low, ":")
		name = strings.TrimSuffix(name, ".")
		own := !strings.Contains(name, ".") || slices.ContainsFunc(insideDomains, func(d string) bool { return strings.HasSuffix(name, d) })
		if address := strings.Trim(low, "0123456789abcdef.:[]") == ""; !known && !address && !own {
			t.Errorf("%q is allowed", host)
		}
	})
}

// Names of containers and services, and names below domains that are not in the public
// DNS, are known without config. Those that somebody outside can own are not.
func TestNamesThatNobodyOutsideOwns(t *testing.T) {
	t.Parallel()
	g := newGate(t, "")
	for host, allowed := range map[string]bool{
		"oci-proxy": true, "oci-proxy:5000": true, "OCI-Proxy": true, "oci_proxy_1:80": true, "node-1": true, "mesh-node-1-1:8080": true, "oci-proxy.": true,
		"oci-proxy.registry.svc": true, "oci-proxy.registry.svc:80": true, "oci-proxy.registry.svc.cluster.local": true, "0.oci-proxy.registry.svc.cluster.local": false,
		"nas.local": true, "cache.prod.internal": true, "host.docker.internal:8080": true, "proxy.home.arpa": true, "x.localhost:80": true,
		"com": false, "dev": false, "ai:80": false, "cloud": false, "evil.com": false, "evil.dev": false, "evil.io:8080": false, "svc": true, ".svc": false,
		"a.svc.evil.com": false, "local.evil.com": false, "evil.localhost.com": false, "xsvc.com": false, "a..svc": false, "1.svc": false, "0x7f.svc": false, "evil.svc@evil.com": false,
		"a.internal.com": false, "a.arpa": false, "evil.registry": false, "proxy.example": false, "proxy.example.com": false, "\u0430.svc": false, "a b.svc": false,
	} {
		if got := statusAt(t, g, Guarded, host, nil).Code == http.StatusOK; got != allowed {
			t.Errorf("Host %q: allowed %t", host, got)
		}
	}
}

// Who calls by an unknown name is refused in the form that it reads.
func TestUnknownNamesAreRefusedInTheAskersForm(t *testing.T) {
	t.Parallel()
	g := newGate(t, "")
	for accept, want := range map[string]string{
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8":                                             "text/html; charset=utf-8",
		"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1":                   "text/plain; charset=utf-8",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,text/plain;q=0.3": "text/plain; charset=utf-8",
		"*/*": "application/json", "": "application/json", "application/json": "application/json",
	} {
		w := statusAt(t, g, Public, "proxy.corp.example:8443", http.Header{"Accept": {accept}})
		if w.Code != http.StatusMisdirectedRequest || w.Header().Get("Content-Type") != want || !strings.Contains(w.Body.String(), "allowed_hosts") || !strings.Contains(w.Body.String(), "base_url") {
			t.Errorf("%s: %d, %s, %s", accept, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		if strings.HasPrefix(want, "text/html") && (!strings.Contains(w.Body.String(), "allowed_hosts: [proxy.corp.example]") || !strings.Contains(w.Body.String(), "base_url: http://proxy.corp.example:8443\n") && !strings.Contains(w.Body.String(), "base_url: http://proxy.corp.example:8443<")) {
			t.Errorf("the page does not name the keys:\n%s", w.Body)
		}
	}
	for _, host := range []string{"<script>alert(1)</script>.example", "a\"b.example", "evil.example:<b>", strings.Repeat("a.", 300) + "com", "&amp;"} {
		w := statusAt(t, g, Public, host, http.Header{"Accept": {"text/html"}})
		if w.Code != http.StatusMisdirectedRequest || strings.Contains(w.Body.String(), "script") || strings.Contains(w.Body.String(), "<b>") || w.Body.Len() > 4000 {
			t.Errorf("Host %q: %d, %s", host, w.Code, w.Body)
		}
	}
}

// The page's policy lets its own style apply, and nothing else.
func TestThePageOfAnUnknownNameHasAStrictPolicy(t *testing.T) {
	t.Parallel()
	w := statusAt(t, newGate(t, ""), Public, "proxy.corp.example", http.Header{"Accept": {"text/html"}})
	_, rest, _ := strings.Cut(w.Body.String(), "<style>")
	style, _, found := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; sandbox"
	if got := w.Header().Get("Content-Security-Policy"); !found || got != want {
		t.Errorf("the policy is %q, want %q", got, want)
	}
	if strings.Count(w.Body.String(), "此节点不认识名称 proxy.corp.example") != 1 {
		t.Errorf("there is no Chinese:\n%s", w.Body)
	}
}

// A right login counts under any name: no browser sends another site the login that it
// has for this one. Without one there is no question for it.
func TestLoginByAnyName(t *testing.T) {
	t.Parallel()
	g := newGate(t, "auth: {username: u, password: sesame}")
	right := httptest.NewRequest(http.MethodGet, "/", nil)
	right.SetBasicAuth("u", "sesame")
	wrong := httptest.NewRequest(http.MethodGet, "/", nil)
	wrong.SetBasicAuth("u", "guess")
	for class, c := range map[Class][3]int{ // with the right login, a wrong one, none
		Public: {421, 421, 421}, Guarded: {200, 401, 421}, Operators: {200, 401, 421}, Probe: {200, 200, 200}, Pullers: {200, 200, 200},
	} {
		for i, header := range []http.Header{right.Header, wrong.Header, nil} {
			if got := statusAt(t, g, class, "proxy.corp.example", header).Code; got != c[i] {
				t.Errorf("class %d, login %d: status %d, want %d", class, i, got, c[i])
			}
		}
	}
}

// A browser on the node's own machine that another site led here is no operator.
func TestBrowsersLedHereAreNoOperators(t *testing.T) {
	t.Parallel()
	g := newGate(t, "")
	for host, operator := range map[string]bool{"localhost": true, "127.0.0.1:80": true, "evil.example": false, "evil.com:80": false} {
		r := httptest.NewRequest(http.MethodGet, "/_/health", nil)
		r.RemoteAddr, r.Host = "127.0.0.1:4000", host
		if got := g.Asks(r); got != operator {
			t.Errorf("%s: %t", host, got)
		}
	}
}

func TestDomainsOfAPod(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"nameserver 10.96.0.10\nsearch registry.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n": {".svc.cluster.local", ".registry"},
		"search dev.svc.k8s.corp.com": {".svc.k8s.corp.com"}, // whoever owns a name below dev could be meant
		"search evil.com com":         nil, "search": nil, "": nil, "search a.b.svc.c": nil, "search .svc.c": nil,
	} {
		if got := podDomains(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// newGate returns a gate by a config.
func newGate(t *testing.T, text string) *Gate {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(cfg, limitsOf(1024, 1<<40), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close(t.Context()) })
	return g
}

// statusAt asks for a URL of that class by a name.
func statusAt(t *testing.T, g *Gate, class Class, host string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Host = host
	maps.Copy(r.Header, header)
	w := httptest.NewRecorder()
	g.Guard(class, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})).ServeHTTP(w, r)
	return w
}
