package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

// A vault is a node in front of a private registry, with an image that a client has
// pulled. evil is an attacker's registry, which the operator allows.
type vault struct {
	*proxy
	evil  *upstreamtest.Registry
	img   upstreamtest.Image
	layer []byte
	conf  string // of the registry
}

// newVault pulls the image once.
func newVault(t *testing.T, conf string) *vault {
	t.Helper()
	v := buildVault(t, conf)
	v.open(t.TempDir())
	v.fill()
	return v
}

// newOldVault is newVault for an image that was pulled that long ago and before a
// restart. That is when the registry vouched for it.
func newOldVault(t *testing.T, conf string, age time.Duration) *vault {
	t.Helper()
	v, dir := buildVault(t, conf), t.TempDir()
	v.open(dir)
	v.fill()
	v.close()
	ageGrants(t, dir, age)
	v.open(dir)
	return v
}

// buildVault puts the image into its registry.
func buildVault(t *testing.T, conf string) *vault {
	layer := random(21, 100<<10)
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: "robot", Password: robotsPassword}))
	return &vault{proxy: &proxy{t: t, up: up}, evil: upstreamtest.New(t), layer: layer, img: up.PutImage(repo, "v1", layer), conf: conf}
}

// open serves a node in front of the registries.
func (v *vault) open(dir string) {
	v.t.Helper()
	v.proxy = newProxy(v.t, v.up, settings{
		dir:      dir,
		registry: "auth: {username: robot, password: " + robotsPassword + "}" + v.conf,
		more:     fmt.Sprintf("  %q: {insecure: true, alias: [evil]}", v.evil.Host()),
	})
}

// fill pulls the image.
func (v *vault) fill() {
	v.t.Helper()
	v.get(v.manifest("v1")).want(v.t, 200)
	if a := v.get(v.blob("")); !bytes.Equal(a.body, v.layer) {
		v.t.Fatalf("%d, %d bytes", a.StatusCode, len(a.body))
	}
	v.log.Await(v.t, `"msg":"blob filled"`, 1) // the grant has been noted before this line
}

// ageGrants makes every grant in the notes of a cache directory that old.
func ageGrants(t *testing.T, dir string, age time.Duration) {
	t.Helper()
	const size = 48 // of a record: its kind, 32 bytes of keys, a time, padding, a checksum
	files, err := filepath.Glob(filepath.Join(dir, "notes", "*.grants"))
	if err != nil || len(files) == 0 {
		t.Fatalf("notes: %v, %v", files, err)
	}
	aged := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for r := range slices.Chunk(b[bytes.IndexByte(b, '\n')+1:], size) {
			if r[0] == 'v' {
				binary.BigEndian.PutUint64(r[33:], uint64(time.Now().Add(-age).UnixNano()))
				binary.BigEndian.PutUint32(r[size-4:], crc32.Checksum(r[:size-4], crc32.MakeTable(crc32.Castagnoli)))
				aged++
			}
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if aged == 0 {
		t.Fatal("the registry vouched for nothing")
	}
}

func (v *vault) manifest(ref string) string { return "/v2/" + repo + "/manifests/" + ref }

// blob is the path of the layer, in another repository if one is named.
func (v *vault) blob(repository string) string {
	if repository == "" {
		repository = repo
	}
	return "/v2/" + repository + "/blobs/" + v.img.Layers[0].String()
}

// wantNothing fails the test if one of the paths gives content.
func (v *vault) wantNothing(paths ...string) {
	v.t.Helper()
	for _, path := range paths {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, header := range [][]string{nil, {"Range", "bytes=0-10"}, {"If-None-Match", "*"}, {"If-None-Match", `"` + v.img.Layers[0].String() + `"`}} {
				a := v.do(method, path, header...)
				if a.StatusCode < 400 || bytes.Contains(a.body, v.layer[:10]) || bytes.Contains(a.body, []byte(v.img.Config)) {
					v.t.Errorf("%s %s %v: %d, %d bytes", method, path, header, a.StatusCode, len(a.body))
				}
			}
		}
	}
}

