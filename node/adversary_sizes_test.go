package node

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/upstreamtest"
)

// before waits until a host was asked, and fails if the client has an answer before that.
func before(t *testing.T, client net.Conn, asked <-chan struct{}) {
	t.Helper()
	over := make(chan struct{})
	answer := make([]byte, 1<<10)
	n := 0
	go func() {
		defer close(over)
		n, _ = io.ReadAtLeast(client, answer, 1)
	}()
	select {
	case <-asked:
	case <-over:
		t.Fatalf("the client had an answer before the host was asked: %q", answer[:n])
	}
}

// endless writes until the node stops reading, and returns how many bytes were written.
func endless(w http.ResponseWriter, piece string) (n int64) {
	b := bytes.Repeat([]byte(piece), 1+(16<<10)/len(piece))
	for {
		k, err := w.Write(b)
		n += int64(k)
		if err != nil {
			return n
		}
		if n > 1<<30 {
			return n // the node did not stop reading
		}
	}
}

// An oversize is an answer that is too large, and how many bytes of it the node may read.
type oversize struct {
	name, path string
	most       int64
	answer     func(w http.ResponseWriter) int64
}

// slack is how many bytes can lie in buffers when the node hangs up: at most what the
// kernel lets a connection's two sockets buffer.
var slack = max(16<<20, kernelBuffer("tcp_rmem")+kernelBuffer("tcp_wmem"))

// kernelBuffer is the largest buffer of a TCP socket in bytes, 0 if it is not known.
func kernelBuffer(name string) int64 {
	b, err := os.ReadFile("/proc/sys/net/ipv4/" + name) // three numbers; the last one is the bound
	fields := strings.Fields(string(b))
	if err != nil || len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[len(fields)-1], 10, 64) // 0 if it is not a number
	return n
}

var oversizes = []oversize{
	{"a manifest over its bound", "manifests/v1", 4 << 20, func(w http.ResponseWriter) int64 {
		w.Header().Set("Content-Type", upstreamtest.TypeManifest)
		w.Header().Set("Content-Length", strconv.Itoa(4<<20+1))
		return written(w, strings.Repeat(" ", 4<<20+1))
	}},
	{"an endless manifest", "manifests/v1", 4 << 20, func(w http.ResponseWriter) int64 {
		w.Header().Set("Content-Type", upstreamtest.TypeManifest)
		return endless(w, " ")
	}},
	{"an endless list of tags", "tags/list", 32 << 20, func(w http.ResponseWriter) int64 { return endless(w, `{"tags":["a"`) }},
	{"an endless list of referrers", "referrers/" + helloDigest, 4 << 20, func(w http.ResponseWriter) int64 { return endless(w, `{"manifests":[`) }},
	{"an endless error", "manifests/v1", 16 << 10, func(w http.ResponseWriter) int64 {
		w.WriteHeader(http.StatusForbidden)
		return endless(w, `{"errors":[{"message":"`)
	}},
	{"an endless error with a blob", "blobs/" + helloDigest, 16 << 10, func(w http.ResponseWriter) int64 {
		w.WriteHeader(http.StatusNotFound)
		return endless(w, "x")
	}},
	{"a redirect with an endless body", "blobs/" + helloDigest, 16 << 10, func(w http.ResponseWriter) int64 {
		w.Header().Set("Location", "ftp://x/")
		w.WriteHeader(http.StatusFound)
		return endless(w, "x")
	}},
	{"a challenge with an endless body", "blobs/" + helloDigest, 16 << 10, func(w http.ResponseWriter) int64 {
		w.Header().Set("WWW-Authenticate", "Negotiate")
		w.WriteHeader(http.StatusUnauthorized)
		return endless(w, "x")
	}},
	{"a manifest that is an endless gzip of nothing", "manifests/v1", 4 << 20, func(w http.ResponseWriter) int64 {
		w.Header().Set("Content-Type", upstreamtest.TypeManifest)
		w.Header().Set("Content-Encoding", "gzip")
		return endless(w, string(zipped(1<<20)))
	}},
}

// zipped returns that many zeros, compressed by gzip.
func zipped(size int) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(make([]byte, size))
	_ = z.Close()
	return b.Bytes()
}

// written writes text.
func written(w http.ResponseWriter, text string) int64 {
	n, _ := io.WriteString(w, text)
	return int64(n)
}

func sizeAttacks() []attack {
	var all []attack
	for _, o := range oversizes {
		all = append(all, attack{"a registry sends " + o.name, "it is read on and on, or waited for", func(t *testing.T) {
			up := upstreamtest.New(t)
			took := make(chan int64, 64)
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet}, Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
				took <- o.answer(w)
				return true
			}})
			up.Fault(upstreamtest.Fault{Status: 405})
			p := newProxy(t, up, settings{})
			if a := p.get("/v2/" + repo + "/" + o.path); a.StatusCode < 400 || len(a.body) > 4<<10 {
				t.Errorf("%d, %d bytes", a.StatusCode, len(a.body))
			}
			if n := <-took; n > o.most+slack {
				t.Errorf("%d bytes were taken", n)
			}
		}})
	}
	return append(append(all, tokenSizes()...), append(headSizes(), blobSizes()...)...)
}

