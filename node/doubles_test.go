package node

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// The doubles are registries that many people pull from, with their manners: how they let
// people in, where their content lies, and what they do otherwise than the standard says.
// Each is a list of manners in front of a registry of package upstreamtest, under its real
// names and over TLS. There is a file for each family; docs/registries.md has the table.

// A double is one of these registries.
type double struct {
	name     string
	host     string // of its API
	called   string // what clients call it; "": host
	path     string // of its API, before /v2/
	repo     string // what the names of its repositories begin with
	guests   bool   // may pull, too
	user     string // of the node's login; "": none
	rotating bool   // the login's password comes from a file, and changes
	config   string // further members of its section in the node's config
	absent   int    // what clients hear of an image that it does not have; 0: 404
	manners  []manner
}

// A manner is one thing that a registry does in its own way.
type manner struct {
	says string // for readers
	// plays returns what answers in the place of next, which answers as the standard says.
	// note is called whenever the manner matters.
	plays func(s *stage, note func(), next http.Handler) http.Handler
}

// doubles returns all of them.
func doubles() []double { return slices.Concat(hostedDoubles, cloudDoubles, ownDoubles) }

func TestDoubles(t *testing.T) {
	t.Parallel()
	for _, d := range doubles() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			d.perform(t)
		})
		if !d.guests || d.user == "" {
			continue
		}
		guest := d
		guest.user = ""
		t.Run(d.name+" for guests", func(t *testing.T) {
			t.Parallel()
			guest.perform(t)
		})
	}
}

// perform pulls from the double as docker, containerd and skopeo do: for the first time,
// again when its tags have moved, its tokens and links have ended and its storage is
// elsewhere, and at last when it is gone. In the middle of the first download all that ends,
// too.
func (d double) perform(t *testing.T) {
	s := newStage(t, d)
	s.push(1)
	s.content.Fault(upstreamtest.Fault{ // the first download outlives its token and its link, and breaks off
		Match:    upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/" + s.base().String()},
		CutAfter: layerSize / 2, Times: 1,
		Wrap: func(http.ResponseWriter, *http.Request) bool {
			s.grow()
			return false
		},
	})
	s.pullAll()
	s.wantMissing()
	cold := s.content.Count(http.MethodGet, s.base().String())

	s.grow()
	s.push(2)
	s.pullAll()
	if warm := s.content.Count(http.MethodGet, s.base().String()); warm != cold {
		t.Errorf("a cached layer was asked for %d times more", warm-cold)
	}

	s.net.stop()
	s.pullAll()
	s.audit()
}

// A stage is a running double and a node in front of it.
type stage struct {
	double
	*proxy
	content *upstreamtest.Registry
	net     *internet
	dir     string                        // of the password's file
	images  map[string]upstreamtest.Image // what the tag means, by style
	blobs   map[digest.Digest][]byte

	mu      sync.Mutex
	age     int               // what was given out in an earlier age has expired
	tokens  map[string]pass   // given out
	links   map[string]string // to the blobs that they lead to
	noted   map[string]bool   // manners that mattered
	trusted []string          // hosts that may see the login, beside the registry
	storage http.HandlerFunc  // answers at links; nil: there are none
}

// layerSize is more than one read.
const layerSize = 600_000

// newStage starts a double and its node.
func newStage(t *testing.T, d double) *stage {
	t.Helper()
	if d.called == "" {
		d.called = d.host
	}
	s := &stage{
		double: d, content: upstreamtest.New(t), net: newInternet(t), dir: t.TempDir(),
		images: map[string]upstreamtest.Image{}, blobs: map[digest.Digest][]byte{},
		tokens: map[string]pass{}, links: map[string]string{}, noted: map[string]bool{},
	}
	h := http.Handler(s.content)
	for _, m := range slices.Backward(d.manners) {
		h = m.plays(s, func() { s.note(m.says) }, h)
	}
	h = s.atLinks(h)
	if d.path != "" {
		h = below(d.path, h)
	}
	s.net.host("https://"+d.host, h.ServeHTTP)
	n, log := newNodeOf(t, s.text(t))
	s.proxy = serving(t, n, log)
	return s
}

// below serves h below a path. Everything else on the host is a page.
func below(path string, h http.Handler) http.Handler {
	inside := http.StripPrefix(path, h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, path+"/") {
			inside.ServeHTTP(w, r)
			return
		}
		say(w, http.StatusNotFound, htmlType, "<html>no such page</html>")
	})
}

// text is the node's config.
func (s *stage) text(t *testing.T) string {
	t.Helper()
	var members []string
	if s.path != "" {
		members = append(members, fmt.Sprintf("path: %q", s.path))
	}
	file := filepath.Join(s.dir, "password")
	write(t, file, s.password())
	switch {
	case s.rotating:
		members = append(members, fmt.Sprintf("auth: {username: %q, password_file: %q}", s.user, file))
	case s.user != "":
		members = append(members, fmt.Sprintf("auth: {username: %q, password: %q}", s.user, s.password()))
	}
	if s.config != "" {
		members = append(members, s.config)
	}
	text := fmt.Sprintf("log_level: debug\ndefaults: {cache_dir: %q, upstream_proxy: %q}\n", t.TempDir(), s.net.url())
	if len(members) > 0 { // a registry that needs nothing is not configured
		text += fmt.Sprintf("registries: {%q: {%s}}\n", s.host, strings.Join(members, ", "))
	}
	return text
}

