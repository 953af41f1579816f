package gate

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
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
	g, err := New(cfg, limitsOf(1024), slog.New(slog.DiscardHandler))
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
