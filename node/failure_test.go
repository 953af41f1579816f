package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/reply"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// For each failure of upstream this says what the client is told.
func TestFailuresAreOCIErrorsThatSayWhatFailedAndWhere(t *testing.T) {
	t.Parallel()
	nowhere := digest.FromString("nowhere").String()
	for _, c := range []struct {
		name   string
		fault  upstreamtest.Fault
		down   bool
		conf   string
		path   string
		status int
		code   string
		detail reply.Detail
		retry  string // Retry-After
	}{
		{name: "no such blob", path: "blobs/" + nowhere, status: 404, code: "BLOB_UNKNOWN", detail: reply.Detail{UpstreamStatus: 404}},
		{name: "no such manifest", path: "manifests/" + nowhere, status: 404, code: "MANIFEST_UNKNOWN", detail: reply.Detail{UpstreamStatus: 404}},
		{name: "no such tag", path: "manifests/none", status: 404, code: "MANIFEST_UNKNOWN", detail: reply.Detail{UpstreamStatus: 404}},
		{name: "no such repository's tags", path: "tags/list", status: 404, code: "NAME_UNKNOWN", detail: reply.Detail{UpstreamStatus: 404}},
		{name: "no referrers", path: "referrers/" + nowhere, status: 404, code: "MANIFEST_UNKNOWN", detail: reply.Detail{UpstreamStatus: 404}},
		{name: "refused for good", path: "blobs/" + nowhere, fault: upstreamtest.Fault{Status: 403}, status: 403, code: "DENIED", detail: reply.Detail{UpstreamStatus: 403}},
		{
			name: "a login we don't have", path: "manifests/v1", status: 403, code: "DENIED", detail: reply.Detail{UpstreamStatus: 401},
			fault: upstreamtest.Fault{Status: 401, Header: http.Header{"Www-Authenticate": {`Basic realm="upstream"`}}},
		},
		{
			name: "limited", path: "manifests/v1", status: 429, code: "TOOMANYREQUESTS", detail: reply.Detail{UpstreamStatus: 429, RetryAfter: 77}, retry: "77",
			fault: upstreamtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"77"}}},
		},
		{
			name: "in trouble for long", path: "blobs/" + nowhere, status: 502, code: "UNAVAILABLE", detail: reply.Detail{UpstreamStatus: 503, RetryAfter: 99}, retry: "99",
			fault: upstreamtest.Fault{Status: 503, Header: http.Header{"Retry-After": {"99"}}},
		},
		{name: "makes no sense to upstream", path: "manifests/v1", fault: upstreamtest.Fault{Status: 418}, status: 502, code: "UNAVAILABLE", detail: reply.Detail{UpstreamStatus: 418}},
		{name: "a refused dial", path: "blobs/" + nowhere, down: true, status: 502, code: "UNAVAILABLE"},
		{name: "offline by config", path: "blobs/" + nowhere, conf: "offline: true", status: 504, code: "UNAVAILABLE"},
		{name: "a tag offline", path: "manifests/v1", conf: "offline: true", status: 504, code: "UNAVAILABLE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			if c.fault.Status != 0 {
				up.Fault(c.fault)
			}
			if c.down {
				up.Down()
			}
			p := newProxy(t, up, settings{registry: c.conf})
			start := time.Now()
			a := p.get("/v2/" + repo + "/" + c.path)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			got := a.wantError(t, c.status, c.code)
			a.want(t, c.status, "WWW-Authenticate", "", "Retry-After", c.retry, "Cache-Control", "no-store", "ETag", "", "Docker-Distribution-Api-Version", "registry/2.0")
			if got.Reason == "" {
				t.Errorf("no reason in %s", a.body)
			}
			got.Reason, c.detail.Registry, c.detail.RequestID = "", up.Host(), a.Header.Get("X-Request-Id")
			if c.conf == "" {
				c.detail.UpstreamHost = up.Host()
			}
			if got != c.detail {
				t.Errorf("detail %+v, want %+v", got, c.detail)
			}
		})
	}
}

func TestLimitedWithoutATimeTellsOne(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{})
	rec := httptest.NewRecorder()
	fail(rec, httptest.NewRequest(http.MethodGet, "/v2/", nil), p.node.gate, oci.BlobResource, &oci.Error{Kind: oci.Limited, Registry: "r"})
	if rec.Code != 429 || rec.Header().Get("Retry-After") != "60" {
		t.Errorf("%d, Retry-After %q", rec.Code, rec.Header().Get("Retry-After"))
	}
}

func TestEveryKindHasItsStatus(t *testing.T) {
	t.Parallel()
	for kind, want := range map[oci.Kind]int{
		oci.Unavailable: 502, oci.Timeout: 504, oci.NotFound: 404, oci.Denied: 403,
		oci.Limited: 429, oci.Corrupt: 502, oci.Invalid: 502, oci.Offline: 504,
	} {
		if got, _ := statusOf(kind, oci.BlobResource); got != want {
			t.Errorf("%v: %d, want %d", kind, got, want)
		}
	}
}

// A download that ends because the node shuts down must not become an empty 200.
func TestEndOfTheNodeIsNoEmptySuccess(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	rec := httptest.NewRecorder()
	fail(rec, httptest.NewRequest(http.MethodGet, "/v2/", nil), p.node.gate, oci.BlobResource, context.Canceled)
	if rec.Code != http.StatusBadGateway {
		t.Errorf("status %d", rec.Code)
	}
}

