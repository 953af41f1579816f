package node

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

func TestPingAnswersTotalsAndAsksNobody(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(1, 1000))
	p := newProxy(t, up, settings{defaults: "cache_max_size: 1m"})
	for range 3 {
		p.get(blobPath(d))
	}
	before := len(up.Requests())
	for _, path := range []string{"/v2/", "/v2", "/v2/?ns=docker.io"} {
		a := p.get(path)
		a.want(t, http.StatusOK, "Docker-Distribution-Api-Version", "registry/2.0", "Content-Type", "application/json")
		var got map[string]int64
		if err := json.Unmarshal(a.body, &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{"nodes": 1, "hits": 2, "peer_hits": 0, "misses": 1, "items": 1, "current_size": 1000, "max_size": 1 << 20}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("GET %s: %v, want %v", path, got, want)
		}
		head := p.do(http.MethodHead, path)
		head.want(t, http.StatusOK, "Content-Length", strconv.Itoa(len(a.body)), "Docker-Distribution-Api-Version", "registry/2.0")
	}
	if n := len(up.Requests()); n != before {
		t.Errorf("%d requests upstream", n-before)
	}
}

func TestNamesLeadToTheRegistryTheyMean(t *testing.T) {
	t.Parallel()
	hub, other := upstreamtest.New(t), upstreamtest.New(t)
	for _, up := range []*upstreamtest.Registry{hub, other} {
		for _, name := range []string{"app", "team/app", "a/b/c/d/e/f"} {
			up.PutManifest(name, "v1", upstreamtest.TypeManifest, fmt.Appendf(nil, `{"name":"%s %s"}`, up.Host(), name))
		}
	}
	p := newProxy(t, hub, settings{more: fmt.Sprintf("  %q: {insecure: true, alias: [ex, other.example]}", other.Host())})
	host, underscored := other.Host(), strings.Replace(other.Host(), ":", "_", 1)
	for _, c := range []struct {
		path, ns string
		up       *upstreamtest.Registry
		name     string
	}{
		{"app", "", hub, "app"}, // library/ is for Docker Hub only
		{"team/app", "", hub, "team/app"},
		{"a/b/c/d/e/f", "", hub, "a/b/c/d/e/f"},
		{hub.Host() + "/team/app", "", hub, "team/app"},
		{host + "/team/app", "", other, "team/app"},
		{strings.ToUpper(host) + "/team/app", "", other, "team/app"},
		{underscored + "/team/app", "", other, "team/app"},
		{underscored + "/app", "", other, "app"},
		{"ex/team/app", "", other, "team/app"},
		{"other.example/app", "", other, "app"},
		{"team/app", host, other, "team/app"},
		{host + "/team/app", host, other, "team/app"}, // clients with a path prefix name the registry twice
		{underscored + "/team/app", host, other, "team/app"},
		{"ex/team/app", host, other, "team/app"},
	} {
		path := "/v2/" + c.path + "/manifests/v1"
		if c.ns != "" {
			path += "?ns=" + c.ns
		}
		a := p.get(path)
		a.want(t, http.StatusOK, "OCI-Namespace", c.ns)
		if want := fmt.Sprintf(`{"name":"%s %s"}`, c.up.Host(), c.name); string(a.body) != want {
			t.Errorf("%s: %q, want %q", path, a.body, want)
		}
	}
	for _, r := range append(hub.Requests(), other.Requests()...) {
		if strings.Contains(r.RawQuery, "ns=") || r.Header.Get("X-Forwarded-For") != "" {
			t.Errorf("upstream got %s?%s %v", r.Path, r.RawQuery, r.Header)
		}
	}
}

func TestManifestsKeepUpstreamsBytesAndTypes(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{})
	for i, mediaType := range []string{
		upstreamtest.TypeManifest, upstreamtest.TypeIndex, "application/vnd.docker.distribution.manifest.v2+json",
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v1+prettyjws",
		"application/vnd.oci.image.manifest.v1+json; charset=utf-8",
	} {
		content := fmt.Appendf(nil, "{ \"odd\" :\t%d}\r\n\n", i)
		tag := "v" + strconv.Itoa(i)
		d := up.PutManifest(repo, tag, mediaType, content)
		for _, ref := range []string{d.String(), tag, d.String(), tag} {
			a := p.get("/v2/"+repo+"/manifests/"+ref, "Accept", "application/json", "Accept", "*/*")
			a.want(t, 200, "Content-Type", mediaType, "Content-Length", strconv.Itoa(len(content)), "Docker-Content-Digest", d.String(),
				"Content-Security-Policy", "default-src 'none'; sandbox", "X-Content-Type-Options", "nosniff")
			if !bytes.Equal(a.body, content) {
				t.Errorf("%s: %q, want %q", mediaType, a.body, content)
			}
			p.do(http.MethodHead, "/v2/"+repo+"/manifests/"+ref).want(t, 200, "Content-Type", mediaType, "Content-Length", strconv.Itoa(len(content)))
		}
	}
}

