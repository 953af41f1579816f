package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// hostile lists headers that no client may receive.
var hostile = http.Header{
	"Set-Cookie": {"session=evil; Path=/"}, "Www-Authenticate": {`Basic realm="phish"`, `Bearer realm="https://evil.net"`}, "Server": {"evil/1"},
	"X-Powered-By": {"evil"}, "Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Credentials": {"true"}, "Refresh": {"0; url=https://evil.net"},
	"Strict-Transport-Security": {"max-age=1"}, "Location": {"https://evil.net/"}, "Content-Disposition": {"attachment; filename=evil.exe"}, "X-Evil": {"1"},
	"Alt-Svc": {`h2="evil.net:443"`}, "Clear-Site-Data": {`"*"`}, "Content-Security-Policy": {"script-src *"}, "X-Content-Type-Options": {"sniff"},
	"Link": {`<https://evil.net/next>; rel="next"`}, "Content-Language": {"evil"}, "Warning": {`299 - "evil"`}, "Age": {"99"}, "Via": {"1.1 evil"},
	"Cache-Control": {"public, max-age=1"}, "Cache-Status": {"evil; hit"}, "Retry-After": {"x\tevil"}, "Etag": {`"evil"`}, "Vary": {"*"},
	"Oci-Filters-Applied": {"evil\tevil"},
}

// answersOf lists a request for each kind of content.
func answersOf(img upstreamtest.Image) map[string]string {
	return map[string]string{
		"a tag": "/v2/" + repo + "/manifests/v1", "a manifest": "/v2/" + repo + "/manifests/" + img.Manifest.String(),
		"a blob": blobPath(img.Layers[0]), "a list of tags": "/v2/" + repo + "/tags/list", "a list of referrers": "/v2/" + repo + "/referrers/" + img.Manifest.String(),
	}
}