func TestClientThatHasGoneGetsNothingAndIs499InTheLog(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(1, 100))
	release := up.Hold(upstreamtest.Match{PathPart: d.String()})
	p := newProxy(t, up, settings{})
	c := p.dial()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", blobPath(d))
	up.WaitFor(upstreamtest.Match{PathPart: d.String()}, 1)
	if err := c.CloseWrite(); err != nil { // half closed, so that the client could still read a wrong 200
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(c); err != nil || got.Len() > 0 {
		t.Errorf("%q, %v; want a closed connection", got.String(), err)
	}
	release()
	p.get(blobPath(d)).want(t, 200) // the download went on
	p.sent.Add(1)
	if l := p.line(`"status":499`); l["digest"] != d.String() {
		t.Errorf("line %v", l)
	}
}

func TestStaleManifestStandsInWhileUpstreamFails(t *testing.T) {
	t.Parallel()
	path := "/v2/" + repo + "/manifests/v1"
	for _, c := range []struct {
		name, conf string
		fail       func(*upstreamtest.Registry)
		status     int
		said       string
	}{
		{"503", "", fault(503, "90"), 200, "oci-proxy; fwd=stale; fwd-status=503; detail=stale-if-error"},
		{"429", "", fault(429, "90"), 200, "oci-proxy; fwd=stale; fwd-status=429; detail=stale-if-error"},
		{"unreachable", "", (*upstreamtest.Registry).Down, 200, "oci-proxy; fwd=stale; detail=stale-if-error"},
		{"not wanted", "stale_if_error: 0s", fault(503, "90"), 502, ""},
		{"gone for good", "", func(up *upstreamtest.Registry) { up.DeleteTag(repo, "v1") }, 404, ""},
		{"refused", "", fault(403, ""), 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			up.PutManifest(repo, "v1", upstreamtest.TypeManifest, []byte(`{"v":1}`))
			p := newProxy(t, up, settings{registry: c.conf})
			p.get(path).want(t, 200)
			c.fail(up)
			a := p.get(path)
			a.want(t, c.status, "Cache-Status", c.said)
			if c.status != 200 {
				return
			}
			if string(a.body) != `{"v":1}` || !strings.HasPrefix(a.Header.Get("Warning"), "299 - ") {
				t.Errorf("%q with Warning %q", a.body, a.Header.Get("Warning"))
			}
			p.do(http.MethodHead, path).want(t, 200, "Cache-Status", c.said, "Content-Length", "7")
			if l := p.line(`"tag":"v1"`); l["source"] != "stale" {
				t.Errorf("line %v", l)
			}
		})
	}
}

func fault(status int, retry string) func(*upstreamtest.Registry) {
	return func(up *upstreamtest.Registry) {
		up.Fault(upstreamtest.Fault{Status: status, Header: http.Header{"Retry-After": {retry}}})
	}
}

func TestUpstreamsOwnWordsArePassedOnWithoutItsChallenge(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.Fault(upstreamtest.Fault{Status: 403, Body: `{"errors":[{"code":"DENIED","message":"pay first"}]}`, Header: http.Header{
		"Content-Type": {"application/json"}, "Set-Cookie": {"a=b"}, "Www-Authenticate": {"Bearer realm=x"},
	}})
	p := newProxy(t, up, settings{})
	a := p.get("/v2/" + repo + "/blobs/" + digest.FromString("x").String())
	a.want(t, 403, "Set-Cookie", "", "WWW-Authenticate", "")
	if d := a.wantError(t, 403, "DENIED"); !strings.Contains(d.Reason, "pay first") {
		t.Errorf("reason %q", d.Reason)
	}
}

func TestRegistriesThatAreNotListedAreDeniedInWhitelistMode(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutManifest("library/x", "v1", upstreamtest.TypeManifest, []byte(`{"schemaVersion":2}`))
	p := newProxy(t, up, settings{top: "whitelist_mode: true"})
	for _, path := range []string{"/v2/ghcr.io/a/b/manifests/v1", "/v2/a/b/manifests/v1?ns=ghcr.io", "/v2/docker.io/a/tags/list", "/v2/localhost/a/manifests/v1"} {
		a := p.get(path)
		if d := a.wantError(t, http.StatusForbidden, "DENIED"); d.Registry == "" || !strings.Contains(d.Reason, "whitelist_mode") {
			t.Errorf("%s: detail %+v", path, d)
		}
	}
	p.get("/v2/library/x/manifests/v1").want(t, 200)
}

func TestRegistryNobodyConfiguredIsNoWayInside(t *testing.T) {
	t.Parallel()
	up, inner := upstreamtest.New(t), upstreamtest.New(t)
	p := newProxy(t, up, settings{})
	for _, ns := range []string{inner.Host(), "localhost", "169.254.169.254", "a.internal", "example.com:8443"} {
		p.get("/v2/a/b/manifests/v1?ns="+ns).wantError(t, http.StatusForbidden, "DENIED")
	}
	if n := len(inner.Requests()); n > 0 {
		t.Errorf("%d requests reached the inside of the network", n)
	}
}

// A bug in one answer is logged and ends only that connection.
func TestPanicIsLoggedAndEndsOneAnswer(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	srv := httptest.NewServer(p.node.logged(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(errors.New("a bug")) })))
	defer srv.Close()
	if resp, err := p.client.Get(srv.URL); err == nil {
		t.Errorf("status %d", resp.StatusCode)
		_ = resp.Body.Close()
	}
	if log := p.log.String(); !strings.Contains(log, "a bug") || !strings.Contains(log, "failure_test.go") || !strings.Contains(log, `"status":500`) {
		t.Errorf("log:\n%s", log)
	}
}
