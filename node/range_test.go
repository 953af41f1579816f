package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
	"oci-proxy/transfer/wire"
)

// ranged is content that is requested in parts.
var ranged = []byte("0123456789")

// A rangeCase is a request for a part of ranged, and the right answer.
type rangeCase struct {
	spec, cond string // Range and If-Range
	status     int
	body, said string
}

// rangeCases are requests for parts of content with that tag.
func rangeCases(tag string) []rangeCase {
	dated := time.Now().UTC().Format(http.TimeFormat)
	return []rangeCase{
		{"bytes=0-3", "", 206, "0123", "bytes 0-3/10"},
		{"bytes=4-", "", 206, "456789", "bytes 4-9/10"},
		{"bytes=-3", "", 206, "789", "bytes 7-9/10"},
		{"bytes=0-", "", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=9-9", "", 206, "9", "bytes 9-9/10"},
		{"bytes=8-10", "", 206, "89", "bytes 8-9/10"}, // regctl asks for one byte too many
		{"bytes=0-99999999999999999999999", "", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=-11", "", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=10-", "", 416, "", "bytes */10"},
		{"bytes=99999999999999999999999-", "", 416, "", "bytes */10"},
		{"bytes=-0", "", 416, "", "bytes */10"},
		{"bytes=0-1,3-4,3-", "", 200, string(ranged), ""}, // they overlap
		{"bytes=0-1,10-", "", 206, "01", "bytes 0-1/10"},
		{"bytes=10-,-0", "", 416, "", "bytes */10"},
		{"bytes=0-1,x", "", 200, string(ranged), ""},
		{"bytes=3-2", "", 200, string(ranged), ""},
		{"bytes=-", "", 200, string(ranged), ""},
		{"bytes=a-b", "", 200, string(ranged), ""},
		{"bytes=+1-2", "", 200, string(ranged), ""},
		{"bytes=--1", "", 200, string(ranged), ""},
		{"lines=1-2", "", 200, string(ranged), ""},
		{"bytes=0-3", tag, 206, "0123", "bytes 0-3/10"},
		{"bytes=0-3", `"other"`, 200, string(ranged), ""},
		{"bytes=0-3", "W/" + tag, 200, string(ranged), ""}, // RFC 9110 13.1.5: strong comparison
		{"bytes=0-3", dated, 200, string(ranged), ""},
		{"bytes=10-", `"other"`, 200, string(ranged), ""},
	}
}

func TestRangesOfBlobsAndManifests(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, ranged)
	m := up.PutManifest(repo, "v1", upstreamtest.TypeManifest, ranged)
	p := newProxy(t, up, settings{})
	tag := `"` + d.String() + `"`
	for _, c := range rangeCases(tag) {
		for _, path := range []string{blobPath(d), "/v2/" + repo + "/manifests/" + m.String(), "/v2/" + repo + "/manifests/v1"} {
			a := p.get(path, "Range", c.spec, "If-Range", c.cond)
			a.want(t, c.status, "Content-Range", c.said, "Content-Length", strconv.Itoa(len(c.body)), "ETag", tag)
			if string(a.body) != c.body {
				t.Errorf("%s %s: %q, want %q", path, c.spec, a.body, c.body)
			}
			p.do(http.MethodHead, path, "Range", c.spec).want(t, 200, "Content-Range", "", "Content-Length", "10")
		}
	}
}

func TestRangeOfAnEmptyBlobIsTheWholeOfIt(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, nil)
	p := newProxy(t, up, settings{})
	for range 2 {
		p.get(blobPath(d), "Range", "bytes=0-").want(t, 200, "Content-Length", "0", "Content-Range", "")
	}
}

// containerd opens several ranges of a blob that is still arriving, and drops the
// earlier ones.
func TestRangesOfABlobThatIsStillArriving(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	up := upstreamtest.New(t)
	content := random(7, 1<<20)
	d := up.PutBlob(repo, content)
	release := halve(up, d.String(), 1<<20)
	p := newProxy(t, up, settings{})
	a := p.get(blobPath(d), "Range", "bytes=1000-200000")
	a.want(t, 206, "Content-Range", "bytes 1000-200000/1048576")
	if !bytes.Equal(a.body, content[1000:200001]) {
		t.Error("wrong bytes")
	}
	open := p.send(http.MethodGet, blobPath(d), "Range", "bytes=0-")
	left := p.send(http.MethodGet, blobPath(d), "Range", "bytes=5-")
	_ = left.Body.Close()
	release()
	tail := p.get(blobPath(d), "Range", "bytes=-70000")
	tail.want(t, 206, "Content-Length", "70000")
	if b := read(open); !bytes.Equal(b.body, content) || !bytes.Equal(tail.body, content[len(content)-70000:]) {
		t.Error("wrong bytes")
	}
	if n := up.Count(http.MethodGet, d.String()); n != 1 {
		t.Errorf("%d downloads", n)
	}
}

// wellFormed matches one range by RFC 9110 section 14.1.1.
var wellFormed = regexp.MustCompile(`^bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*$`)

