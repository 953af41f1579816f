package node

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oci-proxy/node/config"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// classes are the kinds of secret that a node is given or shown.
var classes = []string{
	"own password", "registry password", "registry password file", "second registry password", "registry token",
	"upstream proxy", "another upstream proxy", "signed query", "login in a redirect", "refused redirect", "cluster secret", "old cluster secret",
	"clients password", "clients wrong password", "clients token", "clients cookie", "clients query", "registrys cookie", "registrys header",
}

// secretOf returns the canary of a class: a word that occurs nowhere else, and is long
// enough to be a cluster's secret.
func secretOf(class string) string {
	return "cnry-" + strings.ReplaceAll(class, " ", "-") + "-5e1f"
}

// TestCanarySweep gives a node a secret of each class and makes it succeed and fail in
// every way that we could think of. It then looks for the secrets in everything that the
// node answers, logs at the debug level and writes to its disk.
func TestCanarySweep(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	if len(classes) < 12 {
		t.Errorf("%d classes", len(classes))
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(secretOf("registry password file")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	down := upstreamtest.New(t)
	down.Down()
	s := settings{
		dir: t.TempDir(), proxyPassword: secretOf("upstream proxy"),
		top: fmt.Sprintf("auth: {username: puller, password: %s}\ncluster: {name: me, bind_addr: '127.0.0.1:0', peer_addr: '127.0.0.1:0', secrets: [%s, %s]}",
			secretOf("own password"), secretOf("cluster secret"), secretOf("old cluster secret")),
		registry: "auth: {username: robot, password: " + secretOf("registry password") + "}",
		more: fmt.Sprintf("  basic.example.org: {auth: {username: robot, password_file: %q}}\n  hand.example.org: {auth: {username: robot, password: %s}, follow_redirects: false}\n  behind.example.org: {upstream_proxy: \"socks5://u:%s@%s\"}",
			file, secretOf("second registry password"), secretOf("another upstream proxy"), down.Host()),
	}
	w := newWorld(t, s)
	w.innocence = false // this test makes stricter checks itself
	sweep := &sweep{world: w}
	sweep.hosts()
	sweep.visit()
	sweep.broken()
	w.settle()
	sweep.hear("log", w.log.String())
	sweep.files(s.dir)
	for _, class := range classes {
		if !sweep.used(class) {
			t.Errorf("the %s was never used, so nothing was tested about it", class)
		}
	}
	sweep.judge()
}

// A sweep collects everything that a node tells anybody.
type sweep struct {
	*world
	said []string // "where: what"
}

func (s *sweep) hear(where, what string) { s.said = append(s.said, where+": "+what) }

// hosts starts the hosts that use the secrets.
func (s *sweep) hosts() {
	leak := func(h http.Header) {
		h.Set("Set-Cookie", "a="+secretOf("registrys cookie"))
		h.Set("X-Debug", secretOf("registrys header"))
	}
	s.net.host("https://auth.example.com", giveThe(secretOf("registry token")))
	s.net.host("https://reg.example.com", func(rw http.ResponseWriter, r *http.Request) {
		leak(rw.Header())
		switch auth := r.Header.Get("Authorization"); {
		case auth != "Bearer "+secretOf("registry token"):
			rw.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.example.com/token",service="`+secretOf("signed query")+`"`)
			rw.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "/refused/"):
			http.Redirect(rw, r, "http://10.0.0.1/?Signature="+secretOf("refused redirect"), http.StatusFound)
		case strings.Contains(r.URL.Path, "/broken/"):
			rw.WriteHeader(http.StatusInternalServerError)
		default:
			http.Redirect(rw, r, "https://u:"+secretOf("login in a redirect")+"@cdn.example.net/x?Signature="+secretOf("signed query"), http.StatusFound)
		}
	})
	s.net.host("https://cdn.example.net", func(rw http.ResponseWriter, r *http.Request) {
		leak(rw.Header())
		rw.Header().Set("Content-Type", upstreamtest.TypeManifest)
		_, _ = rw.Write([]byte("hello"))
	})
	s.net.host("https://basic.example.org", challenge(""))
	s.net.host("https://hand.example.org", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			challenge("")(rw, r)
			return
		}
		rw.Header().Set("Retry-After", "99")
		rw.WriteHeader(http.StatusServiceUnavailable)
	})
}

