package upstream

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

func TestAnInsecureRegistryMaySpeakEither(t *testing.T) {
	t.Parallel()
	handler := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }
	plain := httptest.NewServer(http.HandlerFunc(handler))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(handler))
	defer secure.Close()
	for _, s := range []*httptest.Server{plain, secure} {
		_, host, _ := strings.Cut(s.URL, "://")
		client := newClient(t, plainly(host))
		wantHello(t, client, host)
		client.named[host].home.plain.Store(s == secure) // the client remembers the wrong protocol
		wantHello(t, client, host)
		if got := client.named[host].home.plain.Load(); got != (s == plain) {
			t.Errorf("%s: plain HTTP remembered: %v", s.URL, got)
		}
	}
	_, host, _ := strings.Cut(secure.URL, "://")
	cfg := plainly(host)
	cfg.Insecure = false
	_, err := newClient(t, cfg).Open(t.Context(), hello(host), 0)
	wantError(t, err, oci.Unavailable, "not trusted")
	_, host, _ = strings.Cut(plain.URL, "://")
	cfg.Host = host
	_, err = newClient(t, cfg).Open(t.Context(), hello(host), 0)
	wantError(t, err, oci.Unavailable, "does not speak TLS")
}

func TestInsecureIsForTheRegistryItself(t *testing.T) {
	t.Parallel()
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer other.Close()
	home := server(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	_, err := newClient(t, plainly(home)).Open(t.Context(), hello(home), 0)
	wantError(t, err, oci.Unavailable, "not trusted")
}

func TestACAFileIsTrusted(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer s.Close()
	_, host, _ := strings.Cut(s.URL, "://")
	cfg := Registry{Host: host, Configured: true, FollowRedirects: true, CAFile: caFile(t, s)}
	wantHello(t, newClient(t, cfg), host)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".missing"} {
		if _, err := New([]Registry{{Host: host, Configured: true, CAFile: file}}, Registry{}, nil); err == nil {
			t.Errorf("%s is accepted as a ca_file", file)
		}
	}
}

// caFile writes the certificate of s to a file and returns its path.
func caFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWholeTLSRegistryWithTokensAndCDN(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t, upstreamtest.HTTP2(), upstreamtest.Redirect(),
		upstreamtest.Bearer(upstreamtest.BearerAuth{User: "user", Password: canary, SeparateHost: true}))
	reg.PutBlob("team/app", []byte("hello"))
	cfg := withLogin(Registry{Host: reg.Host(), Configured: true, FollowRedirects: true, CAFile: reg.CAFile()})
	cfg.RealmHosts = []string{reg.TokenHost()}
	wantHello(t, newClient(t, cfg), reg.Host())
	for _, r := range reg.Requests() {
		if r.Proto != "HTTP/1.1" || r.Header.Get("Accept-Encoding") != "identity" || !strings.HasPrefix(r.Header.Get("User-Agent"), "oci-proxy/") {
			t.Errorf("a request of %s with %v", r.Proto, r.Header)
		}
	}
}