func headerAttacks() []attack {
	var all []attack
	for _, status := range []int{200, 301, 401, 403, 404, 429, 500, 418} {
		all = append(all, attack{fmt.Sprintf("a registry sends its headers with %d", status), "a client sees one of them", func(t *testing.T) {
			up := upstreamtest.New(t)
			img := up.PutImage(repo, "v1", []byte("layer"))
			f := upstreamtest.Fault{Header: hostile.Clone()}
			if status != 200 {
				f.Status, f.Body = status, `<script>alert(1)</script>`
				f.Header.Set("Content-Type", "text/html")
				f.Header.Set("Retry-After", "99")
			} else {
				f.Header.Del("Location")
				f.Header.Del("Etag")
			}
			up.Fault(f)
			p := newProxy(t, up, settings{registry: "stale_if_error: 0s"})
			for name, path := range answersOf(img) {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					a := p.do(method, path)
					decent(t, a)
					if s := fmt.Sprint(a.Header); strings.Contains(s, "evil") && !strings.Contains(s, "Oci-Filters-Applied:[evil evil]") || strings.Contains(string(a.body), "alert") {
						t.Errorf("%s of %s: %s %s", method, name, s, a.body)
					}
					if status != 200 && a.StatusCode < 400 {
						t.Errorf("%s of %s: %d", method, name, a.StatusCode)
					}
				}
			}
		}})
	}
	for _, kind := range []string{
		"text/html", "text/html; charset=utf-8", "application/xhtml+xml", "image/svg+xml", "text/javascript", "application/javascript", "text/css",
		"application/pdf", "application/xml", "multipart/x-mixed-replace", "TEXT/HTML", "application/json\ttext/html", "message/rfc822", "",
	} {
		all = append(all, attack{fmt.Sprintf("a registry calls everything %q", kind), "a browser shows or runs it", func(t *testing.T) {
			up := upstreamtest.New(t)
			page := []byte(`{"mediaType":"text/html","schemaVersion":2,"x":"<script>alert(1)</script>"}`)
			d := up.PutManifest(repo, "v1", kind, page)
			img := upstreamtest.Image{Manifest: d}
			img.Layers = append(img.Layers, up.PutBlob(repo, []byte("<script>alert(1)</script>")))
			up.Fault(upstreamtest.Fault{Header: http.Header{"Content-Type": {kind}}})
			p := newProxy(t, up, settings{})
			for range 2 { // fresh, then cached
				for _, path := range answersOf(img) {
					decent(t, p.get(path))
					decent(t, p.do(http.MethodHead, path))
				}
			}
		}})
	}
	return append(all, attack{"a client sends its own login, cookies and where it comes from", "any of it goes upstream", func(t *testing.T) {
		w := newWorld(t, settings{more: "  open.example.org: {}"})
		w.net.host("https://auth.example.com", giveToken)
		w.net.host("https://reg.example.com", challenge("https://auth.example.com/token"))
		w.net.host("https://open.example.org", serveHello)
		w.pull() // ask sends them all, and innocent looks for them
		w.wantHello(w.ask(http.MethodGet, "/v2/open.example.org/a/b/blobs/"+helloDigest))
		for _, path := range []string{"manifests/v1", "manifests/" + helloDigest, "blobs/" + helloDigest} {
			w.ask(http.MethodGet, "/v2/open.example.org/a/b/"+path+"?"+clientsSecret+"="+clientsSecret+"&token="+clientsSecret)
		}
		// What a registry pages its lists by may have any key, but not that of a login (RFC 6750 section 2.3).
		w.ask(http.MethodGet, "/v2/open.example.org/a/b/tags/list?n=1&access_token="+clientsSecret+"&acces%73_token="+clientsSecret)
		w.ask(http.MethodGet, "/v2/open.example.org/a/b/referrers/"+helloDigest+"?access_token="+clientsSecret)
	}}, attack{"docker 20 shows its user's Docker Hub password to a mirror", "it goes upstream, or stays in the log", func(t *testing.T) {
		w := newWorld(t, settings{registry: "insecure: false"})
		w.places[basicOf("hubuser", clientsSecret)] = ""
		w.net.host("https://auth.example.com", giveToken)
		w.net.host("https://reg.example.com", challenge("https://auth.example.com/token"))
		w.places[robotsToken] = "https://reg.example.com:443"
		for _, path := range []string{"/v2/", "/v2/team/app/manifests/v1", "/v2/team/app/blobs/" + helloDigest, "/_/stats"} {
			w.do(http.MethodGet, path, basic("hubuser", clientsSecret)...)
		}
		if log := w.log.String(); strings.Contains(log, "hubuser") || strings.Contains(log, basicOf("hubuser", clientsSecret)) {
			t.Errorf("log:\n%s", log)
		}
	}}, attack{"docker 20 shows that password to a mirror with a login of its own", "it lets the user in, or goes upstream", func(t *testing.T) {
		w := newWorld(t, settings{top: login + "}"})
		w.net.host("https://reg.example.com", challenge(""))
		a := w.do(http.MethodGet, "/v2/team/app/manifests/v1", basic("puller", clientsSecret)...)
		a.wantError(t, http.StatusUnauthorized, "UNAUTHORIZED")
		if n := len(w.net.all()); n > 0 {
			t.Errorf("%d requests upstream", n)
		}
	}}, attack{"a client asks for ranges, encodings and versions of its own", "its words go upstream", func(t *testing.T) {
		up := upstreamtest.New(t)
		img := up.PutImage(repo, "v1", random(1, 300<<10))
		p := newProxy(t, up, settings{})
		for _, path := range answersOf(img) {
			p.get(path, "Range", "bytes=7-9", "If-Range", "x", "Accept-Encoding", "gzip, br, evil", "If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT",
				"Accept", "evil/type, */*;q=0.1", "User-Agent", "evil/1", "TE", "trailers", "Origin", "https://evil.net", "Pragma", "no-cache", "Cache-Control", "no-store")
		}
		for _, r := range up.Requests() {
			if s := fmt.Sprint(r.Header); strings.Contains(s, "evil") || r.Header.Get("Range") != "" || r.Header.Get("Accept-Encoding") != "identity" || len(r.Header) > 4 || !strings.HasPrefix(r.Header.Get("Via"), "1.1 oci-proxy") {
				t.Errorf("upstream got %s", s)
			}
		}
	}}, attack{"a registry writes control characters into its message", "they reach the terminal or the log", func(t *testing.T) {
		up := upstreamtest.New(t)
		message, err := json.Marshal("\x1b[2J\x07\r\nlevel=ERROR \u202egnp.exe \u2028 </script><script>alert(1)</script>" + strings.Repeat("A", 5000))
		if err != nil {
			t.Fatal(err)
		}
		up.Fault(upstreamtest.Fault{Status: 403, Body: `{"errors":[{"code":"DENIED","message":` + string(message) + `}]}`, Header: http.Header{"Content-Type": {"application/json"}}})
		p := newProxy(t, up, settings{})
		a := p.get("/v2/" + repo + "/manifests/v1")
		d := a.wantError(t, http.StatusForbidden, "DENIED")
		for where, text := range map[string]string{"answer": d.Reason, "log": p.log.String()} {
			if strings.ContainsAny(text, "\x1b\x07\r\u202e\u2028") || strings.Contains(text, "\nlevel=ERROR") || strings.Contains(text, strings.Repeat("A", 1000)) {
				t.Errorf("%s: %q", where, text)
			}
		}
		if strings.Contains(string(a.body), "<script>") {
			t.Errorf("%s", a.body)
		}
	}}, attack{"a client writes lines into the log", "a line of its making stands there", func(t *testing.T) {
		p := newProxy(t, upstreamtest.New(t), settings{})
		line := `%0a{"level":"ERROR","msg":"request","client":"forged"}%0a`
		for _, path := range []string{"/v2/a/b/manifests/" + line, "/x" + line, "/v2/" + line + "/b/tags/list", "/v2/a/b/tags/list?ns=" + line} {
			p.get(path, "X-Forwarded-For", "1.2.3.4\t\"client\":\"forged\"", "User-Agent", "a\tb")
		}
		p.settle()
		for line := range strings.Lines(p.log.String()) {
			var l map[string]any
			if json.Unmarshal([]byte(line), &l) != nil || l["client"] == "forged" {
				t.Errorf("line %q", line)
			}
		}
	}}, attack{"a registry links to a next page elsewhere", "a client is sent there", func(t *testing.T) {
		for _, link := range []string{
			`<https://evil.net/v2/x/tags/list?last=z&n=5>; rel="next"`, `<//evil.net/?last=z>; rel=next`, `<javascript:alert(1)?last=z>; rel="next"`,
			`</v2/hidden/tags/list?last=z&ns=evil.net&account=root>; rel="next"`, "<?last=%0d%0aSet-Cookie:%20x>; rel=next",
		} {
			up := upstreamtest.New(t)
			up.PutImage(repo, "v1", []byte("layer"))
			up.Fault(upstreamtest.Fault{Header: http.Header{"Link": {link}}})
			p := newProxy(t, up, settings{})
			a := p.get("/v2/" + repo + "/tags/list?n=5")
			decent(t, a)
			if got := a.Header.Get("Link"); got != "" && !strings.HasPrefix(got, "</v2/"+repo+"/tags/list?") || strings.Contains(got, "ns=") || strings.Contains(got, "account") {
				t.Errorf("%s became %s", link, got)
			}
		}
	}})
}
