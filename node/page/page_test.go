package page

import (
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ask returns the page's answer to one request.
func ask(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// body returns the answer's body as text.
func body(t *testing.T, w *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEachFileIsServedWithItsTypeAndHeaders(t *testing.T) {
	t.Parallel()
	h := New("", "", nil)
	files := map[string]string{
		"/":                "text/html; charset=utf-8",
		"/app.js":          "text/javascript; charset=utf-8",
		"/i18n.js":         "text/javascript; charset=utf-8",
		"/words-pull.js":   "text/javascript; charset=utf-8",
		"/words-doctor.js": "text/javascript; charset=utf-8",
		"/reference.js":    "text/javascript; charset=utf-8",
		"/style.css":       "text/css; charset=utf-8",
		"/icon.svg":        "image/svg+xml",
	}
	for path, contentType := range files {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			w := ask(h, method, path)
			want := map[string]string{
				"Content-Type":            contentType,
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
				"X-Content-Type-Options":  "nosniff",
				"Referrer-Policy":         "no-referrer",
				"Cache-Control":           "no-cache",
			}
			for name, value := range want {
				if got := w.Header.Get(name); got != value {
					t.Errorf("%s %s: %s = %q, want %q", method, path, name, got, value)
				}
			}
			if w.StatusCode != http.StatusOK || w.Header.Get("Content-Length") == "" {
				t.Errorf("%s %s: status %d, Content-Length %q", method, path, w.StatusCode, w.Header.Get("Content-Length"))
			}
			if empty := body(t, w) == ""; empty != (method == http.MethodHead) {
				t.Errorf("%s %s: body is empty: %v", method, path, empty)
			}
		}
	}
}

func TestAKnownETagGets304AndAnUnknownOneTheFile(t *testing.T) {
	t.Parallel()
	h := New("", "", nil)
	for _, path := range []string{"/", "/app.js", "/style.css"} {
		tag := ask(h, http.MethodGet, path).Header.Get("ETag")
		if !regexp.MustCompile(`^"[0-9a-f]{32}"$`).MatchString(tag) {
			t.Fatalf("%s: ETag %q", path, tag)
		}
		w := ask(h, http.MethodGet, path, "If-None-Match", `"other", W/`+tag)
		if w.StatusCode != http.StatusNotModified || body(t, w) != "" || w.Header.Get("ETag") != tag {
			t.Errorf("%s: known ETag: status %d, ETag %q", path, w.StatusCode, w.Header.Get("ETag"))
		}
		if w := ask(h, http.MethodGet, path, "If-None-Match", `"other"`); w.StatusCode != http.StatusOK {
			t.Errorf("%s: other ETag: status %d", path, w.StatusCode)
		}
	}
}

func TestADifferentConfigurationHasADifferentETag(t *testing.T) {
	t.Parallel()
	a := ask(New("", "", nil), http.MethodGet, "/").Header.Get("ETag")
	b := ask(New("https://proxy.example.com", "", nil), http.MethodGet, "/").Header.Get("ETag")
	if a == b {
		t.Errorf("both ETags are %s", a)
	}
}

func TestAnyOtherPathIsAPlain404(t *testing.T) {
	t.Parallel()
	h := New("", "", nil)
	for _, path := range []string{"/index.html", "/web/app.js", "/favicon.ico", "//", "/app.js/", "/..%2fpage.go", "/page.go"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			w := ask(h, method, path)
			if w.StatusCode != http.StatusNotFound || w.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s %s: %d %s", method, path, w.StatusCode, w.Header.Get("Content-Type"))
			}
			if w.Header.Get("X-Content-Type-Options") != "nosniff" || w.Header.Get("Content-Security-Policy") == "" {
				t.Errorf("%s %s: headers are missing: %v", method, path, w.Header)
			}
		}
	}
}

func TestAnyMethodButGETAndHEADIs405(t *testing.T) {
	t.Parallel()
	h := New("", "", nil)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "PROPFIND"} {
		w := ask(h, method, "/")
		if w.StatusCode != http.StatusMethodNotAllowed || w.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, w.StatusCode, w.Header.Get("Allow"))
		}
	}
}