// visit asks for everything, with every login that a client might send.
func (s *sweep) visit() {
	right := basic("puller", secretOf("own password"))
	logins := [][]string{nil, right, basic("puller", secretOf("clients wrong password")), basic("hubuser", secretOf("clients password")), {"Authorization", "Bearer " + secretOf("clients token")}}
	blob := "/blobs/" + helloDigest
	paths := []string{
		"/", "/app.js", "/nothing", "/v2/", "/v2/_catalog", "/_/health", "/_/ready", "/_/stats", "/_/stats?scope=node", "/_/metrics", "/_/cluster", "/_/upstreams", "/_/owner/" + helloDigest, "/_/owner/x",
		"/v2/team/app/manifests/v1", "/v2/team/app" + blob, "/v2/team/app/tags/list", "/v2/team/app/referrers/" + helloDigest, "/v2/refused/app" + blob, "/v2/refused/app/manifests/v1",
		"/v2/broken/app/manifests/v1", "/v2/basic.example.org/a/b" + blob, "/v2/basic.example.org/a/b/manifests/v1", "/v2/hand.example.org/a/b" + blob, "/v2/behind.example.org/a/b/manifests/v1",
		"/v2/nowhere.example.net/a/b/manifests/v1", "/v2/127.0.0.1/a/b/manifests/v1", "/v2/a/b/manifests/%zz", "/v2/A/B/manifests/v1", "/v2/team/app/manifests/" + strings.Repeat("x", 200),
	}
	results := make(chan string, len(paths)*len(logins))
	for _, path := range paths {
		go func() {
			for _, login := range logins {
				sep := "?"
				if strings.Contains(path, "?") {
					sep = "&"
				}
				resp, err := s.try(http.MethodGet, path+sep+"token="+secretOf("clients query"), append([]string{"Cookie", "s=" + secretOf("clients cookie"), "Referer", "https://x/?" + secretOf("clients query")}, login...)...)
				if err != nil {
					results <- "error of the test's client" // the error itself repeats the URL
					continue
				}
				a := read(resp)
				results <- fmt.Sprint(a.StatusCode, a.Header, string(a.body))
			}
		}()
	}
	for range cap(results) {
		s.hear("answer", <-results)
	}
}

// broken makes the node fail in ways that a request alone cannot.
func (s *sweep) broken() {
	srv := quiet(s.node.logged(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(errors.New("a bug")) })))
	srv.Start()
	defer srv.Close()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, srv.URL+"/v2/a/b/tags/list?x="+secretOf("clients query"), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth("puller", secretOf("own password"))
	if resp, err := s.client.Do(req); err == nil {
		_ = resp.Body.Close()
	}
	rec := httptest.NewRecorder()
	fail(rec, req, s.node.gate, 0, errors.New("unforeseen"))
	s.hear("answer", rec.Body.String())
	s.hear("config", fmt.Sprintf("%v %+v %#v", s.node.cfg, s.node.cfg, *s.node.cfg))
	text := fmt.Sprintf("port: x\nauth: {username: u, password: [%s]}\ndefaults: {upstream_proxy: 'ftp://u:%s@p'}\ncluster: {secret: ['%s']}\nregistries: {a.io: {auth: {password: '%s'}}}",
		secretOf("own password"), secretOf("upstream proxy"), secretOf("cluster secret"), secretOf("registry password"))
	_, err = config.Parse("c.yaml", []byte(text), []string{"HTTPS_PROXY=http://u:" + secretOf("upstream proxy") + "%zz@p"})
	s.hear("check", fmt.Sprint(err))
}

// files collects the content and the names of all files on the disk.
func (s *sweep) files(dir string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		s.hear("disk", path+" "+string(text))
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
}

// used reports whether the secret was used at all: the node knew it, or a host saw it
// that may see it.
func (s *sweep) used(class string) bool {
	switch class {
	case "own password", "cluster secret", "old cluster secret", "upstream proxy", "another upstream proxy", "refused redirect", "login in a redirect":
		return true // in the config, or in an answer that the node received
	case "registrys cookie", "registrys header":
		return true
	}
	if strings.HasPrefix(class, "clients ") {
		return true // visit sends them
	}
	secret := secretOf(class)
	for _, v := range s.net.all() {
		text := v.String()
		if strings.Contains(text, secret) || strings.Contains(text, basicOf("robot", secret)) {
			return true
		}
	}
	return false
}

// judge fails the test for each secret that was found, plain or encoded.
func (s *sweep) judge() {
	hits := 0
	for _, class := range classes {
		secret := secretOf(class)
		forms := []string{secret, fmt.Sprintf("%x", secret), base64.StdEncoding.EncodeToString([]byte(secret))}
		for _, user := range []string{"robot", "puller", "hubuser", "u", "out"} {
			forms = append(forms, basicOf(user, secret))
		}
		for _, said := range s.said {
			for _, form := range forms {
				if i := strings.Index(said, form); i >= 0 {
					hits++
					s.t.Errorf("%s: …%s…", class, said[max(0, i-200):min(len(said), i+len(form)+50)])
				}
			}
		}
	}
	size := 0
	for _, said := range s.said {
		size += len(said)
	}
	s.t.Logf("%d classes, %d outputs, %d bytes: %d hits", len(classes), len(s.said), size, hits)
}