// password is that of the login, by now.
func (s *stage) password() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.rotating {
		return canary + "-login"
	}
	return fmt.Sprintf("%s-login-%d", canary, s.age)
}

// note remembers that a manner mattered.
func (s *stage) note(says string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted[says] = true
}

// era is the present age.
func (s *stage) era() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.age
}

// grow begins another age.
func (s *stage) grow() {
	s.mu.Lock()
	s.age++
	s.mu.Unlock()
	testkit.Replace(s.t, filepath.Join(s.dir, "password"), s.password()) // fails on a full disk alone
}

// styles are the ways of pulling: each has a repository of its own.
var styles = []string{"docker", "containerd", "skopeo"}

// base is the layer that all images share.
func (s *stage) base() digest.Digest { return s.images["docker"].Layers[0] }

// push makes the tag of each repository mean another image.
func (s *stage) push(n uint64) {
	for i, style := range styles {
		layers := [][]byte{random(1, layerSize), random(100*n+uint64(i), 2000)}
		image := s.content.PutImage(s.repo+style, "v1", layers...)
		s.images[style] = image
		for _, l := range append(layers, s.configOf(style, image)) {
			s.blobs[digest.FromBytes(l)] = l
		}
	}
}

// configOf is the config of an image.
func (s *stage) configOf(style string, image upstreamtest.Image) []byte {
	rec := httptest.NewRecorder()
	s.content.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/v2/"+s.repo+style+"/blobs/"+image.Config.String(), nil))
	return rec.Body.Bytes()
}

// pullAll pulls in every style.
func (s *stage) pullAll() {
	s.t.Helper()
	for _, style := range styles {
		s.pull(style)
	}
}

// pull pulls an image in one style, and compares all that comes.
func (s *stage) pull(style string) {
	s.t.Helper()
	image, name, query := s.images[style], "/v2/"+s.called+"/"+strings.TrimPrefix(s.repo, "library/")+style, ""
	if style == "containerd" {
		name, query = "/v2/"+s.repo+style, "?ns="+s.called
	}
	reference := "v1"
	if style != "skopeo" {
		s.right(s.do(http.MethodHead, name+"/manifests/v1"+query, "Accept", everyType), image.Manifest, nil)
		reference = image.Manifest.String()
	}
	s.right(s.get(name+"/manifests/"+reference+query, "Accept", everyType), image.Manifest, image.ManifestBytes)
	for _, d := range append([]digest.Digest{image.Config}, image.Layers...) {
		var ask []string
		if style == "containerd" {
			s.right(s.do(http.MethodHead, name+"/blobs/"+d.String()+query), d, nil)
			ask = []string{"Range", "bytes=0-"}
		}
		s.right(s.get(name+"/blobs/"+d.String()+query, ask...), d, s.blobs[d])
	}
}

// right fails the test unless an answer is the content of that digest: these bytes, or none
// for a HEAD.
func (s *stage) right(a answer, d digest.Digest, content []byte) {
	s.t.Helper()
	h := a.Header
	switch mediaType := h.Get("Content-Type"); {
	case a.StatusCode != http.StatusOK && a.StatusCode != http.StatusPartialContent:
		s.t.Errorf("%s %s: status %d: %.400s", a.Request.Method, a.Request.URL.Path, a.StatusCode, a.body)
	case h.Get("Docker-Content-Digest") != d.String(), h.Get("Content-Encoding") != "", h.Get("Content-Length") == "",
		mediaType != blobType && mediaType != upstreamtest.TypeManifest, strings.Contains(a.Request.URL.Path, "/manifests/") != (mediaType == upstreamtest.TypeManifest):
		s.t.Errorf("%s %s: %v", a.Request.Method, a.Request.URL.Path, h)
	case !bytes.Equal(a.body, content) || a.err != nil:
		s.t.Errorf("%s %s: other bytes: %d of %d, %v", a.Request.Method, a.Request.URL.Path, len(a.body), len(content), a.err)
	}
}

// wantMissing asks for what the registry does not have.
func (s *stage) wantMissing() {
	s.t.Helper()
	status := cmp.Or(s.absent, http.StatusNotFound)
	code := map[int]string{http.StatusNotFound: "MANIFEST_UNKNOWN", http.StatusForbidden: "DENIED", http.StatusBadGateway: "UNAVAILABLE"}[status]
	s.get("/v2/"+s.called+"/"+s.repo+"none/manifests/v1", "Accept", everyType).wantError(s.t, status, code)
}

// audit fails the test if a manner never mattered, or if a secret went where it does not
// belong.
func (s *stage) audit() {
	s.t.Helper()
	for _, m := range s.manners {
		if !s.noted[m.says] {
			s.t.Errorf("that did not matter in any pull: %s", m.says)
		}
	}
	for _, v := range s.net.all() {
		host := strings.TrimSuffix(strings.TrimPrefix(v.to, "https://"), ":443")
		if strings.Contains(v.header, "Authorization:") && host != s.host && !slices.Contains(s.trusted, host) {
			s.t.Errorf("credentials went to %s: %s", host, v)
		}
		if strings.Contains(v.header, "Cookie:") || strings.HasPrefix(v.to, "http://") {
			s.t.Errorf("a cookie, or a request in the clear: %s", v)
		}
	}
	if s.log.Has(canary) {
		s.t.Error("a secret is in the log")
	}
}