// FuzzRange asks for ranges of a blob that is arriving or cached, and compares with what
// net/http's own server answers.
func FuzzRange(f *testing.F) {
	for _, s := range []string{
		"bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0", "bytes=5-2", "bytes=70000-", "bytes=69999-70001", "bytes= 1-2 ",
		"bytes=1-2,3-4", "bytes=2-2,0-0", "bytes=0-0,-1,,", "bytes=1-2,2-3", "bytes=,", "bytes=-99999999999999999999", "bytes=00001-00002", "bytes", "", "bytes=1 - 2", "bytes=\x00-",
	} {
		f.Add(s, uint32(70000))
		f.Add(s, uint32(0))
		f.Add(s, uint32(3))
	}
	up := upstreamtest.New(f)
	p := newProxy(f, up, settings{})
	f.Fuzz(func(t *testing.T, spec string, size uint32) {
		if strings.ContainsFunc(spec, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }) {
			t.Skip("the text is not a header value")
		}
		content := random(8, int64(size%200_000))
		d := up.PutBlob(repo, content)
		for _, way := range []string{"first", "again"} {
			req, err := http.NewRequest(http.MethodGet, p.url+blobPath(d), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Range", spec)
			resp, err := p.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got := read(resp)
			if strings.Contains(spec, ",") {
				wantSpans(t, got, req, content)
				continue
			}
			status, said, body := oracle(spec, content)
			if got.StatusCode != status || got.Header.Get("Content-Range") != said || !bytes.Equal(got.body, body) || got.err != nil {
				t.Errorf("%s, Range %q of %d bytes: %d %q with %d bytes (%v), want %d %q with %d", way, spec, len(content),
					got.StatusCode, got.Header.Get("Content-Range"), len(got.body), got.err, status, said, len(body))
			}
		}
	})
}

// wantSpans compares an answer to several ranges with what package wire, whose own test
// compares that with the RFC, makes of them.
func wantSpans(t *testing.T, got answer, req *http.Request, content []byte) {
	t.Helper()
	spans := wire.SpansOf(req, int64(len(content)), "")
	if len(spans) == 1 {
		h, body := http.Header{}, content
		status := spans[0].Describe(h, int64(len(content)))
		if status != http.StatusOK {
			body = content[spans[0].Offset : spans[0].Offset+spans[0].Length]
		}
		got.want(t, status, "Content-Range", h.Get("Content-Range"))
		if !bytes.Equal(got.body, body) {
			t.Errorf("%q: %d bytes, want %d", req.Header.Get("Range"), len(got.body), len(body))
		}
		return
	}
	parts := partsOf(t, got)
	if len(parts) != len(spans) {
		t.Fatalf("%q: %d parts, want %d", req.Header.Get("Range"), len(parts), len(spans))
	}
	for i, s := range spans {
		said := fmt.Sprintf("bytes %d-%d/%d", s.Offset, s.Offset+s.Length-1, len(content))
		if parts[i].said != said || !bytes.Equal(parts[i].body, content[s.Offset:s.Offset+s.Length]) {
			t.Errorf("%q: part %d is %q with %d bytes, want %q", req.Header.Get("Range"), i, parts[i].said, len(parts[i].body), said)
		}
	}
}

// A part is one of a multipart answer.
type part struct {
	said string // Content-Range
	body []byte
}

// partsOf takes a multipart answer apart.
func partsOf(t *testing.T, a answer) (out []part) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if a.StatusCode != http.StatusPartialContent || kind != "multipart/byteranges" || err != nil || a.Header.Get("Content-Length") != strconv.Itoa(len(a.body)) || a.Header.Get("Content-Range") != "" {
		t.Fatalf("no multipart: status %d, %v, %d bytes", a.StatusCode, a.Header, len(a.body))
	}
	for mr := multipart.NewReader(bytes.NewReader(a.body), params["boundary"]); ; {
		p, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil || p.Header.Get("Content-Type") != blobType {
			t.Fatalf("part %v: %v", p.Header, err)
		}
		out = append(out, part{p.Header.Get("Content-Range"), b})
	}
}

// oracle returns the right answer to a range. net/http's answer differs in two cases: it
// answers 416 to a header that is not a range, which RFC 9110 section 14.2 says to ignore,
// and it answers bytes=-0 with a part.
func oracle(spec string, content []byte) (status int, said string, body []byte) {
	whole := func() (int, string, []byte) { return http.StatusOK, "", content }
	m := wellFormed.FindStringSubmatch(strings.TrimSpace(spec))
	if m == nil || len(content) == 0 {
		return whole()
	}
	trim := func(s string) string { return strings.TrimLeft(s, "0") }
	longer := func(a, b string) bool { return len(a) > len(b) || len(a) == len(b) && a > b }
	if m[1] != "" && m[2] != "" && longer(trim(m[1]), trim(m[2])) {
		return whole()
	}
	if m[3] != "" && trim(m[3]) == "" {
		return http.StatusRequestedRangeNotSatisfiable, fmt.Sprintf("bytes */%d", len(content)), nil
	}
	clamped := strings.TrimSpace(spec)
	for _, digits := range m[1:] {
		if len(trim(digits)) > 18 {
			clamped = strings.Replace(clamped, digits, "999999999999999999", 1)
		}
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Range", clamped)
	http.ServeContent(rec, req, "x", time.Time{}, bytes.NewReader(content))
	if rec.Code == http.StatusRequestedRangeNotSatisfiable {
		return rec.Code, rec.Header().Get("Content-Range"), nil
	}
	return rec.Code, rec.Header().Get("Content-Range"), rec.Body.Bytes()
}
