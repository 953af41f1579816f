package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

func TestOneLineForEachRequest(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 1000))
	p := newProxy(t, up, settings{})
	manifest := "/v2/" + repo + "/manifests/"
	for _, c := range []struct {
		method, path  string
		status, bytes float64
		source        string
		host          bool
	}{
		{"GET", blobPath(img.Layers[0]), 200, 1000, "miss", true},
		{"GET", blobPath(img.Layers[0]), 200, 1000, "hit", false},
		{"HEAD", blobPath(img.Layers[0]), 200, 0, "hit", false},
		{"GET", manifest + "v1", 200, float64(len(img.ManifestBytes)), "miss", true},
		{"GET", manifest + "v1", 200, float64(len(img.ManifestBytes)), "checked", true},
		{"HEAD", manifest + "v1", 200, 0, "checked", true},
		{"GET", manifest + img.Manifest.String(), 200, float64(len(img.ManifestBytes)), "hit", false},
		{"GET", "/v2/" + repo + "/tags/list", 200, 33, "miss", true},
		{"HEAD", "/v2/" + repo + "/tags/list", 200, 0, "miss", true},
	} {
		p.do(c.method, c.path)
		l := p.line(repo)
		for key, want := range map[string]any{
			"level": "INFO", "client": "127.0.0.1", "method": c.method, "registry": up.Host(), "image": repo,
			"status": c.status, "bytes": c.bytes, "source": c.source, "error": nil, "path": nil,
		} {
			if l[key] != want {
				t.Errorf("%s %s: %s is %v, want %v", c.method, c.path, key, l[key], want)
			}
		}
		ref := c.path[strings.LastIndexByte(c.path, '/')+1:]
		if (l["upstream_host"] == up.Host()) != c.host || number(l["took_ms"]) <= 0 || number(l["first_byte_ms"]) <= 0 || l["queue_ms"] == nil || l["request_id"] == nil || l["user_agent"] != "Go-http-client/1.1" || ref != "list" && l["tag"] != ref && l["digest"] != ref {
			t.Errorf("%s %s: line %v", c.method, c.path, l)
		}
	}
	p.get("/v2/" + repo + "/manifests/none")
	if l := p.line(`"tag":"none"`); l["status"] != 404.0 || l["upstream_host"] != up.Host() || !strings.Contains(fmt.Sprint(l["error"]), "not found") {
		t.Errorf("line %v", l)
	}
	p.get("/nothing/" + strings.Repeat("x", 5000) + "%0A?token=abc")
	if l := p.line("/nothing/"); len(fmt.Sprint(l["path"])) > 400 || l["status"] != 404.0 || strings.Contains(fmt.Sprint(l), "abc") {
		t.Errorf("line %v", l)
	}
	up.Down()
	p.get(manifest + "v1")
	if l := p.line(`"source":"stale"`); l["status"] != 200.0 || l["upstream_host"] != up.Host() {
		t.Errorf("line %v", l)
	}
	if n := strings.Count(p.log.String(), `"msg":"request"`); n != 12 {
		t.Errorf("%d lines for 12 requests", n)
	}
}

// number returns a number of a line, -1 for anything else.
func number(v any) float64 {
	if f, ok := v.(float64); ok {
		return f
	}
	return -1
}

// canary is part of every secret of this test.
const canary = "canary-5c1f"

func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	bearer := upstreamtest.BearerAuth{User: "robot", Password: canary + "-registry"}
	up := upstreamtest.New(t, upstreamtest.Bearer(bearer), upstreamtest.Redirect())
	img := up.PutImage(repo, "v1", random(1, 1000))
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	defer refusing.Close()
	down := upstreamtest.New(t)
	down.Down()
	p := newProxy(t, up, settings{
		top:      "auth: {username: puller, password: " + canary + "-proxy}",
		registry: "auth: {username: robot, password: " + canary + "-registry}",
		more: fmt.Sprintf("  behind.example.com: {upstream_proxy: %q}\n  wrong.example.com: {upstream_proxy: %q, auth: {username: u, password: %s}}",
			strings.Replace(refusing.URL, "http://", "http://u:"+canary+"-up@", 1), "socks5://u:"+canary+"-socks@"+down.Host(), canary),
	})
	var said testkit.Log
	var asked sync.WaitGroup // all at once, since some failures take a while
	right := basic("puller", canary+"-proxy")
	see := func(path string, header ...string) {
		asked.Go(func() {
			resp, err := p.try(http.MethodGet, path, header...)
			if err != nil {
				t.Error(err)
				return
			}
			a := read(resp)
			fmt.Fprintln(&said, a.StatusCode, a.Header, string(a.body))
		})
	}
	look := func() {
		for _, path := range []string{"/v2/" + repo + "/manifests/v1", blobPath(img.Layers[0]), "/v2/" + repo + "/tags/list?n=1&Signature=" + canary, "/v2/a/b/tags/list?ns=behind.example.com"} {
			see(path, right...)
			see(path+"%20?token="+canary, right...)
			see(path, basic("puller", canary+"-guess")...)
			see(path, "Authorization", "Bearer "+canary)
		}
		see("/_/stats", right...)
		see("/_/health")
		see("/")
		see("/v2/", right...)
	}
	look()
	asked.Wait()
	up.RevokeTokens()
	up.RevokeLinks()
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Server: "cdn"}, Status: 403, Body: "no such signature"})
	see("/v2/"+repo+"/blobs/"+up.PutBlob(repo, random(2, 10)).String(), right...)
	asked.Wait()
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Server: "token"}, Status: 401})
	see("/v2/"+repo+"/manifests/other", right...)
	see("/v2/a/b/tags/list?ns=wrong.example.com", right...)
	asked.Wait()
	up.Down()
	look()
	asked.Wait()

	words := []string{canary, "Signature=", "Expires="}
	for _, r := range up.Requests() {
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			words = append(words, token)
		}
	}
	if len(words) < 5 {
		t.Fatal("no token was used")
	}
	for _, word := range words {
		for name, text := range map[string]string{"log": p.log.String(), "answers": said.String()} {
			for line := range strings.Lines(text) {
				if strings.Contains(line, word) {
					t.Errorf("%q is in the %s: %s", word, name, line)
				}
			}
		}
	}
	for line := range strings.Lines(p.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is not JSON: %s", line)
		}
	}
}