func privateAttacks() []attack {
	guarded := func(name, conf string, run func(t *testing.T, v *vault)) attack {
		return attack{name, "content of the private registry is served", func(t *testing.T) { run(t, newVault(t, conf)) }}
	}
	aged := func(name, conf string, age time.Duration, run func(t *testing.T, v *vault)) attack {
		return attack{name, "content of the private registry is served", func(t *testing.T) { run(t, newOldVault(t, conf, age)) }}
	}
	claims := http.Header{"Content-Type": {upstreamtest.TypeManifest}, "Content-Length": {"102400"}}
	return []attack{
		guarded("a client asks for a private digest in another repository", "", func(_ *testing.T, v *vault) {
			v.wantNothing(v.blob("strangers/app"), "/v2/strangers/app/manifests/"+v.img.Manifest.String(), "/v2/strangers/app/blobs/"+v.img.Manifest.String())
		}),
		guarded("a client asks another registry for a private digest", "", func(_ *testing.T, v *vault) {
			v.wantNothing(v.blob("evil/"+repo), "/v2/evil/"+repo+"/manifests/"+v.img.Manifest.String())
		}),
		guarded("a registry claims a private digest by HEAD", "", func(_ *testing.T, v *vault) {
			h := claims.Clone()
			h.Set("Docker-Content-Digest", v.img.Layers[0].String())
			v.evil.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead}, Status: 200, Header: h})
			for _, path := range []string{v.blob("evil/" + repo), "/v2/evil/" + repo + "/manifests/" + v.img.Manifest.String()} {
				if a := v.get(path); a.StatusCode < 400 {
					v.t.Errorf("%s: %d", path, a.StatusCode)
				}
			}
		}),
		guarded("a registry lists a private digest in a manifest of its own", "", func(_ *testing.T, v *vault) {
			v.evil.PutManifest("x/y", "v1", upstreamtest.TypeManifest, v.img.ManifestBytes)
			v.get("/v2/evil/x/y/manifests/v1")
			v.wantNothing(v.blob("evil/x/y"))
		}),
		guarded("a registry's tag means a private manifest", "", func(t *testing.T, v *vault) {
			h := claims.Clone()
			h.Set("Docker-Content-Digest", v.img.Manifest.String())
			v.evil.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead}, Status: 200, Header: h})
			if a := v.get("/v2/evil/x/y/manifests/v1"); a.StatusCode < 400 || bytes.Contains(a.body, []byte(v.img.Config)) {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
		}),
		guarded("a registry redirects a private digest to nowhere and hopes for the cache", "", func(_ *testing.T, v *vault) {
			v.evil.Fault(upstreamtest.Fault{Status: 304})
			v.wantNothing(v.blob("evil/" + repo))
		}),
		aged("a client whose right was revoked asks when the word has ended", "", time.Hour, func(_ *testing.T, v *vault) {
			v.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Server: "registry"}, Status: 403, BeforeAuth: true})
			v.wantNothing(v.blob(""), v.manifest("v1"))
		}),
		guarded("a client whose right was revoked waits for an outage", "", func(_ *testing.T, v *vault) {
			v.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Server: "registry"}, Status: 403, BeforeAuth: true})
			v.get(v.manifest("v1")).want(v.t, http.StatusForbidden)
			v.up.Down()
			v.wantNothing(v.blob(""), v.manifest("v1"))
		}),
		guarded("a client whose login was revoked (401) waits for an outage", "", func(_ *testing.T, v *vault) {
			v.up.Fault(upstreamtest.Fault{Status: 401, BeforeAuth: true})
			v.get(v.manifest("v1")).want(v.t, http.StatusForbidden)
			v.up.Down()
			v.wantNothing(v.blob(""), v.manifest("v1"))
		}),
		aged("a client asks during an outage, after stale_if_error", ", stale_if_error: 1m", 2*time.Minute+vouchTime, func(_ *testing.T, v *vault) {
			v.up.Fault(upstreamtest.Fault{Status: 503, BeforeAuth: true, Header: http.Header{"Retry-After": {"99"}}})
			v.wantNothing(v.blob(""))
		}),
		aged("a client asks during an outage where nothing is served stale", ", stale_if_error: 0s", time.Hour, func(_ *testing.T, v *vault) {
			v.up.Fault(upstreamtest.Fault{Status: 503, BeforeAuth: true, Header: http.Header{"Retry-After": {"99"}}})
			v.wantNothing(v.blob(""))
		}),
		{"an outage, and a client that has the right", "it is turned away", func(t *testing.T) {
			v := newOldVault(t, "", time.Hour)
			v.up.Fault(upstreamtest.Fault{Status: 503, BeforeAuth: true, Header: http.Header{"Retry-After": {"99"}}})
			if a := v.get(v.blob("")); !bytes.Equal(a.body, v.layer) {
				t.Errorf("%d, %d bytes", a.StatusCode, len(a.body))
			}
		}},
		{"a client joins a private download for another repository", "bytes of it come", func(t *testing.T) {
			v := newVault(t, "")
			content := random(22, 300<<10)
			d := v.up.PutBlob(repo, content)
			defer halve(v.up, d.Encoded(), 300<<10)()
			own := v.send(http.MethodGet, blobPath(d))
			defer own.Body.Close()
			a := v.get("/v2/strangers/app/blobs/" + d.String())
			if a.StatusCode < 400 {
				t.Errorf("%d, %d bytes", a.StatusCode, len(a.body))
			}
		}},
		{"a cache on the way keeps private content", "it is told that it may", func(t *testing.T) {
			v := newVault(t, "")
			v.get(v.blob("")).want(t, 200, "Cache-Control", "private, max-age=31536000, immutable")
			v.get(v.manifest("v1")).want(t, 200, "Cache-Control", "no-cache")
		}},
		{"a client asks for referrers and tags of a repository that it may not see", "they come from somewhere", func(t *testing.T) {
			v := newVault(t, "")
			v.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Server: "registry"}, Status: 403, BeforeAuth: true})
			for _, path := range []string{"/v2/" + repo + "/tags/list", "/v2/" + repo + "/referrers/" + v.img.Manifest.String()} {
				v.get(path).wantError(t, http.StatusForbidden, "DENIED")
			}
		}},
	}
}