func TestTagsAreCheckedEachTimeAndSaySo(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{})
	path := "/v2/" + repo + "/manifests/latest"
	for i, want := range []string{"oci-proxy; fwd=uri-miss; stored", "oci-proxy; fwd=stale; stored", "oci-proxy; fwd=stale"} {
		content := fmt.Sprintf(`{"release":%d}`, min(i, 1))
		up.PutManifest(repo, "latest", upstreamtest.TypeManifest, []byte(content))
		a := p.get(path)
		a.want(t, 200, "Cache-Status", want, "Cache-Control", "no-cache", "Vary", "Accept", "Warning", "")
		if string(a.body) != content {
			t.Errorf("request %d: %q, want %q", i, a.body, content)
		}
	}
	if n := up.Count(http.MethodGet, "/manifests/"); n != 2 {
		t.Errorf("%d manifests were fetched, want 2: a check is a HEAD", n)
	}
	if s := p.stats()[up.Host()]; s["Hits"] != 0 || s["Misses"] != 0 || s["HitBytes"] == 0 || s["MissBytes"] == 0 {
		t.Errorf("stats %v: a tag's manifest counts as bytes, not as a pull", s)
	}
}

func TestTagIsBelievedForItsTTL(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{registry: "tag_ttl: 1h"})
	up.PutManifest(repo, "v1", upstreamtest.TypeManifest, []byte(`{"v":1}`))
	path := "/v2/" + repo + "/manifests/v1"
	p.get(path)
	asked := len(up.Requests())
	p.get(path).want(t, 200, "Cache-Status", "oci-proxy; hit")
	p.do(http.MethodHead, path).want(t, 200, "Cache-Status", "oci-proxy; hit", "Content-Length", "7")
	if len(up.Requests()) != asked {
		t.Error("upstream was asked")
	}
}

func TestListsComeWithLinksThatLeadBackHere(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage("a/b", "t0", []byte("layer"))
	for i := range 5 {
		up.PutManifest("a/b", fmt.Sprint("t", i), upstreamtest.TypeManifest, img.ManifestBytes)
		up.PutManifest("a/b", "", upstreamtest.TypeManifest, fmt.Appendf(nil, `{"i":%d,"artifactType":"sig/%d","subject":{"digest":%q}}`, i, i%2, img.Manifest))
	}
	p := newProxy(t, up, settings{registry: "alias: [ex]"})
	for _, c := range []struct {
		path, query, mediaType string
		pages                  int
	}{
		{"/v2/a/b/tags/list", "n=2", "application/json", 3},
		{"/v2/ex/a/b/tags/list", "n=4", "application/json", 2},
		{"/v2/" + up.Host() + "/a/b/tags/list", "n=2&last=t1", "application/json", 2},
		{"/v2/a/b/tags/list", "n=2&ns=" + up.Host(), "application/json", 3},
		{"/v2/a/b/tags/list", "", "application/json", 1},
		{"/v2/a/b/referrers/" + img.Manifest.String(), "n=3&ns=" + up.Host(), upstreamtest.TypeIndex, 2},
		{"/v2/ex/a/b/referrers/" + img.Manifest.String(), "n=2", upstreamtest.TypeIndex, 3},
		{"/v2/ex/a/b/referrers/" + img.Manifest.String(), "artifactType=sig%2F0&n=2", upstreamtest.TypeIndex, 2},
	} {
		next := c.path + "?" + c.query
		pages := 0
		for ; next != "" && pages < 9; pages++ {
			a := p.get(next)
			a.want(t, 200, "Content-Type", c.mediaType, "Content-Length", strconv.Itoa(len(a.body)))
			if filter := strings.Contains(c.query, "artifactType"); filter != (a.Header.Get("OCI-Filters-Applied") == "artifactType") {
				t.Errorf("%s: OCI-Filters-Applied %q", next, a.Header.Get("OCI-Filters-Applied"))
			}
			p.do(http.MethodHead, next).want(t, 200, "Content-Length", strconv.Itoa(len(a.body)), "Link", a.Header.Get("Link"))
			link, ok := strings.CutPrefix(a.Header.Get("Link"), "<")
			link, _, _ = strings.Cut(link, `>; rel="next"`)
			if ok && (!strings.HasPrefix(link, c.path+"?") || strings.Contains(c.query, "ns=") != strings.Contains(link, "ns=")) {
				t.Errorf("%s leads to %s", next, link)
			}
			next = link
		}
		if pages != c.pages {
			t.Errorf("%s?%s: %d pages, want %d", c.path, c.query, pages, c.pages)
		}
	}
	a := p.get("/v2/a/b/tags/list?n=2&cursor=%2f1&ns=" + up.Host())
	if want := `{"name":"a/b","tags":["t0","t1"]}`; string(a.body) != want {
		t.Errorf("%s, want upstream's own %s", a.body, want)
	}
	for _, r := range up.Requests() {
		if strings.Contains(r.RawQuery, "ns=") {
			t.Errorf("upstream got ?%s", r.RawQuery)
		}
	}
}

