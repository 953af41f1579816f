package express

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

const (
	asks   = "GET /v2/held/told-4096 HTTP/1.1\r\nHost: proxy:80\r\nUser-Agent: docker/27\r\nAccept-Encoding: identity\r\n\r\n"
	asksTo = "HEAD /v2/held/told-10 HTTP/1.1\r\nHost: proxy\r\nConnection: keep-alive\r\nAccept: a/b, c/d;q=0.5\r\nAccept: e/f\r\n\r\n"
	other  = "GET /v2/ HTTP/1.1\r\nHost: proxy\r\n\r\n"
)

// conversations are what clients send, honest ones and others.
var conversations = []string{
	asks, asksTo, other, asks + asks, asks + other + asksTo, other + asks, asks[:40], "", "\r\n", "\r\n" + asks, asks + "\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost:\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a b\r\n\r\n" + asks,
	"GET /v2/held/told-5?ns=x HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
	"GET /v2/held/%74old-5 HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
	"GET /v2/held/../told-5 HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
	"GET //v2/held/told-5 HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
	"GET http://x/v2/held/told-5 HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
	"GET /v2/held/told-5  HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1 \r\nHost: a\r\n\r\n" + asks,
	"get /v2/held/told-5 HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
	"GET /v2/held/told-5 http/1.1\r\nHost: a\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\nHost: a\n\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\n\nGET /v2/held/told-6 HTTP/1.1\r\nHost: b\r\n\r\n",
	"GET /v2/ HTTP/1.1\r\nHost: a\n\nGET /v2/held/told-6 HTTP/1.1\r\nHost: b\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nAccept: x\r\n y\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost : a\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nAccept: \x01\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nAccept: a\rb\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nAccept: \xff\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nAccept:\tx \t\r\naccept:y\r\nACCEPT:\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nX-Unknown: x\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, X\r\nConnection: keep-alive\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: Upgrade\r\n\r\n" + asks,
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + asks,
	"GET /v2/held/told-5 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" + asks,
	"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 96\r\n\r\n" + asks + asks,
	"POST /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + asks,
	"POST /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + asks,
	"POST /v2/ HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n" + asks,
	"GET /v2/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc" + asks,
	"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("y", 4200) + "\r\n\r\n" + asks,
	"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + asks,
	"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
	"CONNECT x:1 HTTP/1.1\r\nHost: a\r\n\r\n" + asks,
}

// kinds are answers that shapes gives.
var kinds = []string{
	"told-0", "told-1", "told-3000", "told-9000", "told-100000", "pieces-0", "pieces-5000", "pieces-20000",
	"status-200", "status-204", "status-304", "status-404", "status-429", "status-599", "failed", "more-10", "more-9000", "less-10", "less-9000", "odd-3", "odd-3000", "close-3", "close-9000", "date", "abort",
}

func init() {
	for _, shape := range kinds {
		for _, method := range []string{"GET", "HEAD"} {
			conversations = append(conversations, method+" /v2/held/"+shape+" HTTP/1.1\r\nHost: a\r\n\r\n"+asks)
		}
	}
}

var dates = regexp.MustCompile(`(?m)^Date: .*\r$`)

// compare sends the same segments to a server with a lane and to one without.
func compare(tb testing.TB, with, without *site, segments ...string) {
	tb.Helper()
	got, gotErr := with.converse(tb, segments...)
	want, wantErr := without.converse(tb, segments...)
	got, want = dates.ReplaceAllString(got, ""), dates.ReplaceAllString(want, "")
	if errors.Is(gotErr, syscall.ECONNRESET) || errors.Is(wantErr, syscall.ECONNRESET) {
		// It sent something after the server had ended the connection, so either may have lost some.
		n := min(len(got), len(want))
		got, want = got[:n], want[:n]
		gotErr, wantErr = nil, nil
	}
	if got != want || gotErr != nil || wantErr != nil {
		at := 0 // where they differ
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		tb.Errorf("to %q the lane answers\n…%.300q, %v\nand net/http\n…%.300q, %v", segments, got[at:], gotErr, want[at:], wantErr)
	}
}

// FuzzAgainstNetHTTP: whatever clients send, in whatever pieces, the answers are net/http's.
func FuzzAgainstNetHTTP(f *testing.F) {
	for i, c := range conversations {
		f.Add(c, []byte{})
		f.Add(c, []byte{byte(10 + i), 60, 3})
		var apart []byte // each request by itself
		for _, one := range strings.SplitAfter(c, "\r\n\r\n") {
			apart = append(apart, byte(min(len(one), 255)))
		}
		f.Add(c, apart)
	}
	with, without := start(f, true, paced(shapes)), start(f, false, paced(shapes))
	f.Fuzz(func(t *testing.T, all string, cuts []byte) {
		if len(all) > 6<<10 || len(cuts) > 16 {
			t.Skip("longer ones tell no more")
		}
		segments := []string{other} // which net/http answers, as the first request of each connection
		for _, n := range cuts {
			n := min(int(n), len(all))
			if n > 0 {
				segments = append(segments, all[:n])
			}
			all = all[n:]
		}
		if all != "" {
			segments = append(segments, all)
		}
		compare(t, with, without, segments...)
	})
}

// FuzzHead: what is alone has one end, and a simple request says what it seems to.
func FuzzHead(f *testing.F) {
	for _, c := range conversations {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, all string) {
		r, alone, simple := read([]byte(all))
		if !alone {
			return
		}
		if !strings.HasSuffix(all, "\n\r\n") && !strings.HasSuffix(all, "\n\n") || strings.Count(all, "\n\r\n")+strings.Count(all, "\n\n") != 1 {
			t.Errorf("%q has one end only?", all)
		}
		h, ok := parse([]byte(all))
		if ok && (h.method != r.Method || h.path != r.URL.Path || h.path != r.RequestURI || h.path != r.URL.String() || r.Proto != "HTTP/1.1") {
			t.Errorf("%+v of %q", h, all)
		}
		if simple && (r.Host == "" || len(r.Header) > 6 || r.Close || r.Body != http.NoBody) {
			t.Errorf("%+v of %q", r, all)
		}
	})
}
