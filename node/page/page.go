// Package page serves the page at "/": what a visitor pastes becomes the command that
// pulls it through this proxy; the other views set up clients and show what the cluster
// does.
//
// All files are embedded and the same for every visitor; the work is done in the
// browser. web/app.js is the shell: it says what a view is, and which there are. Read
// it first.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

//go:embed web
var web embed.FS

// policy lets the page load its own files and nothing else. A hostile image name
// that got into the document could neither run nor contact anybody.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// dockerHub is the default registry if none is configured.
const dockerHub = "registry-1.docker.io"

// types are the files' content types, by the end of the name. They are listed here
// because the table of package mime depends on the machine.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// A site holds the page's files by URL path.
type site map[string]file

// A file is the answer at one path.
type file struct {
	contentType string
	etag        string
	content     []byte
}

// New returns the handler of "/" and of the page's files. It answers any other path
// with 404, and any method but GET and HEAD with 405.
//
// baseURL is how clients reach the proxy; only its scheme, host and port are used.
// If it is empty or not an http(s) URL, the page uses the address that it was
// loaded from. defaultRegistry is the registry of names without one; empty means
// Docker Hub. aliases maps a registry's host[:port] to the first part of a path
// that stands for it. The page needs it for registries with a port, since a path
// can't contain a port.
func New(baseURL, defaultRegistry string, aliases map[string]string) http.Handler {
	s := make(site)
	files, err := web.ReadDir("web")
	if err != nil {
		panic("page: " + err.Error()) // the build lacks its files; the tests would fail
	}
	for _, f := range files {
		name := f.Name()
		content, err := web.ReadFile("web/" + name)
		if err != nil {
			panic("page: " + err.Error())
		}
		path := "/" + name
		if name == "index.html" {
			path = "/"
			content = render(string(content), baseURL, defaultRegistry, aliases)
		}
		sum := sha256.Sum256(content)
		s[path] = file{types[filepath.Ext(name)], `"` + hex.EncodeToString(sum[:16]) + `"`, content}
	}
	return s
}

// ServeHTTP answers with the file at the request's path.
func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	f, ok := s[r.URL.Path]
	if !ok {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	header.Set("Content-Type", f.contentType)
	header.Set("ETag", f.etag)
	header.Set("Cache-Control", "no-cache") // browsers revalidate, so a new version shows at once
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}

// render fills the configuration into the page. html/template escapes it: base_url
// and aliases are text, not HTML.
func render(index, baseURL, defaultRegistry string, aliases map[string]string) []byte {
	if defaultRegistry == "" {
		defaultRegistry = dockerHub
	}
	if aliases == nil {
		aliases = map[string]string{}
	}
	names, err := json.Marshal(aliases)
	if err != nil {
		panic("page: " + err.Error()) // strings always marshal
	}
	origin, host := address(baseURL)
	var page bytes.Buffer
	err = template.Must(template.New("index.html").Parse(index)).Execute(&page, struct {
		Origin, Host, Registry, Aliases string
	}{origin, host, defaultRegistry, string(names)})
	if err != nil {
		panic(fmt.Sprintf("page: filling in index.html: %v", err)) // the template is embedded; the tests would fail
	}
	return page.Bytes()
}

// address returns what the page may show of base_url: its origin (scheme and host),
// and the host alone. It never shows path, query or credentials.
func address(baseURL string) (origin, host string) {
	if !strings.Contains(baseURL, "://") && baseURL != "" {
		baseURL = "https://" + baseURL
	}
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", ""
	}
	return u.Scheme + "://" + u.Host, u.Host
}