// vouchTime is how long a grant counts without asking the registry again.
const vouchTime = 10 * time.Minute

func nameAttacks() []attack {
	barred := func(name, path string) attack {
		return attack{"whitelist_mode, and a client names a registry " + name, "it is asked", func(t *testing.T) {
			w := newWorld(t, settings{top: "whitelist_mode: true", more: "  good.example.org: {alias: [good]}"})
			w.net.others = serveHello
			w.wantRefused(w.ask(http.MethodGet, path))
			for _, v := range w.net.all() {
				if !strings.HasSuffix(v.to, "://reg.example.com:443") && !strings.HasSuffix(v.to, "://good.example.org:443") {
					t.Errorf("%s was asked", v.to)
				}
			}
		}}
	}
	blob := "/blobs/" + helloDigest
	return []attack{
		barred("by its name", "/v2/evil.net/a/b"+blob),
		barred("by ns", "/v2/a/b"+blob+"?ns=evil.net"),
		barred("by ns behind an allowed one", "/v2/good.example.org/a/b"+blob+"?ns=evil.net"),
		barred("by a second ns", "/v2/a/b"+blob+"?ns=evil.net&ns=good.example.org"),
		barred("in upper case", "/v2/EVIL.NET/a/b"+blob),
		barred("with an allowed one's port", "/v2/good.example.org:8443/a/b"+blob),
		barred("with an underscore for a port", "/v2/evil.net_443/a/b"+blob),
		barred("with a trailing dot", "/v2/good.example.org./a/b"+blob),
		barred("that ends like an allowed one", "/v2/evilgood.example.org/a/b"+blob),
		barred("with an escaped slash", "/v2/good.example.org%2f@evil.net/a/b"+blob),
		barred("with a user", "/v2/good.example.org@evil.net/a/b"+blob),
		barred("with an empty ns and a name", "/v2/evil.net/a/b"+blob+"?ns="),
		{"a client names hundreds of registries that there are not", "each costs memory for good", func(t *testing.T) {
			w := newWorld(t, settings{})
			for i := range 300 {
				w.get(fmt.Sprintf("/v2/r%d.evil.net/a/b%s", i, blob))
			}
			w.settle()
			if n := len(w.stats()); n > 1 {
				t.Errorf("%d registries in the statistics", n)
			}
		}},
		{"a client names a registry that stands in every path of the API", "it is taken for another", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.host("https://reg.example.com", serveHello)
			for _, path := range []string{"/v2/manifests/blobs/tags/list/blobs/" + helloDigest, "/v2/blobs/blobs/blobs/" + helloDigest} {
				w.wantHello(w.ask(http.MethodGet, path))
			}
		}},
	}
}
