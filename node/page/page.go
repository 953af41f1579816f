// Package page serves the page at "/": paste an image's name, get the command
// that pulls it through this proxy and gives it its usual name back.
//
// Everything on it is embedded and the same for each visitor; the work is done
// in the browser (web/reference.js), so nothing that is typed there ever
// reaches a server.
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
	"strings"
	"time"
)

//go:embed web
var web embed.FS

// policy lets the page load its own files and nothing else: a hostile image
// name that found its way into the document could still neither run nor phone.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// dockerHub is the registry that bare names mean where nothing else is configured.
const dockerHub = "registry-1.docker.io"

// types are the files' content types. They are spelled out because mime's
// table depends on the machine.
var types = map[string]string{
	"index.html":   "text/html; charset=utf-8",
	"style.css":    "text/css; charset=utf-8",
	"app.js":       "text/javascript; charset=utf-8",
	"i18n.js":      "text/javascript; charset=utf-8",
	"reference.js": "text/javascript; charset=utf-8",
	"icon.svg":     "image/svg+xml",
}

// A site is the page's files by URL path.
type site map[string]file

// A file is what one path answers.
type file struct {
	contentType string
	etag        string
	content     []byte
}

// New returns the handler of "/" and of the page's files; any other path is
// 404, any method but GET and HEAD 405.
//
// baseURL is how clients reach the proxy; of it only scheme, host and port are
// used. Where it is empty or no http(s) URL the page takes the address it was
// loaded from. defaultRegistry is the registry of names that have none, Docker
// Hub if empty. aliases maps a registry's host[:port] to the first part of a
// path that stands for it; the page needs it for registries with a port, which
// cannot stand in a path.
func New(baseURL string, defaultRegistry string, aliases map[string]string) http.Handler {
	s := make(site, len(types))
	for name, contentType := range types {
		content, err := web.ReadFile("web/" + name)
		if err != nil {
			panic("page: " + err.Error()) // a build without its files: the tests would have told
		}
		path := "/" + name
		if name == "index.html" {
			path = "/"
			content = render(string(content), baseURL, defaultRegistry, aliases)
		}
		sum := sha256.Sum256(content)
		s[path] = file{contentType, `"` + hex.EncodeToString(sum[:16]) + `"`, content}
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
	header.Set("Cache-Control", "no-cache") // kept, but asked for again: a new version shows at once
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}

// render fills the configuration into the page. html/template does the
// escaping: base_url and aliases are an operator's text, not HTML.
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
		panic(fmt.Sprintf("page: filling in index.html: %v", err)) // the template is ours: the tests would have told
	}
	return page.Bytes()
}

// address returns what the page may know of base_url: scheme and host, and the
// host alone. Path, query and above all credentials stay here.
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
