package upstreamtest_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// client follows no redirects and undoes no compression.
func client(t *testing.T, r *upstreamtest.Registry) *http.Client {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	if r.CAFile() != "" {
		pem, err := os.ReadFile(r.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
		transport.ForceAttemptHTTP2 = true
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

type answer struct {
	*http.Response
	body    []byte
	err     error // of the request
	bodyErr error
}

// do sends a request with headers given as "Name: value".
func do(t *testing.T, c *http.Client, method, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return answer{Response: resp, body: body, bodyErr: err}
}

func (a answer) want(t *testing.T, status int, body string) {
	t.Helper()
	if a.err != nil || a.bodyErr != nil {
		t.Fatalf("failed: %v, %v", a.err, a.bodyErr)
	}
	if a.StatusCode != status || (body != "" && string(a.body) != body) {
		t.Fatalf("got %d %q, want %d %q", a.StatusCode, a.body, status, body)
	}
}

func (a answer) wantHeader(t *testing.T, name, value string) {
	t.Helper()
	if got := a.Header.Get(name); got != value {
		t.Errorf("%s: %q, want %q", name, got, value)
	}
}

func TestBlobsAreServedWholeInPartAndByHead(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t)
	d := r.PutBlob("a/b", []byte("0123456789"))
	c, url := client(t, r), r.URL()+"/v2/a/b/blobs/"+d.String()

	whole := do(t, c, "GET", url)
	whole.want(t, 200, "0123456789")
	whole.wantHeader(t, "Docker-Content-Digest", d.String())
	whole.wantHeader(t, "Accept-Ranges", "bytes")
	part := do(t, c, "GET", url, "Range: bytes=4-6")
	part.want(t, 206, "456")
	part.wantHeader(t, "Content-Range", "bytes 4-6/10")
	do(t, c, "GET", url, "Range: bytes=10-").want(t, 416, "")
	head := do(t, c, "HEAD", url)
	head.want(t, 200, "")
	head.wantHeader(t, "Content-Length", "10")
	do(t, c, "GET", r.URL()+"/v2/a/c/blobs/"+d.String()).want(t, 404, "")
	do(t, c, "GET", r.URL()+"/v2/a/b/blobs/sha256:1").want(t, 400, "")
	do(t, c, "POST", url).want(t, 405, "")
	do(t, c, "GET", r.URL()+"/v2/").want(t, 200, "{}")

	if n := r.BytesSent(); n != 13 {
		t.Errorf("%d bytes of blobs counted, want 13", n)
	}
	if n := r.Count("GET", "/blobs/"); n != 5 {
		t.Errorf("%d GETs counted, want 5", n)
	}
	q := r.Requests()[1]
	if q.Server != "registry" || q.Status != 206 || q.Sent != 3 || q.Header.Get("Range") != "bytes=4-6" || q.Proto != "HTTP/1.1" {
		t.Errorf("recorded %+v", q)
	}
}

func TestRandomBlobsAreTheSameHoweverTheyAreRead(t *testing.T) {
	t.Parallel()
	const size = 100_003
	whole, err := io.ReadAll(upstreamtest.Random(7, size))
	if err != nil || len(whole) != size {
		t.Fatal(len(whole), err)
	}
	s := upstreamtest.Random(7, size)
	for _, offset := range []int64{99_999, 0, 1, 15, 16, 17, size} {
		if _, err := s.Seek(offset, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(s); err != nil || !bytes.Equal(rest, whole[offset:]) {
			t.Fatalf("from %d: other bytes, %v", offset, err)
		}
	}
	if other, _ := io.ReadAll(upstreamtest.Random(8, size)); bytes.Equal(other, whole) {
		t.Error("another seed gives the same bytes")
	}
	r := upstreamtest.New(t)
	d := r.PutRandomBlob("big", 7, size)
	if d.Algorithm().FromBytes(whole) != d {
		t.Error("wrong digest")
	}
	do(t, client(t, r), "GET", r.URL()+"/v2/big/blobs/"+d.String(), "Range: bytes=77777-").want(t, 206, string(whole[77777:]))
}

func TestManifestsAreServedByTagAndDigestToThoseWhoAcceptThem(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t)
	img := r.PutImage("img", "v1", []byte("layer one"), []byte("layer two"))
	c, url := client(t, r), r.URL()+"/v2/img/manifests/"

	byTag := do(t, c, "GET", url+"v1", "Accept: text/plain, "+upstreamtest.TypeManifest+";q=0.5")
	byTag.want(t, 200, string(img.ManifestBytes))
	byTag.wantHeader(t, "Content-Type", upstreamtest.TypeManifest)
	byTag.wantHeader(t, "Docker-Content-Digest", img.Manifest.String())
	do(t, c, "GET", url+img.Manifest.String(), "Accept: */*").want(t, 200, string(img.ManifestBytes))
	do(t, c, "GET", url+"v1", "Accept: "+upstreamtest.TypeIndex).want(t, 404, "")
	do(t, c, "GET", url+"v1", "If-None-Match: "+byTag.Header.Get("ETag")).want(t, 304, "")
	do(t, c, "GET", r.URL()+"/v2/img/blobs/"+img.Layers[1].String()).want(t, 200, "layer two")
	do(t, c, "GET", r.URL()+"/v2/img/blobs/"+img.Config.String()).want(t, 200, "")
	r.DeleteTag("img", "v1")
	gone := do(t, c, "GET", url+"v1")
	gone.want(t, 404, "")
	if !strings.Contains(string(gone.body), `"MANIFEST_UNKNOWN"`) {
		t.Errorf("body %s", gone.body)
	}
	do(t, c, "HEAD", url+img.Manifest.String()).want(t, 200, "")
}

func TestListingsComeInSortedPages(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t)
	var subject string
	for _, tag := range []string{"c", "a", "b"} {
		subject = r.PutImage("img", tag, []byte("x")).Manifest.String()
	}
	for _, kind := range []string{"sig", "sbom", "sig"} {
		r.PutManifest("img", "", upstreamtest.TypeManifest, []byte(`{"artifactType":"`+kind+`","subject":{"digest":"`+subject+
			`"},"annotations":{"n":"`+time.Now().String()+`"}}`))
	}
	c := client(t, r)

	first := do(t, c, "GET", r.URL()+"/v2/img/tags/list?n=2")
	first.want(t, 200, `{"name":"img","tags":["a","b"]}`)
	first.wantHeader(t, "Link", `</v2/img/tags/list?last=b&n=2>; rel="next"`)
	last := do(t, c, "GET", r.URL()+"/v2/img/tags/list?last=b&n=2")
	last.want(t, 200, `{"name":"img","tags":["c"]}`)
	last.wantHeader(t, "Link", "")

	url := r.URL() + "/v2/img/referrers/" + subject
	for query, want := range map[string]int{"": 3, "?artifactType=sig": 2, "?n=1": 1, "?artifactType=none": 0} {
		a := do(t, c, "GET", url+query)
		a.want(t, 200, "")
		var index struct{ Manifests []any }
		if err := json.Unmarshal(a.body, &index); err != nil || len(index.Manifests) != want || index.Manifests == nil {
			t.Errorf("%q: %s, %v", query, a.body, err)
		}
		if filtered := a.Header.Get("OCI-Filters-Applied") != ""; filtered != strings.Contains(query, "Type") {
			t.Errorf("%q: filters applied: %v", query, filtered)
		}
		if paged := a.Header.Get("Link") != ""; paged != strings.Contains(query, "n=1") {
			t.Errorf("%q: Link %q", query, a.Header.Get("Link"))
		}
	}
}

func TestRedirectsLeadToACDNThatWantsTheSignatureAndNoAuthorization(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t, upstreamtest.Redirect(), upstreamtest.RedirectManifests())
	d := r.PutBlob("a", []byte("content"))
	m := r.PutManifest("a", "t", upstreamtest.TypeIndex, []byte("{}"))
	c, url := client(t, r), r.URL()+"/v2/a/blobs/"+d.String()
	to := do(t, c, "GET", url)
	to.want(t, 307, "")
	link := to.Header.Get("Location")
	if !strings.HasPrefix(link, "http://"+r.CDNHost()+"/") || r.CDNHost() == r.Host() {
		t.Fatal(link)
	}
	do(t, c, "GET", link, "Range: bytes=3-").want(t, 206, "tent")
	do(t, c, "GET", link, "Authorization: Bearer x").want(t, 400, "")
	do(t, c, "GET", link+"0").want(t, 403, "")
	r.RevokeLinks()
	do(t, c, "GET", link).want(t, 403, "")
	a := do(t, c, "GET", do(t, c, "GET", r.URL()+"/v2/a/manifests/t").Header.Get("Location"))
	a.want(t, 200, "{}")
	a.wantHeader(t, "Content-Type", upstreamtest.TypeIndex)
	if n := r.Count("", m.Encoded()); n != 1 || r.Requests()[1].Server != "cdn" {
		t.Errorf("counted %d, %+v", n, r.Requests())
	}
}

