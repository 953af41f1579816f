package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

func TestStatsCountEachPullOnce(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 1000))
	p := newProxy(t, up, settings{defaults: "cache_max_size: 1m"})
	manifest := "/v2/" + repo + "/manifests/"
	for _, step := range []struct {
		method, path string
		header       []string
		hits, misses int64
	}{
		{http.MethodHead, blobPath(img.Config), nil, 0, 0},
		{http.MethodGet, blobPath(img.Config), nil, 0, 1},
		{http.MethodGet, blobPath(img.Config), nil, 1, 1},
		{http.MethodHead, blobPath(img.Config), nil, 1, 1},
		{http.MethodGet, blobPath(img.Config), []string{"Range", "bytes=0-0"}, 2, 1},
		{http.MethodGet, manifest + "v1", nil, 2, 1},
		{http.MethodGet, manifest + "v1", nil, 2, 1},
		{http.MethodHead, manifest + "v1", nil, 2, 1},
		{http.MethodHead, manifest + img.Manifest.String(), nil, 2, 1},
		{http.MethodGet, manifest + img.Manifest.String(), nil, 3, 1}, // the tag brought it
		{http.MethodGet, blobPath(img.Layers[0]), nil, 3, 2},
		{http.MethodGet, manifest + "none", nil, 3, 2},
		{http.MethodGet, "/v2/" + repo + "/tags/list", nil, 3, 2},
		{http.MethodGet, "/v2/", nil, 3, 2},
	} {
		p.do(step.method, step.path, step.header...)
		if s := p.stats()[up.Host()]; s["Hits"] != step.hits || s["Misses"] != step.misses {
			t.Errorf("after %s %s: %v, want %d hits, %d misses", step.method, step.path, s, step.hits, step.misses)
		}
	}
	config := int64(len(p.get(blobPath(img.Config)).body))
	size := 1000 + config + int64(len(img.ManifestBytes))
	s := p.stats()[up.Host()]
	for key, want := range map[string]int64{
		"Hits": 4, "Misses": 2, "PeerHits": 0, "Evictions": 0, "Items": 3, "CurrentSize": size, "MaxSize": 1 << 20, "MissBytes": size,
		// config twice and a byte of it, the manifest by a checked tag and by digest
		"HitBytes": 2*config + 1 + 2*int64(len(img.ManifestBytes)),
	} {
		if got, ok := s[key]; !ok || got != want {
			t.Errorf("%s is %d, want %d", key, got, want)
		}
	}
}

func TestStatsListWhatIsConfiguredAndCountEvictions(t *testing.T) {
	t.Parallel()
	up, own := upstreamtest.New(t), upstreamtest.New(t)
	p := newProxy(t, up, settings{
		defaults: "cache_max_size: 1m",
		more: fmt.Sprintf("  %q: {insecure: true, cache_dir: %q, cache_max_size: 2m}\n  quiet.example.com: {cache_max_size: 300k}",
			own.Host(), t.TempDir()),
	})
	if got := p.stats(); len(got) != 3 || got[up.Host()]["MaxSize"] != 1<<20 || got[own.Host()]["MaxSize"] != 2<<20 || got["quiet.example.com"]["MaxSize"] != 300<<10 {
		t.Errorf("%v", got)
	}
	for i := range 3 {
		content := random(uint64(i), 400<<10)
		p.get(blobPath(up.PutBlob(repo, content))).want(t, 200)
		p.get(blobPath(own.PutBlob(repo, content))+"?ns="+own.Host()).want(t, 200)
	}
	got := p.stats()
	if s := got[up.Host()]; s["Evictions"] != 1 || s["Items"] != 2 || s["CurrentSize"] != 800<<10 {
		t.Errorf("the bounded one: %v", s)
	}
	if s := got[own.Host()]; s["Evictions"] != 0 || s["Items"] != 3 || s["CurrentSize"] != 1200<<10 {
		t.Errorf("the one with a directory of its own: %v", s)
	}
	var totals map[string]int64
	if err := json.Unmarshal(p.get("/v2/").body, &totals); err != nil || totals["max_size"] != 3<<20 || totals["items"] != 5 || totals["misses"] != 6 {
		t.Errorf("totals %v, %v", totals, err)
	}
}

func TestHealthAndReadinessAreOpenAndShort(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	a := p.get("/_/health")
	a.want(t, 200, "Content-Type", "application/json", "Cache-Control", "no-store")
	if string(a.body) != `{"status":"healthy"}` {
		t.Errorf("%s", a.body)
	}
	p.do(http.MethodHead, "/_/health").want(t, 200)
	p.get("/_/ready").want(t, 200)
	p.node.ready.Store(false)
	p.get("/_/ready").want(t, http.StatusServiceUnavailable)
	p.get("/_/health").want(t, 200)
	if strings.Contains(p.log.String(), `"level":"INFO","msg":"request","client":"127.0.0.1","method":"GET","path":"/_/health"`) {
		t.Error("a probe is in the log at info")
	}
}

func TestNodeWithoutItsDirectoryIsDegradedAndServes(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(1, 300<<10)
	d := up.PutBlob(repo, content)
	file := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, up, settings{dir: file})
	var state struct {
		Status  string
		Reasons []string
	}
	a := p.get("/_/health")
	a.want(t, 200)
	if err := json.Unmarshal(a.body, &state); err != nil || state.Status != "degraded" || len(state.Reasons) != 1 || !strings.Contains(state.Reasons[0], file) {
		t.Errorf("%s, %v", a.body, err)
	}
	p.get("/_/ready").want(t, 200)
	for range 2 {
		a := p.get(blobPath(d))
		a.want(t, 200, "Cache-Status", "oci-proxy; fwd=uri-miss")
		if !slices.Equal(a.body, content) {
			t.Error("wrong bytes")
		}
	}
}

func TestDirectoriesThatAreOneShareOneStore(t *testing.T) {
	t.Parallel()
	up, other := upstreamtest.New(t), upstreamtest.New(t)
	dir := t.TempDir()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(wd, dir)
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, up, settings{dir: dir, more: fmt.Sprintf("  %q: {insecure: true, cache_dir: %q}", other.Host(), relative+"//")})
	if a := p.get("/_/health"); string(a.body) != `{"status":"healthy"}` {
		t.Errorf("%s", a.body)
	}
	content := random(1, 100)
	d := up.PutBlob(repo, content)
	p.get(blobPath(d)).want(t, 200, "Cache-Status", "oci-proxy; fwd=uri-miss; stored")
	p.get(blobPath(d)+"?ns="+other.Host()).want(t, 200, "Cache-Status", "oci-proxy; hit")
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	file := filepath.Join(dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
	if b, err := os.ReadFile(file); err != nil || !slices.Equal(b, content) {
		t.Errorf("the blob's file holds %d bytes, %v", len(b), err)
	}
}
