package node

import (
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

// A lie is a way to answer, and what it may do to pulls.
type lie struct {
	answer func(*liar, http.ResponseWriter, *http.Request)
	size   int64         // of the blob; 0: 2 MiB
	look   time.Duration // a shorter look, if the lie is slow
	cut    bool          // a response that has begun may be cut, and the client asks again
	known  bool          // the node knows the size from a manifest, as in most pulls
}

const (
	small = 20_000
	large = 2 * mib
)

func tellingProgress(p string, next func(*liar, http.ResponseWriter, *http.Request)) func(*liar, http.ResponseWriter, *http.Request) {
	return func(l *liar, w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/peer/v1/progress/") {
			fmt.Fprint(w, p)
			return
		}
		next(l, w, r)
	}
}

// silent answers nothing. It reads what it is sent: else the server would not see that the client
// has gone.
func silent(_ *liar, _ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// silentToAll counts what it is asked for the blob's bytes: whether it holds them it may be asked
// later too, behind clients' backs.
func silentToAll(l *liar, w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/peer/v1/blobs/") {
		l.asked.Add(1)
	}
	silent(l, w, r)
}

func drip(_ *liar, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", fmt.Sprint(large))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, _ = w.Write([]byte("x"))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

var getBlob = func(do func(*liar, http.ResponseWriter, *http.Request)) func(*liar, http.ResponseWriter, *http.Request) {
	return on(http.MethodGet, "blobs/", do)
}

// header sends a false header with the true body.
func header(name, value string) func(*liar, http.ResponseWriter, *http.Request) {
	return getBlob(func(l *liar, w http.ResponseWriter, r *http.Request) {
		w.Header().Set(name, value)
		_, _ = w.Write(l.truth(r))
	})
}

// redirect answers with a registry's redirect, as peers pass it on.
func redirect(to string) func(*liar, http.ResponseWriter, *http.Request) {
	return getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Oci-Peer-Redirect", to)
		w.WriteHeader(http.StatusNoContent)
	})
}

// hijack sends these bytes and then calls more.
func hijack(text string, more func(io.Writer) error) func(*liar, http.ResponseWriter, *http.Request) {
	return getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }() // the liar breaks off
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, text); err != nil || more == nil {
			return
		}
		for more(conn) == nil {
		}
	})
}

func again(text string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
}

var liesOfPeers = map[string]lie{
	"wrong first byte":             {answer: wrongAt(func(int) int { return 0 }, 0), cut: true},
	"wrong byte in the middle":     {answer: wrongAt(func(n int) int { return n / 2 }, 0), cut: true},
	"wrong byte in the tail":       {answer: wrongAt(func(n int) int { return n - 1000 }, 0), cut: true},
	"wrong last byte":              {answer: wrongAt(func(n int) int { return n - 1 }, 0), cut: true},
	"wrong byte of a small blob":   {answer: wrongAt(func(n int) int { return n / 2 }, 0), size: small},
	"all wrong, of a small blob":   {answer: getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, small)) }), size: small},
	"longer than it is":            {answer: wrongAt(nil, 1000), cut: true, known: true},
	"longer than a small one is":   {answer: wrongAt(nil, 1000), size: small},
	"shorter than told":            {answer: wrongAt(nil, 0), cut: true},
	"a size of 8 EiB":              {answer: hijack("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nContent-Length: 9223372036854775807\r\n\r\n", again(strings.Repeat("x", 64<<10))), cut: true, known: true},
	"a size, and then another":     {answer: twoSizes, cut: true},
	"a size, then nothing":         {answer: hijack("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nContent-Length: 100\r\n\r\n", nil)},
	"empty":                        {answer: getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })},
	"no end, no size":              {answer: getBlob(func(_ *liar, w http.ResponseWriter, r *http.Request) { pour(w, r) }), cut: true, known: true},
	"no end of chunks' extensions": {answer: hijack("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nTransfer-Encoding: chunked\r\n\r\n1;", again(strings.Repeat("x", 64<<10)))},
	"no end of headers":            {answer: hijack("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\n", again("X: "+strings.Repeat("x", 4<<10)+"\r\n"))},
	"no end of a header":           {answer: hijack("HTTP/1.1 200 OK\r\nX: ", again(strings.Repeat("x", 64<<10)))},
	"no end of early answers":      {answer: hijack("", again("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"))},
	"no end of trailers":           {answer: hijack("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", again("X: "+strings.Repeat("x", 4<<10)+"\r\n")), cut: true, known: true},
	"gzip":                         {answer: gzipped, cut: true},
	"a bomb":                       {answer: bomb, cut: true, known: true, look: 20 * time.Millisecond},
	"a redirect":                   {answer: redirect("https://evil.example/layer")},
	"a redirect to the metadata":   {answer: redirect("http://169.254.169.254/latest/meta-data/")},
	"a redirect to here":           {answer: redirect("http://127.0.0.1:1/x")},
	"a Location": {answer: getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://169.254.169.254/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})},
	"a range nobody asked for": {answer: getBlob(func(l *liar, w http.ResponseWriter, r *http.Request) {
		b := l.truth(r)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(b)-1, len(b)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(b[5:])
	})},
	"a way of 1 MiB":           {answer: header("Cache-Status", strings.Repeat("x", mib))},
	"a way of 8 KiB":           {answer: header("Cache-Status", strings.Repeat("x", 8<<10))},
	"a way with control marks": {answer: header("Cache-Status", "x\x7f\x80")},
	"no peer's answer":         {answer: header("Oci-Peer", "7")},
	"stale":                    {answer: header("Oci-Peer-Stale", "{")},
	"busy for ever": {answer: getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Oci-Peer-Failure", "busy")
		w.Header().Set("Retry-After", "1e300")
		w.WriteHeader(503)
	})},
	"a failure nobody has": {answer: getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Oci-Peer-Failure", "upstream")
		w.Header().Set("Oci-Peer-Error", "[[[")
		w.WriteHeader(502)
	})},
	"the registry is away": {answer: getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Oci-Peer-Failure", "upstream")
		w.Header().Set("Oci-Peer-Error", `{"kind":"unavailable"}`)
		w.WriteHeader(502)
	})},
	"silence":                {answer: silentToAll, look: 20 * time.Millisecond},
	"silence, never ahead":   {answer: tellingProgress(`{"offset":0,"streams":0}`, getBlob(silent)), look: 20 * time.Millisecond},
	"silence, always ahead":  {answer: tellingProgress(`{"held":true,"offset":9223372036854775807}`, getBlob(silent)), look: 20 * time.Millisecond},
	"silence, odd progress":  {answer: tellingProgress(strings.Repeat("[", 100_000), getBlob(silent)), look: 20 * time.Millisecond},
	"dripping, never ahead":  {answer: tellingProgress(`{"offset":0,"streams":0}`, getBlob(drip)), look: 20 * time.Millisecond, cut: true},
	"dripping, always ahead": {answer: tellingProgress(`{"held":true,"offset":9223372036854775807}`, getBlob(drip)), look: 20 * time.Millisecond, cut: true},
	"dripping, for many":     {answer: tellingProgress(`{"held":true,"offset":9000000,"streams":9223372036854775807}`, getBlob(drip)), look: 20 * time.Millisecond, cut: true},
	"a header, then silence": {answer: tellingProgress(`{"offset":0,"streams":0}`, getBlob(func(l *liar, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(large))
		_ = http.NewResponseController(w).Flush()
		silent(l, w, r)
	})), look: 20 * time.Millisecond},
}