func TestTLSIsTrustedByItsCAOnly(t *testing.T) {
	t.Parallel()
	for proto, option := range map[string]upstreamtest.Option{"HTTP/1.1": upstreamtest.TLS(), "HTTP/2.0": upstreamtest.HTTP2()} {
		r := upstreamtest.New(t, option)
		do(t, client(t, r), "GET", r.URL()+"/v2/").want(t, 200, "{}")
		if got := r.Requests()[0].Proto; got != proto {
			t.Errorf("spoke %s, want %s", got, proto)
		}
		strict := client(t, upstreamtest.New(t))
		if a := do(t, strict, "GET", r.URL()+"/v2/"); a.err == nil {
			t.Error("trusted without its CA")
		}
		r.Fault(upstreamtest.Fault{CutAtStart: true, Times: 1})
		if a := do(t, client(t, r), "POST", r.URL()+"/v2/"); a.err == nil {
			t.Error("was answered in spite of a reset")
		}
	}
}

func TestDownRefusesConnectionsUntilUp(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t, upstreamtest.Redirect(), upstreamtest.TLS())
	c, host := client(t, r), r.Host()
	do(t, c, "GET", r.URL()+"/v2/").want(t, 200, "")
	r.Down()
	if a := do(t, c, "GET", r.URL()+"/v2/"); !errors.Is(a.err, syscall.ECONNREFUSED) {
		t.Errorf("got %v while down", a.err)
	}
	r.Up()
	do(t, c, "GET", r.URL()+"/v2/").want(t, 200, "")
	if r.Host() != host {
		t.Errorf("moved to %s", r.Host())
	}
}

