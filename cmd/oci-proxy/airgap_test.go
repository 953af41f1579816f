package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// airgapped starts a mesh of n nodes that must not ask the registry, and returns their
// addresses and a config with the login.
func airgapped(t *testing.T, host, more string, n int) (addrs []string, file string) {
	t.Helper()
	seed := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	for i := range n {
		gossip := seed
		if i > 0 {
			gossip = fmt.Sprintf("127.0.0.1:%d", freePort(t))
		}
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		file = configFile(t, "port: %s\naddress: 127.0.0.1\nauth: {username: u, password: p}\ndefaults: {cache_dir: %q}\nregistries: {%q: {offline: true%s}}\n"+
			"cluster: {name: n%d, bind_addr: %q, peer_addr: \"127.0.0.1:0\", seeds: [%q], secret: 0123456789abcdef}\n",
			addr[strings.LastIndex(addr, ":")+1:], t.TempDir(), host, more, i, gossip, seed)
		start(t, addr, "serve", "-c", file)
		addrs = append(addrs, addr)
	}
	for _, addr := range addrs {
		testkit.Await(t, "all nodes meet", func() bool {
			body, err := fetch(t, addr, "/_/cluster", "")
			return err == nil && strings.Count(string(body), `"state": "active"`) == n
		})
	}
	return addrs, file
}

// fetch gets a path of a node with the login.
func fetch(t *testing.T, addr, path, accept string) ([]byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth("u", "p")
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.Header.Get("Warning") != "") {
		err = fmt.Errorf("%s: %s, Warning %q: %s", path, resp.Status, resp.Header.Get("Warning"), body)
	}
	return body, err
}

// A shipment is what a test exports: an index of two platforms with a signature of each
// kind.
type shipment struct {
	registry                       *upstreamtest.Registry
	index, amd64, arm64, signature digest.Digest
	layers                         []digest.Digest
	signed                         string // the tag of a signature
}

// newShipment fills a registry.
func newShipment(t *testing.T) *shipment {
	t.Helper()
	s := &shipment{registry: upstreamtest.New(t)}
	var entries []string
	for _, arch := range []string{"amd64", "arm64"} {
		img := s.registry.PutImage("org/app", arch, []byte("shared layer"), []byte("layer of "+arch))
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`, upstreamtest.TypeManifest, img.Manifest, len(img.ManifestBytes), arch))
		s.layers = append(s.layers, img.Layers...)
		if s.arm64 = img.Manifest; arch == "amd64" {
			s.amd64 = img.Manifest
		}
	}
	s.index = s.registry.PutManifest("org/app", "v1", upstreamtest.TypeIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, upstreamtest.TypeIndex, strings.Join(entries, ",")))
	sig := s.registry.PutBlob("org/app", []byte("{}"))
	s.signature = s.registry.PutManifest("org/app", "", upstreamtest.TypeManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.signature","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":1}}`,
		upstreamtest.TypeManifest, sig, upstreamtest.TypeIndex, s.index))
	s.signed = strings.Replace(s.index.String(), ":", "-", 1) + ".sig"
	s.registry.PutImage("org/app", s.signed, []byte("a signature"))
	return s
}

// An exported file fills a mesh of offline nodes: all of them serve all of it, by tag and
// by digest, signatures and lists too, and again from what they exported themselves.
func TestAnOfflineMeshIsFilledByImportAlone(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	for name, more := range map[string]string{"public": "", "private": ", private: true"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShipment(t)
			host := s.registry.Host()
			online, addr := nodeConfig(t, s.registry, t.TempDir(), "")
			start(t, addr, "serve", "-c", online)
			file := filepath.Join(t.TempDir(), "images.tar")
			if got := call(t.Context(), "export", host+"/org/app:v1", "-c", online, "-platform", "all", "-o", file); got.status != exitDone {
				t.Fatalf("%+v", got)
			}
			s.registry.Down()
			addrs, config := airgapped(t, host, more, 3)
			got := call(t.Context(), "import", "-c", config, "-addr", "http://"+addrs[0], file)
			if wantIn(t, got.out, host+"/org/app:v1 is "+s.index.String(), "imported: 2 images"); got.status != exitDone {
				t.Fatalf("%+v", got)
			}
			for _, at := range []string{addrs[2], addrs[1], addrs[0]} {
				s.check(t, at, more != "")
			}
			second := filepath.Join(t.TempDir(), "again.tar")
			if got := call(t.Context(), "export", "-c", config, "-addr", "http://"+addrs[1], "-o", second, "-platform", "all", host+"/org/app:v1"); got.status != exitDone {
				t.Fatalf("%+v", got)
			}
			one, err := os.Stat(file)
			two, err2 := os.Stat(second)
			if err != nil || err2 != nil || one.Size() != two.Size() {
				t.Errorf("exported again: %v, %v, %v, %v", one, two, err, err2)
			}
		})
	}
}

