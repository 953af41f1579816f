package node

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/upstreamtest"
)

// A lie is a false answer about a blob of 300 KiB. The node may still find the right
// bytes, or answer with an error. It must not send a complete answer with wrong bytes.
var lies = map[string]upstreamtest.Fault{
	"a length that is too large":        {LieLength: 7},
	"a length that is too small":        {LieLength: -7},
	"a length of nothing":               {LieLength: -300 << 10},
	"a wrong first byte":                {Corrupt: true},
	"a wrong last byte":                 {Corrupt: true, CorruptAt: 300<<10 - 1},
	"a wrong byte, without a length":    {Corrupt: true, CorruptAt: 7, NoLength: true},
	"another part than was asked for":   {WrongRange: true},
	"the whole where a part was wanted": {IgnoreRange: true, CutAfter: 100 << 10, Times: 1},
	"a part that begins elsewhere":      {CutAfter: 100 << 10, Header: http.Header{"Content-Range": {"bytes 5-9/10"}}},
	"another digest":                    {WrongDigest: true, Corrupt: true},
	"compressed bytes":                  {Gzip: true},
	"the blob of somebody else":         {Status: 200, Body: strings.Repeat("evil", 76800)},
	"a part of somebody else's":         {Status: 206, Body: "evil", Header: http.Header{"Content-Range": {"bytes 0-3/307200"}}},
	"a part past all bounds":            {Status: 206, Body: "evil", Header: http.Header{"Content-Range": {"bytes 0-999999999999999999/999999999999999999"}}},
	"a part of a negative whole":        {Status: 206, Body: "evil", Header: http.Header{"Content-Range": {"bytes 0-3/-1"}}},
	"several parts":                     {Status: 206, Body: "--x\r\n\r\nevil\r\n--x--", Header: http.Header{"Content-Type": {"multipart/byteranges; boundary=x"}}},
	"nothing, with success":             {Status: 204},
	"a page, with success":              {Status: 200, Body: "<html>please log in</html>", Header: http.Header{"Content-Type": {"text/html"}}},
	"not modified":                      {Status: 304},
	"created":                           {Status: 201, Body: "evil"},
	"a choice":                          {Status: 300, Body: "evil"},
}

func contentAttacks() []attack {
	var all []attack
	for name, f := range lies {
		all = append(all, attack{"a registry sends " + name, "a client gets a whole answer that is wrong, or the cache keeps it", func(t *testing.T) {
			up := upstreamtest.New(t)
			right := random(11, 300<<10)
			d := up.PutBlob(repo, right)
			f.Match = upstreamtest.Match{Method: http.MethodGet, PathPart: d.Encoded()}
			up.Fault(f)
			p := newProxy(t, up, settings{})
			for _, header := range [][]string{nil, {"Range", "bytes=200000-"}} {
				a := p.get(blobPath(d), header...)
				want := right
				if a.StatusCode == http.StatusPartialContent {
					want = right[200000:]
				}
				if a.err == nil && a.StatusCode < 300 && !bytes.Equal(a.body, want) {
					t.Errorf("%d, %d bytes, not the right ones", a.StatusCode, len(a.body))
				}
			}
			up.ClearFaults()
			if a := p.get(blobPath(d)); !bytes.Equal(a.body, right) {
				t.Errorf("afterwards: %d, %d bytes, %v", a.StatusCode, len(a.body), a.err)
			}
		}})
	}
	return append(all, manifestAttacks()...)
}