func TestHeldRequestsWaitForTheirRelease(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t)
	d := r.PutBlob("a", []byte("x"))
	c, match := client(t, r), upstreamtest.Match{PathPart: "/blobs/"}
	release := r.Hold(match)
	done := make(chan answer, 3)
	for range cap(done) {
		go func() { done <- do(t, c, "GET", r.URL()+"/v2/a/blobs/"+d.String()) }()
	}
	r.WaitFor(match, 3)
	do(t, c, "GET", r.URL()+"/v2/").want(t, 200, "")
	if len(done) != 0 || r.Requests()[0].Status != 0 {
		t.Error("a held request was answered")
	}
	release()
	release()
	for range cap(done) {
		(<-done).want(t, 200, "x")
	}
	do(t, c, "GET", r.URL()+"/v2/a/blobs/"+d.String()).want(t, 200, "x")
}

func TestEverythingMayBeCalledAtOnce(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{}))
	c := client(t, r)
	var all sync.WaitGroup
	for i := range uint64(20) {
		all.Go(func() {
			d := r.PutRandomBlob("a", i, 10_000)
			r.PutImage("a", "t", []byte{byte(i)})
			release := r.Hold(upstreamtest.Match{PathPart: "/nowhere"})
			r.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: d.String()}, Times: 1, CutAfter: 1})
			a := do(t, c, "GET", r.URL()+"/v2/a/blobs/"+d.String())
			if a.err != nil || a.StatusCode != 401 {
				t.Errorf("got %v", a)
			}
			r.RevokeTokens()
			r.DeleteTag("a", "t")
			if len(r.Requests()) == 0 || r.Count("GET", d.String()) != 1 || r.BytesSent() != 0 {
				t.Error("wrong counts")
			}
			release()
			r.ClearFaults()
		})
	}
	all.Wait()
}