// check pulls all through a node.
func (s *shipment) check(t *testing.T, at string, private bool) {
	t.Helper()
	base := "/v2/" + strings.Replace(s.registry.Host(), ":", "_", 1) + "/org/app/"
	must := func(path, in string) {
		t.Helper()
		if body, err := fetch(t, at, base+path, ""); err != nil || !strings.Contains(string(body), in) {
			t.Errorf("%s: %v, %q lacks %q", at, err, body, in)
		}
	}
	must("manifests/v1", s.amd64.String())
	for _, d := range []digest.Digest{s.index, s.amd64, s.arm64} {
		must("manifests/"+d.String(), "schemaVersion")
	}
	for _, d := range s.layers {
		must("blobs/"+d.String(), "layer")
	}
	must("referrers/"+s.index.String(), s.signature.String())
	must("referrers/"+s.amd64.String(), `"manifests":[]`)
	must("manifests/"+s.signature.String(), "application/vnd.example.signature")
	must("manifests/"+s.signed, "schemaVersion")
	must("tags/list", `"v1"`)
	must("tags/list?n=1000", `"v1"`)
	if _, err := fetch(t, at, base+"manifests/"+strings.TrimSuffix(s.signed, "sig")+"att", ""); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%s: an attestation that is not there: %v", at, err)
	}
	if !private {
		return
	}
	if _, err := fetch(t, at, strings.Replace(base, "org/app", "org/other", 1)+"blobs/"+s.layers[0].String(), ""); err == nil {
		t.Errorf("%s: a private layer is served for a repository that was not imported", at)
	}
}

// What is damaged or missing in a file is named, and nothing wrong enters the cache.
func TestABadFileIsNotImported(t *testing.T) {
	t.Parallel()
	s := newShipment(t)
	online, addr := nodeConfig(t, s.registry, t.TempDir(), "")
	start(t, addr, "serve", "-c", online)
	dir := t.TempDir()
	good := filepath.Join(dir, "good.tar")
	if got := call(t.Context(), "export", "-c", online, "-o", good, "-platform", "linux/arm64", s.registry.Host()+"/org/app:v1"); got.status != exitDone {
		t.Fatalf("%+v", got)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content string
		want    string
	}{
		"empty":     {"", "there is no index.json in it"},
		"no tar":    {strings.Repeat("no tar file. ", 100), "reading"},
		"cut":       {string(whole[:len(whole)/2]), ""},
		"a layer":   {strings.Replace(string(whole), "layer of arm64", "layer of ARM64", 1), "not those that the digest names"},
		"a digest":  {strings.ReplaceAll(string(whole), s.index.Encoded(), strings.Repeat("0", 64)), ""},
		"no images": {strings.Replace(string(whole), "blobs/sha256/"+s.arm64.Encoded(), "blobs/sha256/"+strings.Repeat("0", 64), 1), ""},
	} {
		file := filepath.Join(dir, "bad.tar")
		if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := call(t.Context(), "import", "-c", online, file)
		if got.status != exitFailed || !strings.Contains(got.err, c.want) {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}

// Commands about files that cannot work say why.
func TestExportAndImportUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"export":                                   "usage: oci-proxy export",
		"export alpine":                            "usage: oci-proxy export",
		"export alpine -o x -platform linux":       `"linux" is not a platform`,
		"export -o x -addr 127.0.0.1:1 alpine:3":   "exporting alpine:3",
		"export -o x -addr 127.0.0.1:1 UPPER.io/A": "exporting UPPER.io/A: the name is not valid",
		"import":     "usage: oci-proxy import",
		"import a b": "usage: oci-proxy import",
		"import -addr 127.0.0.1:1 /nowhere/images.tar": "no such file",
	} {
		if got := call(t.Context(), strings.Fields(args)...); got.status == exitDone || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v, want %q", args, got, want)
		}
	}
}

