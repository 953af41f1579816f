package node

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"oci-proxy/node/gate"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// id returns the id that an answer has, once it has the form of one.
func (a answer) id(t *testing.T) string {
	t.Helper()
	all := a.Header.Values(gate.RequestIDHeader)
	if len(all) != 1 || all[0] == "" {
		t.Fatalf("%s: ids %q", a.Request.URL, all)
	}
	return all[0]
}

func TestEachRequestHasAnID(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 100))
	p := newProxy(t, up, settings{})
	seen := map[string]bool{}
	for _, c := range []struct{ method, path string }{
		{"GET", "/v2/"},
		{"GET", blobPath(img.Config)},
		{"HEAD", blobPath(img.Config)},
		{"GET", "/v2/" + repo + "/manifests/none"},
		{"PUT", "/v2/" + repo + "/manifests/v1"},
		{"GET", "/_/health"},
		{"GET", "/"},
		{"GET", "/none"},
		{"GET", "//"},
		{"POST", "/_/leave"},
		{"GET", "/v2/a/b/manifests/v1?ns=nobody.invalid"},
	} {
		a := p.do(c.method, c.path, gate.RequestIDHeader, "chosen") // by a stranger
		id := a.id(t)
		if seen[id] || id == "chosen" {
			t.Errorf("%s %s has the id %s", c.method, c.path, id)
		}
		seen[id] = true
		if l := p.line(id); l["request_id"] != id {
			t.Errorf("%s %s: line %v", c.method, c.path, l)
		}
		if strings.Contains(string(a.body), `{"errors":`) && !strings.Contains(string(a.body), `"request_id":"`+id+`"`) {
			t.Errorf("%s %s: the error does not name the request: %s", c.method, c.path, a.body)
		}
	}
}

func TestTrustedProxiesChooseIDs(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{top: "trusted_proxies: [127.0.0.1/32]"})
	for id, taken := range map[string]bool{
		"abc-1.2:3/4=": true, strings.Repeat("x", 128): true, "1": true, "550e8400-e29b-41d4-a716-446655440000": true,
		strings.Repeat("x", 129): false, "two words": false, `quo"te`: false, "ümlaut": false, `back\slash`: false,
	} {
		a := p.get("/v2/"+repo+"/manifests/none", gate.RequestIDHeader, id)
		if got := a.id(t); (got == id) != taken {
			t.Errorf("%q became %q", id, got)
		}
		if d := a.wantError(t, 404, "MANIFEST_UNKNOWN"); d.RequestID != a.id(t) || d.Registry != up.Host() {
			t.Errorf("detail %+v", d)
		}
	}
	if got := p.get("/v2/", gate.RequestIDHeader, "a", gate.RequestIDHeader, "b").id(t); got == "a" || got == "b" {
		t.Errorf("of two ids %q was taken", got)
	}
}

func TestLogSaysWhoAndWhatTheyDid(t *testing.T) {
	t.Parallel()
	const typed = "hunter2-in-the-wrong-field"
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{top: "auth: {username: ann, password: right}"})
	post := func(path string, header ...string) {
		p.do(http.MethodPost, path, append(header, "Content-Type", "application/json")...)
	}
	p.get("/v2/", append(basic("ann", "right"), "User-Agent", "docker/"+strings.Repeat("1", 5000))...)
	if l := p.line(`"path":"/v2/"`); l["user"] != "ann" || l["status"] != 200.0 || l["action"] != nil || len(fmt.Sprint(l["user_agent"])) > 310 || l["level"] != "INFO" {
		t.Errorf("line %v", l)
	}
	p.get("/_/stats", basic("ann", "right")...)
	if l := p.line(`"path":"/_/stats"`); l["user"] != "ann" {
		t.Errorf("line %v", l)
	}
	p.get("/v2/", basic(typed, "")...)
	if l := p.line(`"status":401`); l["user"] != nil || l["level"] != "INFO" {
		t.Errorf("line %v", l)
	}
	post("/_/leave")
	if l := p.line(`"action":"leave"`); l["status"] != 401.0 || l["user"] != nil {
		t.Errorf("line %v", l)
	}
	post("/_/leave", basic("ann", "right")...) // there is no cluster
	if l := p.line(`"action":"leave"`); l["status"] != 409.0 || l["user"] != "ann" || l["client"] != "127.0.0.1" {
		t.Errorf("line %v", l)
	}
	post("/_/warm", basic("ann", "right")...)
	post("/_/forget", basic("ann", "right")...)
	post("/_/import", basic("ann", "right")...)
	for _, action := range []string{"warm", "forget", "import"} {
		if l := p.line(`"action":"` + action + `"`); l["user"] != "ann" {
			t.Errorf("line %v", l)
		}
	}
	if p.log.Has(typed) || p.log.Has("right") {
		t.Error("a password is in the log")
	}
}