// tokenSizes are token servers with oversized answers.
func tokenSizes() []attack {
	var all []attack
	for name, answer := range map[string]http.HandlerFunc{
		"an endless answer":             func(w http.ResponseWriter, _ *http.Request) { endless(w, `{"token":"`) },
		"an endless refusal":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403); endless(w, `{"errors":[`) },
		"a token of two MiB":            giveThe(strings.Repeat("t", 2<<20)),
		"a token of 100 KiB":            giveThe(strings.Repeat("t", 100<<10)),
		"a token that is a number":      func(w http.ResponseWriter, _ *http.Request) { written(w, `{"token":1e999}`) },
		"nested to death":               func(w http.ResponseWriter, _ *http.Request) { written(w, `{"token":`+strings.Repeat("[", 500_000)) },
		"a life of thousands of years":  func(w http.ResponseWriter, _ *http.Request) { written(w, `{"token":"t","expires_in":1e300}`) },
		"a life that ended long ago":    func(w http.ResponseWriter, _ *http.Request) { written(w, `{"token":"t","expires_in":-1e300}`) },
		"a page instead of a token":     func(w http.ResponseWriter, _ *http.Request) { written(w, `<html>`) },
		"an empty token and no trouble": giveThe(""),
	} {
		all = append(all, attack{"a token server sends " + name, "it is read on and on, kept, or brings the node down", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.host("https://auth.example.com", answer)
			w.net.host("https://reg.example.com", challenge("https://auth.example.com/token"))
			_, blob := w.pull()
			w.wantRefused(blob)
			w.get("/_/health").want(t, http.StatusOK)
		}})
	}
	return all
}

// raw answers with bytes of its own on the connection, and then calls then.
func raw(head string, then func(io.Writer)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return true
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, head)
		if then != nil {
			then(conn)
		}
		return true
	}
}

// again writes a piece over and over.
func overAndOver(piece string) func(io.Writer) {
	return func(w io.Writer) {
		b := bytes.Repeat([]byte(piece), 1+(8<<10)/len(piece))
		for range (256 << 20) / len(b) {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}
}

// headSizes are headers of answers that are oversized or malformed.
func headSizes() []attack {
	ok := "HTTP/1.1 200 OK\r\n"
	var all []attack
	for name, wrap := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"headers without end":              raw(ok, overAndOver("X-A: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n")),
		"one header without end":           raw(ok+"X-A: ", overAndOver("x")),
		"a status line without end":        raw("HTTP/1.1 200 ", overAndOver("O")),
		"interim answers without end":      raw("", overAndOver("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")),
		"100 Continue without end":         raw("", overAndOver("HTTP/1.1 100 Continue\r\n\r\n")),
		"a switch of protocols":            raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\n", overAndOver("x")),
		"two lengths":                      raw(ok+"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", nil),
		"a negative length":                raw(ok+"Content-Length: -5\r\n\r\nhello", nil),
		"a length past all bounds":         raw(ok+"Content-Length: 99999999999999999999\r\n\r\nhello", nil),
		"a length and chunks":              raw(ok+"Content-Length: 500\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell!\r\n0\r\n\r\n", nil),
		"an unknown transfer coding":       raw(ok+"Transfer-Encoding: evil\r\n\r\nhello", nil),
		"a chunk past all bounds":          raw(ok+"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nhello", nil),
		"chunk extensions without end":     raw(ok+"Transfer-Encoding: chunked\r\n\r\n5;", overAndOver("x=y;")),
		"trailers without end":             raw(ok+"Transfer-Encoding: chunked\r\n\r\n5\r\nhell!\r\n0\r\n", overAndOver("X-A: b\r\n")),
		"no HTTP":                          raw("SSH-2.0-OpenSSH_9.9\r\n", overAndOver("\x00")),
		"HTTP/0.9":                         raw("<html>", nil),
		"a status of four digits":          raw("HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello", nil),
		"a status that is none":            raw("HTTP/1.1 -1 OK\r\nContent-Length: 5\r\n\r\nhello", nil),
		"a folded header":                  raw(ok+"X-A: b\r\n Content-Length: 7\r\nContent-Length: 4\r\n\r\nhell", nil),
		"a length for a status with none":  raw("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", nil),
		"a wall of challenges":             raw("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n"+strings.Repeat("WWW-Authenticate: Bearer realm=\"/x\"\r\n", 3000)+"\r\n", nil),
		"a challenge of a hundred KiB":     raw("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer "+strings.Repeat(`a="b",`, 17<<10)+"\r\n\r\n", nil),
		"nothing, and hangs up":            raw("", nil),
		"half a header, and hangs up":      raw("HTTP/1.1 200 OK\r\nContent-Le", nil),
		"a whole answer to nobody as well": raw("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"+ok+"Content-Length: 5\r\n\r\nhello", nil),
	} {
		all = append(all, attack{"a registry answers with " + name, "it is believed, read on and on, or brings the node down", func(t *testing.T) {
			up := upstreamtest.New(t)
			want := []byte("the right bytes")
			d := up.PutBlob(repo, want)
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: digest.FromString("hello").Encoded()}, Wrap: wrap})
			p := newProxy(t, up, settings{})
			hello := digest.FromString("hello")
			if a := p.get("/v2/" + repo + "/blobs/" + hello.String()); a.StatusCode == 200 && a.err == nil && string(a.body) != "hello" {
				t.Errorf("%d %q", a.StatusCode, a.body)
			}
			if a := p.get(blobPath(d)); !bytes.Equal(a.body, want) {
				t.Errorf("afterwards: %d %q", a.StatusCode, a.body)
			}
		}})
	}
	return all
}