// warm pulls what a file and arguments name, says what failed, and an outage shows that it
// is all there. The schedule does the same at the start.
func TestWarmPullsIntoTheCache(t *testing.T) {
	t.Parallel()
	s := newShipment(t)
	host := s.registry.Host()
	s.registry.PutImage("org/other", "v2", []byte("another layer"))
	file, addr := nodeConfig(t, s.registry, t.TempDir(), fmt.Sprintf("auth: {username: u, password: p, htpasswd_file: %q}\nwarm: [{images: [%q], platforms: [all]}]", users(t, "bob"), host+"/org/other:v2"))
	start(t, addr, "serve", "-c", file)
	compose := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(compose, fmt.Appendf(nil, "services: {a: {image: %q}}", host+"/org/app:v1"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := call(t.Context(), "warm", "-c", file, "-f", compose, "org/none:v1", "-platform", "linux/arm64")
	wantIn(t, got.out, host+"/org/app:v1 is "+s.index.String())
	if wantIn(t, got.err, "org/none:v1 failed: ", "1 of 2 images failed"); got.status != exitFailed {
		t.Errorf("%+v", got)
	}
	if got := call(t.Context(), "warm", "-c", file, "-o", "json", "-platform", "linux/s390x", host+"/org/app:v1"); got.status != exitFailed || !strings.Contains(got.out, "no manifest for linux/s390x, only for linux/amd64, linux/arm64") {
		t.Errorf("%+v", got)
	}
	testkit.Await(t, "the schedule has pulled its image", func() bool { return s.registry.Count(http.MethodGet, "org/other/blobs/") == 2 })
	s.registry.Down()
	if n := s.registry.Count(http.MethodGet, "/blobs/"+s.layers[1].String()); n != 0 {
		t.Errorf("a layer of a platform that nobody wants was pulled %d times", n)
	}
	for _, path := range []string{"org/app/blobs/" + s.layers[3].String(), "org/app/manifests/" + s.signature.String()} {
		if _, err := fetch(t, addr, "/v2/"+path, ""); err != nil {
			t.Error(err)
		}
	}
}

// Only admins may change what is cached, and no page of another site.
func TestWhoMayWarmAndImport(t *testing.T) {
	t.Parallel()
	s := newShipment(t)
	file, addr := nodeConfig(t, s.registry, t.TempDir(), fmt.Sprintf("auth: {username: u, password: p, htpasswd_file: %q}", users(t, "bob")))
	start(t, addr, "serve", "-c", file)
	for _, c := range []struct {
		user, kind, origin string
		want               int
	}{
		{"", "application/json", "", http.StatusUnauthorized},
		{"bob", "application/json", "", http.StatusForbidden},
		{"u", "text/plain", "", http.StatusUnsupportedMediaType},
		{"u", "", "", http.StatusUnsupportedMediaType},
		{"u", "application/json", "https://evil.example", http.StatusForbidden},
		{"u", "application/json", "http://" + addr, http.StatusBadRequest},
	} {
		for path, own := range map[string]string{"/_/warm": "application/json", "/_/import": "application/x-tar"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if c.user != "" {
				req.SetBasicAuth(c.user, "p")
			}
			if kind := strings.Replace(c.kind, "application/json", own, 1); kind != "" {
				req.Header.Set("Content-Type", kind)
			}
			if c.origin != "" {
				req.Header.Set("Origin", c.origin)
			}
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("%s %+v: %s", path, c, resp.Status)
			}
		}
	}
}

// users writes an htpasswd file with a user whose password is p.
func users(t *testing.T, name string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("p"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%s:%s\n", name, hash), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