// manifestAttacks are false answers about manifests.
func manifestAttacks() []attack {
	path := "/v2/" + repo + "/manifests/"
	get := upstreamtest.Match{Method: http.MethodGet, PathPart: "/manifests/"}
	wrong := func(name string, f upstreamtest.Fault) attack {
		return attack{"a registry sends a manifest with " + name, "a client gets it", func(t *testing.T) {
			up := upstreamtest.New(t)
			img := up.PutImage(repo, "v1", []byte("layer"))
			up.Fault(f)
			p := newProxy(t, up, settings{})
			for _, ref := range []string{"v1", img.Manifest.String()} {
				a := p.get(path + ref)
				own := ref == "v1" && f.Body == "{}" // the registry decides what a tag means
				if a.StatusCode == 200 && !bytes.Equal(a.body, img.ManifestBytes) && !own {
					t.Errorf("%s: %q", ref, a.body)
				}
				if got := a.Header.Get("Docker-Content-Digest"); a.StatusCode == 200 && got != digest.FromBytes(a.body).String() {
					t.Errorf("%s: told as %s", ref, got)
				}
			}
		}}
	}
	return []attack{
		wrong("another digest", upstreamtest.Fault{Match: get, WrongDigest: true}),
		wrong("another manifest's digest by HEAD", upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead}, WrongDigest: true}),
		wrong("somebody else's bytes", upstreamtest.Fault{Match: get, Status: 200, Body: `{"schemaVersion":2,"evil":1}`, Header: http.Header{"Docker-Content-Digest": {helloDigest}}}),
		wrong("a page in front of it", upstreamtest.Fault{Status: 200, Body: "<html>please log in</html>", Header: http.Header{"Content-Type": {"text/html"}}}),
		wrong("compressed bytes", upstreamtest.Fault{Gzip: true}),
		wrong("a digest that is a path", upstreamtest.Fault{Status: 200, Body: "{}", Header: http.Header{"Docker-Content-Digest": {"sha256:../../../../etc/passwd"}}}),
		wrong("a digest of an algorithm nobody checks", upstreamtest.Fault{Status: 200, Body: "{}", Header: http.Header{"Docker-Content-Digest": {"md5:99914b932bd37a50b983c5e7c90ae93b"}}}),
		wrong("its end cut", upstreamtest.Fault{Match: get, CutAfter: 20}),
		{"a network that wants a login first answers for a tag that was known", "its page becomes the tag, or the old manifest is lost", func(t *testing.T) {
			up := upstreamtest.New(t)
			img := up.PutImage(repo, "v1", []byte("layer"))
			p := newProxy(t, up, settings{})
			p.get(path+"v1").want(t, 200)
			up.Fault(upstreamtest.Fault{Status: 200, Body: "<html>", Header: http.Header{"Content-Type": {"text/html"}}})
			a := p.get(path + "v1")
			if a.StatusCode != 200 || !bytes.Equal(a.body, img.ManifestBytes) || !strings.Contains(a.Header.Get("Cache-Status"), "stale-if-error") {
				t.Errorf("%d %q %s", a.StatusCode, a.body, a.Header.Get("Cache-Status"))
			}
		}},
		{"a registry that a client chose tells another media type for a digest", "others' clients are told so", func(t *testing.T) {
			up, evil := upstreamtest.New(t), upstreamtest.New(t)
			content := []byte(`{"schemaVersion":2,"layers":[],"manifests":[]}`)
			d := up.PutManifest(repo, "v1", upstreamtest.TypeManifest, content)
			evil.PutManifest(repo, "v1", upstreamtest.TypeIndex, content)
			p := newProxy(t, up, settings{more: fmt.Sprintf("  %q: {insecure: true, alias: [evil]}", evil.Host())})
			p.get("/v2/evil/"+repo+"/manifests/v1").want(t, 200)
			p.get(path+d.String()).want(t, 200, "Content-Type", upstreamtest.TypeManifest)
		}},
		{"a registry puts a body behind HEAD", "the next answer is made of it", func(t *testing.T) {
			up := upstreamtest.New(t)
			right := []byte("the right bytes")
			d, n := up.PutBlob(repo, right), 0
			forged := "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nthe wrong bytes"
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
				n++
				return raw("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n"+forged+forged, nil)(w, r)
			}})
			p := newProxy(t, up, settings{})
			for range 5 {
				p.do(http.MethodHead, blobPath(d))
			}
			if a := p.get(blobPath(d)); a.err == nil && a.StatusCode == 200 && !bytes.Equal(a.body, right) {
				t.Errorf("%q", a.body)
			}
		}},
		{"a registry's HEAD says that a digest is another's", "GET by digest gives what it says", func(t *testing.T) {
			up := upstreamtest.New(t)
			d := up.PutBlob(repo, []byte("hello"))
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead}, Status: 200, Header: http.Header{"Docker-Content-Digest": {digest.FromString("evil").String()}}})
			p := newProxy(t, up, settings{})
			p.do(http.MethodHead, blobPath(d)).want(t, 200, "Docker-Content-Digest", d.String())
		}},
		{"a client's HEAD is answered wrongly", "a later GET is answered from it", func(t *testing.T) {
			up := upstreamtest.New(t)
			img := up.PutImage(repo, "v1", []byte("layer"))
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodHead}, Status: 200, Times: 1, Header: http.Header{
				"Docker-Content-Digest": {helloDigest}, "Content-Type": {upstreamtest.TypeManifest}, "Content-Length": {"99"},
			}})
			p := newProxy(t, up, settings{registry: "tag_ttl: 1h"})
			p.do(http.MethodHead, path+"v1")
			if a := p.get(path + "v1"); !bytes.Equal(a.body, img.ManifestBytes) {
				t.Errorf("%d %q", a.StatusCode, a.body)
			}
		}},
	}
}
