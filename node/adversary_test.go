package node

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"oci-proxy/node/config"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstream"
)

// This is the adversary suite: attacks by clients, registries, token servers, CDNs and
// proxies that try to deceive the node or to stop it. Each attack runs against a real node
// over real sockets. It says what the attacker does and what must not happen. There is a
// file for each theme.

// An attack is one case.
type attack struct {
	name  string // what the attacker does
	never string // what must not happen
	run   func(t *testing.T)
}

// themes holds all attacks, by theme.
var themes = map[string]func() []attack{
	"tokens":    tokenAttacks,
	"redirects": redirectAttacks,
	"addresses": addressAttacks,
	"wire":      wireAttacks,
	"headers":   headerAttacks,
	"sizes":     sizeAttacks,
	"content":   contentAttacks,
	"private":   privateAttacks,
	"names":     nameAttacks,
}

// enough is the least number of attacks.
const enough = 100

// atOnce is how many attacks run at the same time. Most of them wait for the node to
// retry.
const atOnce = 24

func TestAdversary(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for theme, attacks := range themes {
		all := attacks()
		if testing.Short() {
			all = all[:1] // one of each theme, because many wait for the node to retry
		}
		for _, a := range all {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				t.Run(theme+"/"+a.name, a.attempt)
			})
		}
	}
	wg.Wait()
}

// attempt runs the attack.
func (a attack) attempt(t *testing.T) {
	a.run(t)
	if t.Failed() {
		t.Logf("what must not happen: %s", a.never)
	}
}

func TestThereAreEnoughAttacks(t *testing.T) {
	t.Parallel()
	all := 0
	for theme, attacks := range themes {
		known := map[string]bool{}
		for _, a := range attacks() {
			if a.name == "" || a.never == "" || known[a.name] {
				t.Errorf("%s: the attack %q is listed twice or incomplete", theme, a.name)
			}
			known[a.name] = true
			all++
		}
		t.Logf("%s: %d attacks", theme, len(known))
	}
	if t.Logf("%d attacks", all); all < enough {
		t.Errorf("%d attacks, want %d", all, enough)
	}
}

// The secrets that an attacker is after, and where each may be seen.
const (
	robotsPassword = canary + "-robot"
	robotsToken    = canary + "-token"
	clientsSecret  = canary + "-client"
)

// A world is a node that reaches the outside only through a proxy, and all the hosts
// outside. reg.example.com, the default registry, is configured with a login; its token
// server is auth.example.com.
type world struct {
	*proxy
	net *internet

	mu     sync.Mutex
	heard  []string          // answers to clients
	places map[string]string // where a secret may be seen, in addition to the usual places

	innocence bool // whether innocent is checked at the end
}

// newWorld starts a world. When the test ends, its node must be innocent.
func newWorld(t *testing.T, s settings) *world {
	t.Helper()
	out := newInternet(t)
	if s.proxyPassword != "" {
		out.password = s.proxyPassword
	}
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	if s.registry == "" {
		s.registry = "auth: {username: robot, password: " + robotsPassword + "}"
	}
	text := fmt.Sprintf("log_level: debug\ndefault_registry: reg.example.com\n%s\ndefaults: {cache_dir: %q, upstream_proxy: %q}\nregistries:\n  reg.example.com: {%s}\n%s\n",
		s.top, s.dir, out.url(), s.registry, s.more)
	cfg, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatalf("the test's config:\n%s\n%v", text, err)
	}
	log := new(testkit.Log)
	// Whom the node asks is the subject, not how soon: many handshakes are made at once here.
	n, err := build(cfg, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: cfg.LogLevel})), seams{patience: upstream.Within / 2})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{proxy: serving(t, n, log), net: out, places: map[string]string{}, innocence: true}
	t.Cleanup(func() {
		if w.innocence {
			w.innocent(t)
		}
	})
	return w
}

