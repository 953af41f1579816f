package setup

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

const ca = "-----BEGIN CERTIFICATE-----\n" +
	"MIIBejCCAR+gAwIBAgIUGTfzIP27Ez5HqM2y9CoVR6dLVgQwCgYIKoZIzj0EAwIw\n" +
	"EjEQMA4GA1UEAwwHcHJpdmF0ZTAeFw0yNjExMjkyMDE1NDdaFw0yNjEyMDEyMDE1\n" +
	"NDdaMBIxEDAOBgNVBAMMB3ByaXZhdGUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n" +
	"AAReuLMi+tjuG8n/hk981+4FtzN+UwiRU7a2wW04RdGNnbbWJ9Qm+Y4mjwpwFyhm\n" +
	"vEqVhwnGoLDRsJ3PlaL5Mu4Mo1MwUTAdBgNVHQ4EFgQUiOTJP5r86C3I08EOBZw6\n" +
	"3VTASGkwHwYDVR0jBBgwFoAUiOTJP5r86C3I08EOBZw63VTASGkwDwYDVR0TAQH/\n" +
	"BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAqfYwkW3Kappqo5yAoMLqy1F6dhs0\n" +
	"dL6/Hf8ve7gxRsICIQCPSfz4i9E9pCpI02Pd9GTUN6LlPQ+0Ck40xl8CRpHARQ==\n" +
	"-----END CERTIFICATE-----\n"

// plain and secure are what most tests set up.
func plain() Options { return Options{Proxy: Endpoint{"http", "proxy.example:8080"}} }

func secure(t *testing.T, registries ...string) Options {
	t.Helper()
	pem, err := ParseCA([]byte("a comment\n" + ca))
	if err != nil {
		t.Fatal(err)
	}
	return Options{Proxy: Endpoint{"https", "proxy.example"}, CA: pem, Registries: registries, Login: true}
}

// planned is New that may not fail.
func planned(t *testing.T, client string, o Options) Plan {
	t.Helper()
	p, err := New(client, o)
	if err != nil {
		t.Fatalf("%s: %v", client, err)
	}
	return p
}

// Every plan is as the golden file has it.
func TestPlans(t *testing.T) {
	t.Parallel()
	for _, client := range Clients() {
		for name, o := range map[string]Options{"plain": plain(), "secure": secure(t, "ghcr.io", "registry.example:5000", "docker.io")} {
			p := planned(t, client, o)
			text := p.Command + "\n" + p.Restart + "\n"
			for _, f := range p.Files {
				text += "=== " + f.Path + "\n" + f.Content
			}
			for _, n := range p.Notes {
				text += "- " + n + "\n"
			}
			golden := filepath.Join("testdata", client+"-"+name)
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || string(want) != text {
				t.Errorf("%s is not as %s has it (%v):\n%s", client, golden, err, text)
			}
		}
	}
}

func TestPlanNamesNoMirrorWhereAShortNameIsNotDockerHubs(t *testing.T) {
	t.Parallel()
	o := Options{Proxy: Endpoint{"https", "proxy.example"}, NotHub: true}
	p := planned(t, "docker", o)
	for _, f := range p.Files {
		if strings.HasSuffix(f.Path, "daemon.json") {
			t.Errorf("daemon.json is written: %s", f.Content)
		}
	}
	if all := strings.Join(p.Notes, "\n"); !strings.Contains(all, "No mirror for Docker Hub is set") {
		t.Errorf("nothing tells why: %s", all)
	}
}

// On its own machine the proxy needs no insecure-registries.
func TestLoopbackIsNotInsecure(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1:5000", "localhost:5000", "[::1]:5000", "127.8.9.1"} {
		e, err := ParseEndpoint(host)
		if err != nil {
			t.Fatal(err)
		}
		if p := planned(t, "docker", Options{Proxy: e}); strings.Contains(p.Files[0].Content, "insecure") {
			t.Errorf("%s: %s", host, p.Files[0].Content)
		}
	}
}

func TestCAIsOfNoUseWithoutTLS(t *testing.T) {
	t.Parallel()
	o := plain()
	o.CA = secure(t).CA
	if _, err := New("docker", o); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("error %v", err)
	}
	if _, err := New("none", plain()); err == nil || !strings.Contains(err.Error(), "k3s") {
		t.Errorf("error %v", err)
	}
}

// Whatever a stranger gives for an endpoint or a registry is either a plain host or an error.
func TestOnlyHostsPass(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", " ", "a b", "a;b", "$(reboot)", "`id`", "a'b", `a"b`, "a\nb", "a\x00b", "a/../b", "-a", "a-", "a..b", ".a", "a.", "a:", "a:0", "a:65536",
		"a:00080", "a:+80", "a:http", "a:80:80", "[::1", "::1", "[::1%eth0]", "[fe80::1%25'x]:80", "[1.2.3.4]", "ä.example", "a@b", "user:pw@host", "_default",
		"a?b", "a#b", "a\\b", "a&b", "*", "a%41", strings.Repeat("a", 254), strings.Repeat("a.", 200),
	} {
		if e, err := NewEndpoint(false, bad); err == nil {
			t.Errorf("%q passes as %q", bad, e.Host())
		}
		if names, err := ParseRegistries(bad); err == nil && len(names) > 0 {
			t.Errorf("%q passes as registries %q", bad, names)
		}
	}
	for _, bad := range []string{"ftp://a", "http://u:p@a", "http://a/b", "http://a?b", "http://a#b", "http://a?", "http:///", "http://", "://a", "http://a:b"} {
		if e, err := ParseEndpoint(bad); err == nil {
			t.Errorf("%q passes as %q", bad, e.URL())
		}
	}
	for given, want := range map[string]string{
		"Proxy.Example": "http://proxy.example", "https://a:443/": "https://a:443", "[FE80::A]:1": "http://[fe80::a]:1", "http://1.2.3.4:80": "http://1.2.3.4:80",
		"https://my_host-1.lan:65535": "https://my_host-1.lan:65535",
	} {
		if e, err := ParseEndpoint(given); err != nil || e.URL() != want {
			t.Errorf("%q is %q (%v), want %q", given, e.URL(), err, want)
		}
	}
}

func TestParseRegistries(t *testing.T) {
	t.Parallel()
	names, err := ParseRegistries(" GHCR.io, index.docker.io,docker.io,localhost:5000 ")
	if err != nil || strings.Join(names, " ") != "ghcr.io docker.io localhost:5000" {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := ParseRegistries(strings.Repeat("a,", 10) + "b"); err != nil {
		t.Error(err)
	}
	var many []string
	for i := range maxRegistries + 1 {
		many = append(many, "r"+strings.Repeat("x", i)+".example")
	}
	if _, err := ParseRegistries(strings.Join(many[:60], ",")); err != nil {
		t.Error(err)
	}
	if _, err := ParseRegistries(strings.Join(many, ",")); err == nil {
		t.Error("too many pass")
	}
}

// A file with a key in it too gives its certificates only.
func TestParseCA(t *testing.T) {
	t.Parallel()
	key := "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n"
	got, err := ParseCA([]byte(key + strings.ReplaceAll(ca, "\n", "\r\n") + "x"))
	if err != nil || string(got) != ca {
		t.Errorf("%v:\n%s", err, got)
	}
	for _, bad := range []string{"", key, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if _, err := ParseCA([]byte(bad)); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}
