package upstream

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// world starts a server that acts as a registry, as its token server or as its CDN,
// depending on the name that it is asked by. Its certificate is valid for *.example.com.
func world(t *testing.T, scheme string) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Proxy-Authorization") != "":
			t.Error("the proxy's login reached the target")
		case r.Host == "cdn.example.com":
			_, _ = io.WriteString(w, "hello")
		case r.Host == "auth.example.com":
			_, _ = io.WriteString(w, `{"token":"t"}`)
		case r.Header.Get("Authorization") != "Bearer t":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+scheme+`://auth.example.com/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			http.Redirect(w, r, scheme+"://cdn.example.com/x", http.StatusTemporaryRedirect)
		}
	}))
	if scheme == "https" {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func TestEveryHopGoesThroughTheProxy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind, scheme, login string
		configured          bool
	}{
		"http":                         {"http", "https", "", true},
		"http with a login":            {"http", "https", "user:" + canary, true},
		"http for plain http":          {"http", "http", "user:" + canary, true},
		"https with a login":           {"https", "https", "user:" + canary, true},
		"https for plain http":         {"https", "http", "", true},
		"socks5":                       {"socks5", "https", "", true},
		"socks5 with a login":          {"socks5", "https", "user:" + canary, true},
		"socks5h":                      {"socks5h", "https", "", true},
		"socks5 for plain http":        {"socks5", "http", "", true},
		"a registry nobody configured": {"http", "https", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := world(t, c.scheme)
			p := &testProxy{target: target.Listener.Addr().String(), login: c.login}
			cfg := Registry{Host: "reg.example.com", Configured: c.configured, FollowRedirects: true, Insecure: c.scheme == "http"}
			cfg.Proxy = p.start(t, c.kind)
			if c.scheme == "https" {
				cfg.CAFile = caFile(t, target)
			} else if c.kind == "https" {
				cfg.CAFile = caFile(t, httptestTLS(t))
			}
			client := proxied(t, cfg)
			wantHello(t, client, "reg.example.com")
			wantAsked(t, p.all(), "reg.example.com", "auth.example.com", "cdn.example.com")
		})
	}
}

// proxied returns a client for the registry cfg. If cfg is not configured, it is the
// client's fallback.
func proxied(t *testing.T, cfg Registry) *Client {
	t.Helper()
	if cfg.Configured {
		return newClient(t, cfg)
	}
	c, err := New(nil, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// start starts p and returns its URL.
func (p *testProxy) start(t *testing.T, kind string) *url.URL {
	t.Helper()
	u := &url.URL{Scheme: kind}
	if p.login != "" {
		user, password, _ := strings.Cut(p.login, ":")
		u.User = url.UserPassword(user, password)
	}
	if strings.HasPrefix(kind, "socks5") {
		u.Host = p.socks(t)
		return u
	}
	s := httptest.NewUnstartedServer(p)
	if kind == "https" {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	u.Host = s.Listener.Addr().String()
	return u
}

// httptestTLS starts a server for the certificate that all servers of httptest share.
func httptestTLS(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	return s
}

func wantAsked(t *testing.T, asked []string, names ...string) {
	t.Helper()
	for _, name := range names {
		if !slices.ContainsFunc(asked, func(s string) bool { return strings.Contains(s, name) }) {
			t.Errorf("the proxy was asked for %v, not for %s", asked, name)
		}
	}
}

func TestProxiesThatRefuseAreNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind     string
		insecure bool
		status   int
		reason   string
	}{
		"http, wrong login":                {"http", false, 0, "the proxy refused the login (407)"},
		"http for plain http, wrong login": {"http", true, 0, "the proxy refused the login (407)"},
		"socks5, wrong login":              {"socks5", false, 0, "the socks5 proxy refused"},
		"http, forbidden":                  {"http", false, 403, "the proxy refused to connect"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &testProxy{login: "user:right", status: c.status}
			u := p.start(t, c.kind)
			u.User = url.UserPassword("user", canary)
			if c.status != 0 {
				u.User = url.UserPassword("user", "right")
			}
			client := newClient(t, Registry{Host: "reg.example.com", Configured: true, Insecure: c.insecure, Proxy: u})
			if c.insecure {
				client.named["reg.example.com"].home.plain.Store(true)
			}
			_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
			if e := wantError(t, err, oci.Unavailable, c.reason); e.Host != u.Host {
				t.Errorf("host %s, want the proxy %s", e.Host, u.Host)
			}
		})
	}
}

func TestAProxyDoesNotOpenTheInside(t *testing.T) {
	t.Parallel()
	for _, location := range []string{
		"https://127.0.0.1/x", "https://localhost/x", "https://x.internal/x", "https://2130706433/x", "https://[::ffff:127.0.0.1]/x",
		"https://169.254.169.254/latest", "https://cdn.example.net:8443/x", "http://cdn.example.net/x",
	} {
		target := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "reg.example.com" {
				t.Errorf("%s was asked", r.Host)
			}
			http.Redirect(w, r, location, http.StatusFound)
		}))
		p := &testProxy{target: target.Listener.Addr().String()}
		client := proxied(t, Registry{FollowRedirects: true, Proxy: p.start(t, "http"), CAFile: caFile(t, target)})
		_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
		kind := oci.Denied
		if strings.HasPrefix(location, "http:") {
			kind = oci.Unavailable
		}
		wantError(t, err, kind, "")
		if n := len(p.all()); n != 1 {
			t.Errorf("%s: the proxy was asked %d times, want once", location, n)
		}
		target.Close()
	}
}

func TestMisconfigurationsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	parse := func(s string) *url.URL { return mustURL(t, s) }
	_, err := New([]Registry{
		{Host: "a.example.com", Configured: true, Proxy: parse("ftp://u:" + canary + "@p")},
		{Host: "b.example.com", Configured: true, Proxy: parse("http://")},
		{Host: "c.example.com", Configured: true, CAFile: "missing.pem"},
		{Host: "d.example.com", Username: "u", Password: canary},
		{Host: "e.example.com", Configured: true},
		{Host: "e.example.com:443", Configured: true},
	}, Registry{}, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Fatal("no error")
	}
	for _, host := range []string{"a", "b", "c", "d", "e"} {
		if !strings.Contains(err.Error(), host+".example.com") {
			t.Errorf("the error does not name %s.example.com: %v", host, err)
		}
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("a secret is in the error %v", err)
	}
}

func TestAPublicRegistryThatResolvesInsideIsNotReached(t *testing.T) {
	t.Parallel()
	// The names lead to loopback, for a registry of strangers and for a hop.
	host := server(t, func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	r := newClientFor(t, Registry{Host: "reg.example.com"})
	if _, err := r.net.dial(nil)(t.Context(), "tcp", host); err == nil {
		t.Error("a stranger's name led to loopback")
	}
	r = newClientFor(t, Registry{Host: "reg.example.com", Configured: true})
	if _, err := r.net.dial(nil)(t.Context(), "tcp", host); err == nil {
		t.Error("a hop led to loopback")
	}
}

func TestHeadersOfAnswersAreBounded(t *testing.T) {
	t.Parallel()
	size := 200 << 10
	host := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", size))
		_, _ = io.WriteString(w, "hello")
	})
	client := newClient(t, plainly(host))
	wantHello(t, client, host)
	size = maxHeaderBytes + 1
	_, err := client.Open(t.Context(), hello(host), 0)
	wantError(t, err, oci.Unavailable, "")
}

func TestARefusedDialIsToldSoon(t *testing.T) {
	t.Parallel()
	host := testkit.FreeAddr(t, "127.0.0.1")
	cfg := plainly(host)
	cfg.Insecure = false
	_, err := newClient(t, cfg).Open(t.Context(), hello(host), 0)
	wantError(t, err, oci.Unavailable, "connection refused")
}

// TestTheEnvironmentsProxy runs itself in another process, since net/http reads the
// variables only once.
func TestTheEnvironmentsProxy(t *testing.T) {
	t.Parallel()
	if os.Getenv("UPSTREAM_TEST_CHILD") != "" {
		if _, err := New(nil, Registry{}, slog.New(slog.DiscardHandler)); err != nil {
			fmt.Println("START", err)
			return
		}
		r := newClientFor(t, Registry{Host: "reg.example.com", Configured: true})
		for _, u := range []string{"https://reg.example.com/", "http://reg.example.com/", "https://near.example.com/"} {
			p, err := r.net.proxyFor(mustURL(t, u))
			fmt.Println("PROXY", p, err)
		}
		return
	}
	for value, want := range map[string]string{
		"http://proxy.example.com:3128":                     "PROXY http://proxy.example.com:3128 <nil>\nPROXY <nil> <nil>\nPROXY <nil> <nil>\n",
		"proxy.example.com:3128":                            "PROXY http://proxy.example.com:3128 <nil>\nPROXY <nil> <nil>\nPROXY <nil> <nil>\n",
		"socks5h://proxy.example.com":                       "PROXY socks5h://proxy.example.com <nil>",
		"ftp://user:" + canary + "@proxy.example.com":       "START HTTPS_PROXY is not the URL of a proxy: the scheme must be",
		"http://user:" + canary + "@proxy.example.com:port": "START HTTPS_PROXY is not the URL of a proxy: it can't be parsed",
		// net/http ignores these two and uses no proxy.
		"http://user:" + canary + "%zz@proxy.example.com:1": "START HTTPS_PROXY is not the URL of a proxy: it can't be parsed",
		"http://[::1" + canary:                              "START HTTPS_PROXY is not the URL of a proxy: it can't be parsed",
		"http://":                                           "START HTTPS_PROXY is not the URL of a proxy: the host is missing",
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestTheEnvironmentsProxy$")
		cmd.Env = []string{"UPSTREAM_TEST_CHILD=1", "HTTPS_PROXY=" + value, "NO_PROXY=near.example.com"}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || strings.Contains(string(out), canary) {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