// ask sends a client's request with secrets that must not go upstream.
func (w *world) ask(method, path string, header ...string) answer {
	w.t.Helper()
	a := w.do(method, path, append([]string{
		"Authorization", "Bearer " + clientsSecret, "Cookie", "session=" + clientsSecret, "X-Forwarded-For", "203.0.113.77",
		"X-Forwarded-Host", clientsSecret + ".example", "Forwarded", "for=" + clientsSecret, "Referer", "https://x.example/?" + clientsSecret,
		"Proxy-Authorization", "Basic " + clientsSecret, "X-Api-Key", clientsSecret, "Via", "1.1 " + clientsSecret,
	}, header...)...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = append(w.heard, fmt.Sprint(a.StatusCode, a.Header, string(a.body)))
	decent(w.t, a)
	return a
}

// pull asks for a tag's manifest and a blob of team/app at reg.example.com.
func (w *world) pull() (manifest, blob answer) {
	w.t.Helper()
	return w.ask(http.MethodGet, "/v2/team/app/manifests/v1"), w.ask(http.MethodGet, "/v2/team/app/blobs/"+helloDigest)
}

const helloDigest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of "hello"

// decent fails the test if an answer has a header that only a registry may send, or
// content that a browser would run.
func decent(t testing.TB, a answer) {
	t.Helper()
	for _, name := range []string{
		"Set-Cookie", "Www-Authenticate", "Server", "X-Powered-By", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials",
		"Refresh", "Strict-Transport-Security", "Location", "Content-Disposition", "Content-Encoding", "Trailer", "X-Evil", "Alt-Svc", "Clear-Site-Data",
	} {
		if v := a.Header.Get(name); v != "" {
			t.Errorf("%s %s: answered with %s: %s", a.Request.Method, a.Request.URL, name, v)
		}
	}
	kind := a.Header.Get("Content-Type")
	for _, bad := range []string{"html", "script", "svg", "xml", "pdf", "css"} {
		if strings.Contains(kind, bad) {
			t.Errorf("%s %s: answered as %s", a.Request.Method, a.Request.URL, kind)
		}
	}
	if a.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(a.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%s %s: a browser may sniff: %v", a.Request.Method, a.Request.URL, a.Header)
	}
}

// innocent fails the test if the node sent a secret where it does not belong, or went
// where it must not go.
func (w *world) innocent(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("robot:" + robotsPassword))
	may := map[string]string{
		basic:         "https://reg.example.com:443 https://auth.example.com:443",
		robotsToken:   "https://reg.example.com:443",
		clientsSecret: "", canary + "-proxy": "", robotsPassword: "",
		base64.StdEncoding.EncodeToString([]byte("out:" + w.net.password)): "",
	}
	maps.Copy(may, w.places)
	for _, v := range w.net.all() {
		for secret, places := range may {
			if strings.Contains(v.String(), secret) && !strings.Contains(places, v.to) {
				t.Errorf("%s was shown %s:\n%s", v.to, secret, v)
			}
		}
		if inner(v.to) {
			t.Errorf("%s was asked", v.to)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, text := range map[string]string{"log": w.log.String(), "answers": strings.Join(w.heard, "\n")} {
		for _, secret := range []string{canary, basic, "Signature="} {
			for line := range strings.Lines(text) {
				if strings.Contains(line, secret) {
					t.Errorf("%s is in the %s: %s", secret, name, line)
				}
			}
		}
	}
}

// inner reports whether a host is an address or a name that means something only
// inside a network.
func inner(to string) bool {
	_, rest, _ := strings.Cut(to, "://")
	host, _, err := net.SplitHostPort(rest)
	if err != nil {
		host = rest
	}
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	for _, suffix := range []string{".internal", ".local", ".localhost", ".svc", ".arpa", ".onion", ".invalid", ".test"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

// visited reports whether a host was asked for anything. at is as for internet.host.
func (w *world) visited(at string) bool {
	for _, v := range w.net.all() {
		if v.to == withPort(at) {
			return true
		}
	}
	return false
}

// challenge is a registry that asks for a token of that realm, or for a login if realm
// is "".
func challenge(realm string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch auth := r.Header.Get("Authorization"); {
		case auth == "Bearer "+robotsToken, realm == "" && auth != "":
			serveHello(w, r)
		case realm == "":
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Header()["Www-Authenticate"] = []string{`Bearer realm="` + realm + `",service="s",scope="repository:team/app:pull"`}
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
}

// serveHello has one blob, "hello", and one manifest.
func serveHello(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/blobs/"+helloDigest):
		w.Header().Set("Content-Length", "5")
		_, _ = w.Write([]byte("hello"))
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = w.Write([]byte(`{"schemaVersion":2}`))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// giveToken is a token server that gives the right token to everybody.
func giveToken(w http.ResponseWriter, _ *http.Request) { giveThe(robotsToken)(w, nil) }

// giveThe is a token server that gives that token.
func giveThe(token string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, token)
	}
}

// wantHello fails the test unless the blob arrives intact.
func (w *world) wantHello(a answer) {
	w.t.Helper()
	if a.StatusCode != http.StatusOK || string(a.body) != "hello" {
		w.t.Errorf("%d %q, want hello", a.StatusCode, a.body)
	}
}

// wantRefused fails the test unless the answer is an OCI error.
func (w *world) wantRefused(a answer) {
	w.t.Helper()
	if a.StatusCode < 400 || !strings.HasPrefix(string(a.body), `{"errors":[`) {
		w.t.Errorf("%d %.200q, want an error", a.StatusCode, a.body)
	}
}

// basicOf returns a login as it stands in a header.
func basicOf(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}
