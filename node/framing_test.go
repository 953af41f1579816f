package node

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// next is a request that must not be read after one whose end is unclear.
const next = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

// framings are headers, and what follows them, that two hops may cut in two places.
var framings = []string{
	"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: Chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nX: y\r\n\r\n",
	"Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: \"chunked\"\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
	"Content-Length: 2, 3\r\n\r\n{} ",
	"Content-Length:\r\n 2\r\n\r\n{}",
	"Content-Length: 2\r\n\r\n{}",
	"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}",
	"Content-Length: 4\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
	"Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}",
}

// RFC 9112 section 6.1: the connection ends after a request with Content-Length and
// Transfer-Encoding. Here it ends after every request with a body, whatever its method
// and path, and after HTTP/1.0, where a Transfer-Encoding cannot be seen.
func TestNothingIsReadAfterARequestWhoseEndIsUnclear(t *testing.T) {
	t.Parallel()
	p, _, _ := running(t, upstreamtest.New(t), settings{}) // net/http answers some requests before a handler
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "EVIL", "post"}
	for _, path := range []string{"/", "/v2/", "/v2/team/app/manifests/v1", "/_/health", "/_/leave", "/_/none", "//x", "*"} {
		for _, method := range methods {
			for _, version := range []string{"1.1", "1.0"} {
				for _, framing := range framings {
					first := fmt.Sprintf("%s %s HTTP/%s\r\nHost: localhost\r\nConnection: keep-alive\r\n%s", method, path, version, framing)
					if answers := p.converse(first + next); len(answers) > 1 {
						t.Errorf("%d answers, the first with %d, to %q", len(answers), answers[0].StatusCode, first)
					}
				}
			}
		}
	}
}

// What has no body and one end only keeps its connection.
func TestAClearRequestKeepsItsConnection(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	for _, first := range []string{
		"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
		"OPTIONS /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		answers := p.converse(first + next)
		if len(answers) != 2 || answers[1].StatusCode != http.StatusOK {
			t.Errorf("%d answers to %q", len(answers), strings.SplitN(first, "\r\n", 2)[0])
		}
	}
}
