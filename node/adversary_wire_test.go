package node

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// hidden is the request that an attacker wants to smuggle to upstream. No attack's own
// request names it.
const hidden = "GET /v2/hidden/x/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"

// Each raw request comes with the statuses that its first answer may have; 0 means no
// answer at all. PATH stands for the path of a blob that exists.
type rawAttack struct {
	name, text string
	statuses   []int
}

var rawAttacks = []rawAttack{
	{"Content-Length and Transfer-Encoding", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, []int{400}},
	{"Transfer-Encoding and a longer Content-Length", "GET PATH HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 64\r\n\r\n0\r\n\r\n" + hidden, []int{400}},
	{"two Content-Lengths", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 52\r\n\r\n" + hidden, []int{400}},
	{"two Content-Lengths in one line", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 52\r\n\r\n" + hidden, []int{400}},
	{"the same Content-Length twice", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + hidden, []int{400}},
	{"a Content-Length with a sign", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: +52\r\n\r\n" + hidden, []int{400}},
	{"a negative Content-Length", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + hidden, []int{400}},
	{"a Content-Length in hexadecimal", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 0x34\r\n\r\n" + hidden, []int{400}},
	{"a Content-Length past all bounds", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n" + hidden, []int{400}},
	{"an empty Content-Length", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n" + hidden, []int{400}},
	{"an unknown Transfer-Encoding", "GET PATH HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, []int{400, 501}},
	{"two Transfer-Encodings", "GET PATH HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden, []int{400, 501}},
	{"a list of Transfer-Encodings", "GET PATH HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden, []int{400, 501}},
	{"a Transfer-Encoding with a vertical tab", "GET PATH HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + hidden, []int{400, 501}},
	{"a Transfer-Encoding in HTTP/1.0", "GET PATH HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + hidden, []int{200, 400, 501}}, // HTTP/1.0 has no Transfer-Encoding
	{"a space in front of a colon", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length : 52\r\n\r\n" + hidden, []int{400}},
	{"a folded line", "GET PATH HTTP/1.1\r\nHost: x\r\nX-A: a\r\n Content-Length: 52\r\nConnection: close\r\n\r\n" + hidden, []int{200, 400}},
	{"a folded first line", "GET PATH HTTP/1.1\r\n Host: x\r\nHost: y\r\n\r\n" + hidden, []int{400}},
	{"bare line feeds", "GET PATH HTTP/1.1\nHost: x\nConnection: close\n\n" + hidden, []int{200, 400}},
	{"a bare carriage return", "GET PATH HTTP/1.1\r\nHost: x\r\nX-A: a\rContent-Length: 52\r\nConnection: close\r\n\r\n" + hidden, []int{200, 400}},
	{"a NUL in a header", "GET PATH HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n", []int{400}},
	{"a header without a name", "GET PATH HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", []int{400}},
	{"a header without a colon", "GET PATH HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", []int{400}},
	{"two Hosts", "GET PATH HTTP/1.1\r\nHost: x\r\nHost: evil.net\r\n\r\n", []int{400}},
	{"no Host", "GET PATH HTTP/1.1\r\n\r\n", []int{400}},
	{"a Host with a path", "GET PATH HTTP/1.1\r\nHost: x/../evil.net\r\nConnection: close\r\n\r\n", []int{200, 400}},
	{"a Host with a space", "GET PATH HTTP/1.1\r\nHost: x evil.net\r\n\r\n", []int{400}},
	{"the absolute form", "GET http://evil.netPATH HTTP/1.1\r\nHost: x\r\n\r\n" + hidden, []int{400}},
	{"the absolute form of another scheme", "GET ftp://evil.net/v2/ HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
	{"the absolute form without a path", "GET http://evil.net HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
	{"an opaque target", "GET mailto:a@b HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
	{"CONNECT", "CONNECT evil.net:443 HTTP/1.1\r\nHost: evil.net:443\r\n\r\n" + hidden, []int{400}},
	{"CONNECT to a path", "CONNECT /v2/ HTTP/1.1\r\nHost: x\r\n\r\n" + hidden, []int{400}},
	{"a body on GET", "GET PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 52\r\n\r\n" + hidden, []int{400}},
	{"a body on HEAD", "HEAD PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 52\r\n\r\n" + hidden, []int{400}},
	{"a chunked body on GET", "GET PATH HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n34\r\n" + hidden + "\r\n0\r\n\r\n", []int{400}},
	{"a body on GET that is expected", "GET PATH HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 52\r\n\r\n" + hidden, []int{400}},
	{"an expectation that nobody knows", "GET PATH HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nConnection: close\r\n\r\n", []int{417}},
	{"a push", "PUT /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", []int{405}},
	{"an upload", "POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", []int{405}},
	{"a deletion", "DELETE PATH HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{405}},
	{"a patch", "PATCH PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", []int{405}},
	{"TRACE", "TRACE PATH HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{405}},
	{"a method of its own", "EVIL PATH HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{405}},
	{"a method in lower case", "get PATH HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{405}},
	{"a method with a line break", "GET\n PATH HTTP/1.1\r\nHost: x\r\n\r\n", []int{0, 400}},
	{"another method in a header", "GET PATH HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: DELETE\r\nX-Method-Override: PUT\r\nConnection: close\r\n\r\n", []int{200}},
	{"a way around its name in headers", "GET PATH HTTP/1.1\r\nHost: x\r\nX-Original-URL: /v2/hidden/x/tags/list\r\nX-Rewrite-URL: /v2/hidden/x/tags/list\r\nConnection: close\r\n\r\n", []int{200}},
	{"headers that a hop is to drop", "GET PATH HTTP/1.1\r\nHost: x\r\nConnection: close, Host, Accept, Range\r\n\r\n", []int{200}},
	{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{0, 400, 404, 505}},
	{"an upgrade to HTTP/2", "GET PATH HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", []int{200}},
	{"an upgrade to a socket", "GET PATH HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n", []int{200}},
	{"HTTP/0.9", "GET PATH\r\n\r\n", []int{400}},
	{"HTTP/3.0", "GET PATH HTTP/3.0\r\nHost: x\r\n\r\n", []int{400, 505}},
	{"HTTP/1.0 that stays", "GET PATH HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /v2/ HTTP/1.0\r\n\r\n", []int{200}},
	{"no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []int{0, 400}},
	{"a header of 64 KiB", "GET PATH HTTP/1.1\r\nHost: x\r\nX-A: LONG\r\nConnection: close\r\n\r\n", []int{200, 431}}, // see below
	{"a path of 64 KiB", "GET /v2/LONG/x/manifests/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{404, 431}},
	{"steps up", "GET /v2/team/app/../../hidden/x/tags/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"steps up, escaped", "GET /v2/team/app/%2e%2e/%2e%2e/hidden/x/tags/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"slashes, escaped", "GET /v2/team%2fapp%2fmanifests%2fv1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{404}},
	{"escapes, escaped", "GET /v2/team/app/manifests/%252e%252e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"a broken escape", "GET /v2/team/app/manifests/v%zz HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
	{"a NUL in the path", "GET /v2/team/app/manifests/v\x00 HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
	{"a NUL in the path, escaped", "GET /v2/team/app/manifests/v%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"a line break in the path, escaped", "GET /v2/team/app/manifests/v%0d%0aX-Evil:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"a space in the path", "GET /v2/team/app/manifests/v 1 HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
	{"upper case", "GET /v2/Team/App/manifests/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400}},
	{"backslashes", `GET /v2/team\app\..\hidden/x/manifests/v1 HTTP/1.1` + "\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"empty parts", "GET //v2//team//app/manifests/v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"a path parameter", "GET /v2/team/app;x=/hidden/manifests/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400}},
	{"a fragment", "GET /v2/team/app/manifests/v1#/hidden HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"letters that look alike", "GET /v2/teаm/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"a digest that is a path", "GET /v2/team/app/blobs/sha256:../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400, 404}},
	{"a digest in upper case", "GET /v2/team/app/blobs/sha256:2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400}},
	{"a digest of a weak algorithm", "GET /v2/team/app/blobs/md5:5d41402abc4b2a76b9719d911017c592 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{400}},
	{"another path to the peers", "GET /peer/v1/blobs/" + helloDigest + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", []int{404}},
	{"the catalog", "GET /v2/_catalog?n=1000000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{404}},
	{"queries that registries heed", "GET PATH?ns=&account=root&from=hidden/x&mount=y&_state=z HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{200}},
}

func wireAttacks() []attack {
	var all []attack
	for _, raw := range rawAttacks {
		all = append(all, attack{"a client sends " + raw.name, "upstream is asked for anything else than one whole blob", func(t *testing.T) {
			up := upstreamtest.New(t)
			d := up.PutBlob(repo, []byte("hello"))
			up.PutManifest("hidden/x", "v1", upstreamtest.TypeManifest, []byte("hidden"))
			p := newProxy(t, up, settings{})
			text := strings.NewReplacer("PATH", blobPath(d), "LONG", strings.Repeat("x", 64<<10)).Replace(raw.text)
			answers := p.converse(text)
			first := 0
			if len(answers) > 0 {
				first = answers[0].StatusCode
			}
			if !slices.Contains(raw.statuses, first) {
				t.Errorf("status %d, want one of %v", first, raw.statuses)
			}
			for _, a := range answers {
				if bytes.Contains(a.body, []byte("hidden")) {
					t.Errorf("the hidden request was answered: %q", a.body)
				}
			}
			onlyBlobs(t, up, d.String())
		}})
	}
	return append(all, attack{"a client sends requests without waiting", "the answers change places or run into each other", func(t *testing.T) {
		up := upstreamtest.New(t)
		var text strings.Builder
		var want []string
		for i := range 20 {
			content := "blob " + strconv.Itoa(i)
			want = append(want, content)
			d := up.PutBlob(repo, []byte(content))
			fmt.Fprintf(&text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", blobPath(d))
		}
		p := newProxy(t, up, settings{})
		answers := p.converse(strings.TrimSuffix(text.String(), "\r\n") + "Connection: close\r\n\r\n")
		for i, a := range answers {
			if string(a.body) != want[i] {
				t.Errorf("answer %d is %q", i, a.body)
			}
		}
		if len(answers) != len(want) {
			t.Errorf("%d answers", len(answers))
		}
	}}, attack{"a client sends a header without end to the port", "it is read on and on", func(t *testing.T) {
		p, _, _ := running(t, upstreamtest.New(t), settings{})
		answers := p.converse("GET /v2/ HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: "+strings.Repeat("x", 1<<10)+"\r\n", 100) + "\r\n")
		if len(answers) != 1 || answers[0].StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%v", answers)
		}
	}}, attack{"a client half-sends a push", "it holds its connection for as long as it likes", func(t *testing.T) {
		p := newProxy(t, upstreamtest.New(t), settings{})
		answers := p.converse("PUT /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
		if len(answers) != 1 || answers[0].StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%v", answers)
		}
	}}, attack{"a client asks for a thousand ranges", "a thousand parts are made", func(t *testing.T) {
		up := upstreamtest.New(t)
		d := up.PutBlob(repo, []byte("hello"))
		p := newProxy(t, up, settings{})
		for _, ranges := range []string{"bytes=" + strings.Repeat("0-,", 1000) + "0-", "bytes=" + strings.Repeat("0-0,", 100) + "-1", "bytes=0-18446744073709551616", "bytes=-18446744073709551616", "bytes=5-2", "bytes=a-b", "octets=0-1"} {
			a := p.get(blobPath(d), "Range", ranges)
			if len(a.body) > 5 || a.StatusCode != http.StatusOK && a.StatusCode != http.StatusPartialContent {
				t.Errorf("%.30s: %d, %d bytes", ranges, a.StatusCode, len(a.body))
			}
		}
		for _, r := range up.Requests() {
			if r.Header.Get("Range") != "" {
				t.Errorf("upstream was asked for %s", r.Header.Get("Range"))
			}
		}
	}})
}

// converse sends raw bytes and reads answers until the node closes.
func (p *proxy) converse(text string) []answer {
	p.t.Helper()
	c := p.dial()
	if _, err := io.WriteString(c, text); err != nil {
		return nil // the node cut the connection before everything was sent
	}
	in := bufio.NewReader(c)
	var all []answer
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			if ne, ok := err.(interface{ Timeout() bool }); ok && ne.Timeout() {
				p.t.Error("the connection was left open")
			}
			return all
		}
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		all = append(all, read(resp))
	}
}

// onlyBlobs fails the test if upstream got any request other than one plain request for
// that blob.
func onlyBlobs(t *testing.T, up *upstreamtest.Registry, digest string) {
	t.Helper()
	requests := up.Requests()
	if len(requests) > 1 {
		t.Errorf("%d requests upstream", len(requests))
	}
	for _, r := range requests {
		if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Path != blobPathOf(digest) || r.RawQuery != "" ||
			r.Header.Get("Content-Length") != "" || r.Header.Get("Transfer-Encoding") != "" || len(r.Header) != 4 || len(r.Header["Via"]) != 1 {
			t.Errorf("upstream was asked %s %s?%s %v", r.Method, r.Path, r.RawQuery, r.Header)
		}
	}
}

func blobPathOf(digest string) string { return "/v2/" + repo + "/blobs/" + digest }
