package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// say returns a server that answers with its name and what it was asked, and
// with a Location as registries give them.
func say(t *testing.T, name string) *url.URL {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Location", "http://"+r.Host+"/v2/a/b/blobs/uploads/1?state=x%2Fy")
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="s"`)
		_, _ = fmt.Fprintf(w, "%s %s %s", name, r.Method, r.URL.RequestURI())
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// ask sends one request to f and returns the answer.
func ask(t *testing.T, f *Front, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	f.Serve().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, target, http.NoBody))
	return w
}

func TestPushesGoPastTheNodeAndReadsThroughIt(t *testing.T) {
	t.Parallel()
	f := &Front{Upstream: say(t, "node"), Writes: say(t, "registry"), Prefix: "up"}
	for _, c := range []struct{ method, target, want string }{
		{"GET", "/v2/up/a/b/manifests/t", "node GET /v2/up/a/b/manifests/t"},
		{"HEAD", "/v2/up/a/b/blobs/sha256:00", ""},
		{"PUT", "/v2/up/a/b/manifests/t", "registry PUT /v2/a/b/manifests/t"},
		{"GET", "/v2/up/a/b/blobs/uploads/1", "registry GET /v2/a/b/blobs/uploads/1"},
		{"PUT", "/v2/up/a/b/blobs/uploads/1?digest=sha256:00", "registry PUT /v2/a/b/blobs/uploads/1?digest=sha256:00"},
		{"PATCH", "/v2/up/up/b/blobs/uploads/1", "registry PATCH /v2/up/b/blobs/uploads/1"},
		{"POST", "/v2/up/a/blobs/uploads/?from=up%2Fc&mount=x", "registry POST /v2/a/blobs/uploads/?from=c&mount=x"},
	} {
		if w := ask(t, f, c.method, c.target); w.Code != http.StatusOK || w.Body.String() != c.want {
			t.Errorf("%s %s: %d %q, want %q", c.method, c.target, w.Code, w.Body, c.want)
		}
	}
	const next = "/v2/up/a/b/blobs/uploads/1?state=x%2Fy"
	if got := ask(t, f, "POST", "/v2/up/a/b/blobs/uploads/").Header().Get("Location"); got != next {
		t.Errorf("an upload goes on at %q, want %q", got, next)
	}
}

func TestBlobsAreSentElsewhereWithASignature(t *testing.T) {
	t.Parallel()
	cdn := &Front{Upstream: say(t, "registry"), Signed: true}
	f := &Front{Upstream: say(t, "registry"), Redirect: &url.URL{Scheme: "http", Host: "cdn"}}
	const blob = "/v2/a/blobs/sha256:00"
	w := ask(t, f, "GET", blob)
	location := w.Header().Get("Location")
	if w.Code != http.StatusTemporaryRedirect || location != "http://cdn"+blob+"?"+signature {
		t.Fatalf("redirected with %d to %q", w.Code, location)
	}
	if w := ask(t, cdn, "GET", location); w.Body.String() != "registry GET "+blob {
		t.Errorf("the signed request got %d %q", w.Code, w.Body)
	}
	if w := ask(t, cdn, "GET", blob); w.Code != http.StatusForbidden {
		t.Errorf("an unsigned request got %d", w.Code)
	}
	if w := ask(t, f, "HEAD", blob); w.Code != http.StatusOK {
		t.Errorf("a HEAD got %d", w.Code)
	}
}

func TestATokenServersPathBecomesItsAddress(t *testing.T) {
	t.Parallel()
	w := ask(t, &Front{Upstream: say(t, "registry")}, "GET", "http://front:1/v2/")
	if got := w.Header().Get("WWW-Authenticate"); got != `Bearer realm="http://front:1/token",service="s"` {
		t.Error(got)
	}
}

func TestTheLogTellsSchemesAndNoSecrets(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/a/blobs/sha256:00?x=1", http.NoBody)
	r.SetBasicAuth("user", "secret")
	f := &Front{Upstream: say(t, "registry"), Slow: 1 << 20}
	logged(f.Serve(), &out).ServeHTTP(httptest.NewRecorder(), r)
	var got entry
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := entry{Method: "GET", Path: "/v2/a/blobs/sha256:00", Query: "x=1", Status: 200, Auth: "Basic"}
	if got != want {
		t.Errorf("logged %+v, want %+v", got, want)
	}
}

func TestPortsAreDifferent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := printPorts(t.Context(), &out, 5); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for port := range bytes.FieldsSeq(out.Bytes()) {
		seen[string(port)] = true
	}
	if len(seen) != 5 {
		t.Errorf("printed %q", out.String())
	}
}

func TestUpstreamsTakeTurns(t *testing.T) {
	t.Parallel()
	f := &Front{}
	for _, name := range []string{"a", "b", "c"} {
		if err := f.addUpstream(say(t, name).String()); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]int{}
	for range 9 {
		got[ask(t, f, "GET", "/v2/").Body.String()]++
	}
	if got["a GET /v2/"] != 3 || got["b GET /v2/"] != 3 || got["c GET /v2/"] != 3 {
		t.Errorf("requests went to %v", got)
	}
}