// attributes returns the attributes of the page's html element, unescaped.
func attributes(t *testing.T, page string) map[string]string {
	t.Helper()
	element := regexp.MustCompile(`<html[^>]*>`).FindString(page)
	got := make(map[string]string)
	unescape := strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&amp;", "&", "&#43;", "+")
	for _, m := range regexp.MustCompile(`data-([a-z]+)="([^"]*)"`).FindAllStringSubmatch(element, -1) {
		got[m[1]] = unescape.Replace(m[2])
	}
	return got
}

func TestBaseURLReachesThePageAsSchemeAndHostOnly(t *testing.T) {
	t.Parallel()
	for baseURL, want := range map[string]string{
		"":                               "",
		"https://proxy.example.com":      "https://proxy.example.com",
		"http://proxy.example.com:8080/": "http://proxy.example.com:8080",
		"proxy.example.com:8080":         "https://proxy.example.com:8080",
		"https://user:hunter2@proxy.example.com/p?q=hunter2": "https://proxy.example.com",
		"javascript://alert(1)":                              "",
		"https://":                                           "",
		"://":                                                "",
		"http://a b/":                                        "",
	} {
		page := body(t, ask(New(baseURL, "", nil), http.MethodGet, "/"))
		if got := attributes(t, page)["origin"]; got != want {
			t.Errorf("%q: data-origin = %q, want %q", baseURL, got, want)
		}
		if strings.Contains(page, "hunter2") {
			t.Errorf("%q: a credential is on the page", baseURL)
		}
	}
}

func TestConfigurationCannotBreakOutOfThePage(t *testing.T) {
	t.Parallel()
	const evil = `"'><script>alert(1)</script><!--{{.}}`
	aliases := map[string]string{"localhost:5000": evil, evil: "x"}
	for _, baseURL := range []string{evil, "https://" + evil, `https://a"onload="x`} {
		page := body(t, ask(New(baseURL, evil, aliases), http.MethodGet, "/"))
		if strings.Contains(page, "<script>") || strings.Contains(page, `"onload`) || strings.Count(page, "<script") != 2 {
			t.Errorf("%q broke out", baseURL)
		}
		got := attributes(t, page)
		if got["registry"] != evil {
			t.Errorf("data-registry = %q", got["registry"])
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(got["aliases"]), &back); err != nil || !maps.Equal(back, aliases) {
			t.Errorf("data-aliases = %q: %v", got["aliases"], err)
		}
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	t.Parallel()
	got := attributes(t, body(t, ask(New("", "", nil), http.MethodGet, "/")))
	if got["registry"] != "registry-1.docker.io" || got["aliases"] != "{}" {
		t.Errorf("got %v", got)
	}
}

func TestNoFileHasInlineCodeOrAForeignAddress(t *testing.T) {
	t.Parallel()
	forbidden := map[string]*regexp.Regexp{
		"an inline script":      regexp.MustCompile(`(?i)<script(?:\s+type="module")?\s*>`),
		"an inline style":       regexp.MustCompile(`(?i)<style|\sstyle\s*=\s*"`),
		"an event attribute":    regexp.MustCompile(`(?i)\son[a-z]+\s*=\s*"`),
		"a foreign address":     regexp.MustCompile(`(?i)(?:src|href|url|import|from)\s*[=(]?\s*["']?(?:https?:)?//`),
		"text read as HTML":     regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser`),
		"text read as a script": regexp.MustCompile(`\beval\(|new Function|javascript:`),
	}
	files, err := fs.ReadDir(web, "web")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := types[filepath.Ext(f.Name())]; !ok {
			t.Errorf("%s has no content type, so it is not served", f.Name())
		}
		content, err := web.ReadFile("web/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for what, pattern := range forbidden {
			if m := pattern.Find(content); m != nil {
				t.Errorf("%s has %s: %q", f.Name(), what, m)
			}
		}
	}
}