// blobSizes are oversized blobs.
func blobSizes() []attack {
	return []attack{{"a registry sends a blob without end and without length", "it goes on when nobody wants it", func(t *testing.T) {
		up := upstreamtest.New(t)
		stopped := make(chan int64, 1)
		up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/blobs/"}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
			b := make([]byte, 64<<10)
			var n int64
			for r.Context().Err() == nil {
				k, err := w.Write(b)
				if n += int64(k); err != nil {
					break
				}
			}
			stopped <- n
			return true
		}})
		p := newProxy(t, up, settings{defaults: "cache_max_size: 8m"})
		kept := random(9, 1<<20)
		d := up.PutBlob(repo, kept)
		resp := p.send(http.MethodGet, "/v2/"+repo+"/blobs/"+helloDigest)
		if _, err := io.CopyN(io.Discard, resp.Body, 32<<20); err != nil {
			t.Error(err)
		}
		_ = resp.Body.Close()
		<-stopped
		up.ClearFaults()
		if a := p.get(blobPath(d)); !bytes.Equal(a.body, kept) {
			t.Errorf("afterwards: %d, %d bytes", a.StatusCode, len(a.body))
		}
	}}, {"a registry announces a blob of eight exabytes", "the cache is emptied for it, or room is made", func(t *testing.T) {
		up := upstreamtest.New(t)
		p := newProxy(t, up, settings{defaults: "cache_max_size: 8m"})
		kept := random(9, 1<<20)
		d := up.PutBlob(repo, kept)
		p.get(blobPath(d))
		up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: helloDigest}, Wrap: raw("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nhello", nil)})
		a := p.get("/v2/" + repo + "/blobs/" + helloDigest)
		if a.err == nil && a.StatusCode == 200 {
			t.Errorf("a whole answer of %d bytes", len(a.body))
		}
		p.get(blobPath(d)).want(t, 200, "Cache-Status", "oci-proxy; hit")
	}}, {"a registry gives a blob that is a thousand times as large unpacked", "it is unpacked", func(t *testing.T) {
		packed := zipped(20 << 20)
		up := upstreamtest.New(t)
		d := up.PutBlob(repo, packed)
		up.Fault(upstreamtest.Fault{Header: http.Header{"Content-Encoding": {"gzip"}}})
		p := newProxy(t, up, settings{})
		for range 2 {
			a := p.get(blobPath(d), "Accept-Encoding", "gzip")
			a.want(t, 200, "Content-Encoding", "")
			if !bytes.Equal(a.body, packed) {
				t.Errorf("%d bytes, want the %d packed ones", len(a.body), len(packed))
			}
		}
	}}, {"a token server trickles its answer, and the client leaves", "the other clients wait as well", func(t *testing.T) {
		w := newWorld(t, settings{more: "  open.example.org: {}"})
		asked, release := make(chan struct{}, 64), make(chan struct{})
		defer close(release)
		w.net.host("https://open.example.org", serveHello)
		w.net.host("https://auth.example.com", func(rw http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(rw, `{"token":"`)
			_ = http.NewResponseController(rw).Flush()
			asked <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		})
		w.net.host("https://reg.example.com", challenge("https://auth.example.com/token"))
		c := w.dial()
		fmt.Fprintf(c, "GET /v2/team/app/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n", helloDigest)
		before(t, c, asked)
		w.wantHello(w.ask(http.MethodGet, "/v2/open.example.org/a/b/blobs/"+helloDigest))
		_ = c.Close()
		w.get("/v2/").want(t, http.StatusOK)
	}}, {"a registry sends half a header, or half a body, and stands still", "the node has to wait to serve others", func(t *testing.T) {
		up := upstreamtest.New(t)
		d := up.PutBlob(repo, []byte("others"))
		asked, release := make(chan struct{}, 64), make(chan struct{})
		defer close(release)
		for part, head := range map[string]string{"/manifests/": "HTTP/1.1 200 OK\r\nContent-", helloDigest: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"} {
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: part}, Times: 1, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
				asked <- struct{}{}
				return raw(head, func(io.Writer) { <-release })(w, r)
			}})
		}
		up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead}, Status: 405})
		p := newProxy(t, up, settings{})
		for _, path := range []string{"/v2/" + repo + "/manifests/v1", "/v2/" + repo + "/blobs/" + helloDigest} {
			c := p.dial()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
			before(t, c, asked)
			p.get(blobPath(d)).want(t, 200)
			_ = c.Close()
		}
	}}}
}