// A warning is for the operator: what clients do wrong is none.
func TestLevelsSayWhoHasToAct(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 100))
	p := newProxy(t, up, settings{})
	want := func(word, level string, status float64) {
		t.Helper()
		if l := p.line(word); l["level"] != level || l["status"] != status {
			t.Errorf("line %v, want %s", l, level)
		}
	}
	p.get("/v2/" + repo + "/manifests/none")
	want(`"tag":"none"`, "INFO", 404)
	p.do(http.MethodPut, "/v2/"+repo+"/manifests/v1")
	want(`"method":"PUT"`, "INFO", 405)
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: img.Config.String()}, Status: 500})
	p.get(blobPath(img.Config))
	want(img.Config.String(), "WARN", 502)
	for _, path := range []string{"/_/health", "/_/ready", "/_/metrics"} {
		p.get(path)
		want(path, "DEBUG", 200)
	}
	p.node.ready.Store(false)
	p.get("/_/ready")
	want(`"/_/ready","status":503`, "DEBUG", 503)
}

// An answer that breaks off warns if a registry is at fault, and not if the client is.
func TestBrokenAnswersWarnUnlessTheClientLeft(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	const size = 1 << 20
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{})

	wrong := up.PutBlob(repo, random(1, size))
	finish := halved(up, size, upstreamtest.Fault{Match: upstreamtest.Match{PathPart: wrong.String()}, Corrupt: true, CorruptAt: size - 1})
	resp := p.send(http.MethodGet, blobPath(wrong)) // its header comes with the first half
	finish()
	if a := read(resp); a.err == nil {
		t.Error("wrong bytes were served")
	}
	if l := p.line(wrong.String()); l["level"] != "WARN" || l["error"] == nil || l["status"] != 200.0 {
		t.Errorf("line %v", l)
	}

	left := up.PutBlob(repo, random(2, 64*size))
	release := halve(up, left.String(), 64*size)
	c := p.dial()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", blobPath(left))
	if _, err := io.CopyN(new(bytes.Buffer), c, 1000); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	p.sent.Add(1)
	l := p.line(left.String())
	release()
	if l["level"] != "INFO" || l["error"] == nil {
		t.Errorf("line %v", l)
	}
}

func TestEvictionsAreTold(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{defaults: "cache_max_size: 1m"})
	e := &evictionLog{counts: p.node.reports.evictions, log: p.node.log}
	e.tell()
	if p.log.Has("evicted") {
		t.Error("evictions of an empty cache")
	}
	for i := range 8 {
		p.get(blobPath(up.PutBlob(repo, random(uint64(i), 300<<10)))).want(t, 200)
	}
	p.settle()
	testkit.Await(t, "evictions are counted", func() bool { return p.node.reports.evictions()[up.Host()]["bound"] >= 5 })
	e.tell()
	e.tell()
	if n := p.log.Count("blobs evicted to make room"); n != 1 || !p.log.Has(`"registry":"`+up.Host()+`","cause":"bound","blobs":5`) {
		t.Errorf("%d lines: %s", n, p.log)
	}
}