func TestWritesAreRefusedAndNeverForwarded(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"} {
		for _, path := range []string{"/v2/", "/v2/team/app/blobs/uploads/", "/v2/team/app/manifests/v1", "/v2/_catalog"} {
			c := p.dial()
			fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, path)
			resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "GET", URL: mustURL(t, path)})
			if err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			a := read(resp)
			if method == "CONNECT" && a.StatusCode == http.StatusBadRequest {
				continue // net/http reads the path as a host
			}
			a.want(t, http.StatusMethodNotAllowed, "Allow", "GET, HEAD")
			a.wantError(t, http.StatusMethodNotAllowed, "UNSUPPORTED")
		}
	}
	if n := len(up.Requests()); n > 0 {
		t.Errorf("upstream saw %d requests", n)
	}
}

func TestPathsThatNameNothingAreOCIErrors(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{})
	for path, want := range map[string]string{
		"/v2/_catalog":                        "404 NAME_UNKNOWN",
		"/v2/x":                               "404 NAME_UNKNOWN",
		"/v2//":                               "404 NAME_UNKNOWN",
		"/v2/a/manifests":                     "404 NAME_UNKNOWN",
		"/v2/a/b/c/d":                         "404 NAME_UNKNOWN",
		"/v2/a/blobs/uploads/":                "404 NAME_UNKNOWN",
		"/v2/a%2Fb/manifests/v1":              "404 NAME_UNKNOWN",
		"/v2/a/manifests/%2e%2e":              "404 NAME_UNKNOWN",
		"/v2/../v2/a/manifests/v1":            "400 NAME_INVALID",
		"/v2/a/../b/manifests/v1":             "400 NAME_INVALID",
		"/v2//a//manifests/v1":                "400 NAME_INVALID",
		"/v2/A/manifests/v1":                  "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=a%2Fb":         "400 NAME_INVALID",
		"/v2/a/manifests/-v1":                 "400 MANIFEST_INVALID",
		"/v2/a/blobs/sha256:12":               "400 DIGEST_INVALID",
		"/v2/a/blobs/md5:12":                  "400 DIGEST_INVALID",
		"/v2/a/referrers/v1":                  "400 DIGEST_INVALID",
		"/v2%2Fa/manifests/v1":                "404 NAME_UNKNOWN",
		"/v2/" + strings.Repeat("a/", 600):    "404 NAME_UNKNOWN",
		"/v2/a/tags/list/" + "more/tags/more": "404 NAME_UNKNOWN",
	} {
		status, code, _ := strings.Cut(want, " ")
		n, _ := strconv.Atoi(status)
		if d := p.get(path).wantError(t, n, code); d.Reason == "" {
			t.Errorf("%s: no reason in the detail", path)
		}
	}
	for _, path := range []string{"//v2/", "/./v2/", "/x/../v2/", "//", "/_//health", "/_/health/", "/_/../v2/", "/.."} {
		p.get(path).want(t, http.StatusNotFound, "Location", "")
	}
	if n := len(up.Requests()); n > 0 {
		t.Errorf("upstream saw %d requests", n)
	}
}

// FuzzAccepted checks that Accept headers are split into lower-case types.
func FuzzAccepted(f *testing.F) {
	for _, s := range []string{"", "*/*", "application/json;q=0.5, text/html", ",,;", "A/B , c/d;x=\",\""} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		for _, got := range accepted(http.Header{"Accept": {one, two}}) {
			if got == "" || strings.ContainsAny(got, ",;") || got != strings.TrimSpace(strings.ToLower(got)) {
				t.Errorf("%q and %q give %q", one, two, got)
			}
		}
	})
}