// twoSizes announces another size each time, and breaks off.
func twoSizes(l *liar, w http.ResponseWriter, r *http.Request) {
	getBlob(func(l *liar, w http.ResponseWriter, r *http.Request) {
		b := l.truth(r)
		w.Header().Set("Content-Length", fmt.Sprint(len(b)+int(l.asked.Load())))
		_, _ = w.Write(b[:len(b)/2])
		panic(http.ErrAbortHandler)
	})(l, w, r)
}

func gzipped(l *liar, w http.ResponseWriter, r *http.Request) {
	getBlob(func(l *liar, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(l.truth(r))
		_ = z.Close()
	})(l, w, r)
}

func bomb(l *liar, w http.ResponseWriter, r *http.Request) {
	getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for b := make([]byte, mib); ; {
			if _, err := z.Write(b); err != nil {
				return
			}
		}
	})(l, w, r)
}

// Whatever a member says about a blob, clients get the right bytes in time, and no
// client gets a complete answer with wrong bytes.
func TestMeshLiarAboutBlobs(t *testing.T) {
	t.Parallel()
	for name, lie := range liesOfPeers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{}, lie.look, lie.answer)
			b, _ := l.blob(cmp.Or(lie.size, large))
			if lie.known {
				m := l.c.up.PutManifest(repo, "", upstreamtest.TypeManifest, fmt.Appendf(nil, `{"layers":[{"digest":%q,"size":%d}]}`, b.Digest, b.size))
				l.c.get(0, "/v2/"+repo+"/manifests/"+m.String()).want(t, http.StatusOK)
			}
			start := time.Now()
			tries := l.patiently(t, b, lie.cut)
			took := time.Since(start)
			if l.asked.Load() == 0 {
				t.Error("it was not asked: nothing is shown")
			}
			if took > 40*time.Second { // which a client's request has
				t.Errorf("%d tries in %v", tries, took)
			}
			before := l.asked.Load()
			second := l.patiently(t, b, false)
			if second != 1 || l.asked.Load() != before {
				t.Errorf("the second pull took %d tries, and the liar was asked again", second)
			}
			t.Logf("%d tries, %v", tries, took.Round(time.Millisecond))
		})
	}
}

// A member that claims to hold a blob of another owner and does not deliver it delays
// the pull only for a moment.
func TestMeshLiarClaimsToHoldABlob(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(*liar, http.ResponseWriter, *http.Request){
		"nothing": func(_ *liar, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Oci-Peer-Failure", "peer")
			w.WriteHeader(http.StatusInternalServerError)
		},
		"silence": silent,
		"wrong":   func(_ *liar, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, small)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{}, 20*time.Millisecond, func(l *liar, w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodHead:
					w.Header().Set("Oci-Peer-Presence", "held")
					w.WriteHeader(http.StatusNoContent)
				case strings.HasPrefix(r.URL.Path, "/peer/v1/blobs/"):
					l.asked.Add(1)
					then(l, w, r)
				default:
					honest(w, r)
				}
			})
			for range 20 { // its first answers may be late
				b := l.c.blob(small)
				if l.owns(b.String()) {
					continue
				}
				l.patiently(t, b, false)
				if l.asked.Load() > 0 {
					break
				}
			}
			if l.asked.Load() == 0 {
				t.Error("it was not asked: nothing is shown")
			}
		})
	}
}
