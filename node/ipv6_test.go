package node

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// onIPv6 serves up at [::1] as well, and returns that host:port and the PEM of its
// certificate if it speaks TLS.
func onIPv6(t *testing.T, up *upstreamtest.Registry, secure bool) (host string, cert []byte) {
	t.Helper()
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: up.Host()}))
	_ = front.Listener.Close() // replaced
	front.Listener = ln
	t.Cleanup(front.Close)
	if secure {
		front.StartTLS()
		cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	} else {
		front.Start()
	}
	return ln.Addr().String(), cert
}

// A registry may be an IPv6 address, by each of the ways to name one.
func TestRegistriesByIPv6Address(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls %t", secure), func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			img := up.PutImage(repo, "v1", random(1, 1000))
			host, cert := onIPv6(t, up, secure)
			trust := "insecure: true"
			if secure {
				file := filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(file, cert, 0o600); err != nil {
					t.Fatal(err)
				}
				trust = fmt.Sprintf("ca_file: %q", file)
			}
			port := host[strings.LastIndexByte(host, ':'):]
			long := "[0:0:0:0:0:0:0:1]" + port // the same address
			cfg := func(registry string) string {
				return fmt.Sprintf("default_registry: %q\ndefaults: {cache_dir: %q}\nregistries: {%q: {alias: [six], %s}}", registry, t.TempDir(), registry, trust)
			}
			n, log := newNodeOf(t, cfg(host))
			p := serving(t, n, log)
			for _, name := range []string{
				"six/" + repo, repo, host + "/" + repo, url.PathEscape(host) + "/" + repo, long + "/" + repo,
				repo + "?ns=" + host, repo + "?ns=" + url.QueryEscape(host), repo + "?ns=" + long, host + "/" + repo + "?ns=" + host,
			} {
				path, ns, _ := strings.Cut(name, "?")
				for what, want := range map[string][]byte{"manifests/v1": img.ManifestBytes, "manifests/" + img.Manifest.String(): img.ManifestBytes, "blobs/" + img.Layers[0].String(): random(1, 1000)} {
					a := p.get("/v2/" + path + "/" + what + "?" + ns)
					a.want(t, http.StatusOK)
					if string(a.body) != string(want) {
						t.Errorf("%s of %s: %d bytes", what, name, len(a.body))
					}
				}
				p.get("/v2/"+path+"/tags/list?n=1&"+ns).want(t, http.StatusOK)
			}
			if got := string(p.get("/_/stats?scope=node").body); !strings.Contains(got, fmt.Sprintf("%q", host)) || strings.Contains(got, long) {
				t.Errorf("stats: %s", got)
			}
			if n := up.Count(http.MethodGet, "/blobs/"); n != 1 {
				t.Errorf("the layer was fetched %d times", n)
			}
			m, log := newNodeOf(t, cfg(long)) // written the long way
			q := serving(t, m, log)
			q.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
			q.get("/v2/"+repo+"/manifests/v1?ns="+host).want(t, http.StatusOK)
		})
	}
}

// What nobody configured is reached by its name only, so not by an IPv6 address.
func TestIPv6AddressesOfStrangers(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	for _, ns := range []string{"[::1]:5000", "[::1]", "[fe80::1]:443", "[::ffff:127.0.0.1]:5000", "[2606:4700::6810:84e5]"} {
		p.get("/v2/"+repo+"/manifests/v1?ns="+url.QueryEscape(ns)).wantError(t, http.StatusForbidden, "DENIED")
	}
	for _, ns := range []string{"[::1", "::1", "[::1]x", "[fe80::1%lo]:5000"} {
		p.get("/v2/"+repo+"/manifests/v1?ns="+url.QueryEscape(ns)).wantError(t, http.StatusBadRequest, "NAME_INVALID")
	}
}
