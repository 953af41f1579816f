package upstream

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// The parts of which the answers of FuzzAnswers are made.
var (
	fuzzStatuses = []int{200, 200, 200, 201, 203, 204, 206, 300, 302, 304, 307, 400, 401, 403, 404, 405, 408, 410, 416, 429, 500, 502, 503, 504, 511, 599, 100, 999}
	fuzzHeaders  = []string{
		"", "Docker-Distribution-Api-Version: registry/2.0", "Content-Type: text/html", "Content-Type: application/json",
		`WWW-Authenticate: Bearer realm="https://reg.example.com/token",service="s"`, "WWW-Authenticate: Basic realm=r", "WWW-Authenticate: Negotiate",
		"Location: https://cdn.example.net/x", "Location: /v2/again", "Location: http://portal.example.net/", "Location: ",
		"Docker-Content-Digest: " + helloDigest, "Docker-Content-Digest: sha256:x", "Content-Range: bytes 0-0/5", "Content-Range: bytes */0",
		"Retry-After: 3", "Retry-After: 4000", "Content-Encoding: gzip", "Content-Type: " + imageType, `Link: </v2/team/app/tags/list?last=x>; rel="next"`,
	}
	fuzzBodies = []string{
		"", "{}", wholeIndex, wholeIndex[:10], "hello", `{"errors":[{"code":"DENIED","message":"no"}]}`, `{"errors":[]}`, "<html>", `{"token":"t"}`,
		`{"tags":["a"],"manifests":[]}`, "null", `{"message":"no Route matched"}`,
	}
)

// A script answers each request by its next three bytes; when it is over, it begins again.
type script struct {
	bytes   []byte
	at      int
	content int  // requests for content at the registry
	met     int  // challenges that were met
	spoke   bool // an answer had the form of a registry or its token server
}

// trip answers one request.
func (s *script) trip(r *http.Request) (*http.Response, error) {
	next := func() int {
		b := s.bytes[s.at%len(s.bytes)]
		s.at++
		return int(b)
	}
	a, b, c := next(), next(), next()
	if r.URL.Host == "reg.example.com" && strings.HasPrefix(r.URL.Path, "/v2/team/") {
		s.content++
	}
	switch {
	case a >= 250:
		return nil, errors.New("connection reset")
	case a >= 245:
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	header := []string{"Content-Type", "application/octet-stream"}
	for _, h := range []string{fuzzHeaders[b%len(fuzzHeaders)], fuzzHeaders[c%len(fuzzHeaders)]} {
		if name, value, ok := strings.Cut(h, ": "); ok {
			header = append(header, name, value)
		}
	}
	resp := reply(fuzzStatuses[a%len(fuzzStatuses)], fuzzBodies[(b+c)%len(fuzzBodies)], header...)
	if resp.Header.Values("Content-Type")[len(resp.Header.Values("Content-Type"))-1] != "application/octet-stream" {
		resp.Header["Content-Type"] = resp.Header.Values("Content-Type")[1:]
	}
	if r.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	if len(challengesOf(resp.Header)) > 0 {
		s.met++
	}
	s.spoke = s.spoke || len(challengesOf(resp.Header)) > 0 || resp.Header.Get("Docker-Distribution-Api-Version") != "" ||
		strings.HasPrefix(fuzzBodies[(b+c)%len(fuzzBodies)], `{"errors":[{`) || strings.Contains(resp.Header.Get("Content-Type"), "json")
	return resp, nil
}

// FuzzAnswers gives a client random answers. Whatever they are: what it takes for a
// manifest is one, nothing is forgotten for what no registry said, an answer takes three
// requests at most beside those that lead to a challenge, and all ends in time.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0, 0, 2}, byte(0))
	f.Add([]byte{12, 4, 0, 0, 0, 8, 0, 18, 1}, byte(1))
	f.Add([]byte{14, 2, 9, 13, 3, 2}, byte(2))
	f.Add([]byte{250, 0, 0, 245, 0, 0, 22, 1, 0}, byte(3))
	f.Add([]byte{10, 7, 11, 13, 0, 0}, byte(4))
	f.Add([]byte{12, 5, 1, 13, 1, 1, 19, 1, 15}, byte(5))
	f.Fuzz(func(t *testing.T, answers []byte, what byte) {
		if len(answers) == 0 || len(answers) > 90 {
			return
		}
		synctest.Test(t, func(t *testing.T) { fuzzOne(t, &script{bytes: answers}, what) })
	})
}

// fuzzOne asks one question of a registry that follows a script.
func fuzzOne(t *testing.T, s *script, what byte) {
	cfg := Registry{FollowRedirects: what&16 == 0}
	if what&32 != 0 {
		cfg = withLogin(cfg)
	}
	client := faked(t, cfg, s.trip)
	start := time.Now()
	var err error
	switch what % 6 {
	case 0:
		var m oci.Manifest
		if m, err = client.Manifest(t.Context(), tagged, nil); err == nil {
			wantManifest(t, m)
		}
	case 1:
		var d oci.Descriptor
		if d, err = client.Stat(t.Context(), tagged, false, nil); err == nil && d.Manifest != nil {
			wantManifest(t, *d.Manifest)
		} else if err == nil && d.Digest == "" {
			t.Error("a tag without a digest")
		}
	case 2:
		_, err = client.Stat(t.Context(), hello("reg.example.com"), true, nil)
	case 3:
		var b *oci.Stream
		if b, err = client.Open(t.Context(), hello("reg.example.com"), 0); err == nil && b.Body != nil {
			_ = b.Body.Close()
		}
	case 4:
		_, err = client.Tags(t.Context(), tagged, "", new(sinkhole))
	case 5:
		_, err = client.Referrers(t.Context(), hello("reg.example.com"), "", new(sinkhole))
	}
	if took := time.Since(start); took > 40*time.Second {
		t.Errorf("it took %v", took)
	}
	if s.content > maxRequests+min(s.met, maxRequests) {
		t.Errorf("%d requests", s.content)
	}
	e, ok := oci.AsError(err)
	if err != nil && !ok {
		t.Errorf("error %T: %v", err, err)
	}
	if ok && (e.Kind == oci.NotFound || e.Kind == oci.Denied) && e.Authoritative() && !s.spoke {
		t.Errorf("%+v is believed, though no registry said so", e)
	}
}

// wantManifest fails the test unless m is a manifest.
func wantManifest(t *testing.T, m oci.Manifest) {
	t.Helper()
	if !oci.MayBeManifest(m.Bytes) || !oci.Matches(m.Digest, m.Bytes) {
		t.Errorf("%q is taken for a manifest", m.Bytes)
	}
}

// A sinkhole keeps what is written to it.
type sinkhole struct{ bytes.Buffer }
