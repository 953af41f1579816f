package node

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/node/membership"
	"oci-proxy/transfer"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/peer"
	"oci-proxy/transfer/upstreamtest"
)

// A liar is a member that knows the secret and speaks the protocol, and says
// what a test wants.
type liar struct {
	c       *testCluster
	members *membership.Membership
	client  *peer.Client
	asked   atomic.Int64 // for what it lies about
	answer  func(l *liar, w http.ResponseWriter, r *http.Request)
}

// infiltrate makes a liar the second member of a cluster of one.
func infiltrate(t *testing.T, of form, look time.Duration, answer func(*liar, http.ResponseWriter, *http.Request)) *liar {
	t.Helper()
	return infiltrateAt(t, upstreamtest.New(t), of, look, answer)
}

func infiltrateAt(t *testing.T, up *upstreamtest.Registry, of form, look time.Duration, answer func(*liar, http.ResponseWriter, *http.Request)) *liar {
	t.Helper()
	c := formCluster(t, 0, up, func(int) form { return of })
	c.seams.ReportAge = time.Nanosecond // what it says is asked for each time
	if look > 0 {
		c.seams.transfer = func(cfg *transfer.Config) { cfg.Look, cfg.Drip = look, 60*look }
	}
	c.join()
	l := &liar{c: c, answer: answer}
	listener, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	cert, fingerprint, err := peer.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{meshSecret}
	if l.members, err = membership.Open(membership.Config{
		Name: "liar", BindAddr: anyPort, PeerAddr: listener.Addr().String(), Fingerprint: fingerprint, Seeds: []string{c.nodes[0].gossip},
		Secrets: secrets, Weight: c.nodes[0].node.cluster.Members().View().Self.Weight, Egress: true, Version: Version,
		Registries: []membership.Registry{{Host: up.Host()}}, Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	self := l.members.View().Self
	l.client = peer.NewClient(peer.ClientConfig{
		Self: self.ID, SelfNonce: self.Nonce, Keys: membership.PeerKeys(secrets), Log: slog.New(slog.DiscardHandler),
		Member: func(id string) (peer.Member, bool) {
			m, ok := l.members.View().Member(id)
			if !ok {
				return peer.Member{}, false
			}
			return peer.Member{ID: m.ID, Name: m.Name, Addr: m.Peer, Nonce: m.Nonce, Fingerprint: m.Fingerprint}, true
		},
	})
	srv := &http.Server{
		Handler: http.HandlerFunc(l.serve), TLSConfig: peer.ServerTLS(cert), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}
	var done sync.WaitGroup
	done.Go(func() { _ = srv.ServeTLS(listener, "", "") })
	t.Cleanup(func() {
		l.client.Close()
		_ = srv.Close()
		done.Wait()
		if err := l.members.Kill(); err != nil {
			t.Error(err)
		}
	})
	c.awaitMembersOf(0, 2)
	return l
}

// serve answers a request.
func (l *liar) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Oci-Peer-Auth") == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Oci-Peer", "1")
	if r.URL.Path == "/peer/v1/ping" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	l.answer(l, w, r)
}

// honest answers what a test does not lie about: it has nothing, and knows
// nobody who has.
func honest(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/peer/v1/progress/"):
		fmt.Fprint(w, `{"held":false,"offset":0,"streams":1}`)
	case r.Method == http.MethodHead && r.URL.Query().Get("held") != "":
		w.Header().Set("Oci-Peer-Presence", "absent")
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/peer/v1/stats":
		fmt.Fprint(w, `{"registries":{},"max_size":0}`)
	default:
		w.Header().Set("Oci-Peer-Failure", "peer")
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// on lies to requests of that method whose path begins so, and to no others.
func on(method, path string, lie func(l *liar, w http.ResponseWriter, r *http.Request)) func(*liar, http.ResponseWriter, *http.Request) {
	return func(l *liar, w http.ResponseWriter, r *http.Request) {
		if (method == "" || r.Method == method) && strings.HasPrefix(r.URL.Path, "/peer/v1/"+path) {
			l.asked.Add(1)
			lie(l, w, r)
			return
		}
		honest(w, r)
	}
}

// owns reports whether the liar owns a key.
func (l *liar) owns(key string) bool {
	return l.c.nodes[0].node.cluster.Members().View().Ring.Owner(key).ID == l.members.View().Self.ID
}

// blob is a new one that is the liar's to get, and its bytes.
func (l *liar) blob(size int64) (testBlob, []byte) {
	l.c.t.Helper()
	for range 200 {
		if b := l.c.blob(size); l.owns(b.String()) {
			return b, l.c.bytes(b)
		}
	}
	l.c.t.Fatal("of 200 blobs none is the liar's")
	return testBlob{}, nil
}

// of gets the true bytes of the blob that is asked for.
func (l *liar) truth(r *http.Request) []byte {
	path := r.URL.Path
	resp, err := http.Get("http://" + l.c.up.Host() + "/v2/" + repo + "/blobs/" + path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }() // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil
	}
	return b
}

// wrongAt is the truth but for a byte; told is the length that is told beside
// the right one.
func wrongAt(at func(size int) int, more int) func(*liar, http.ResponseWriter, *http.Request) {
	return on(http.MethodGet, "blobs/", func(l *liar, w http.ResponseWriter, r *http.Request) {
		b := l.truth(r)
		if at != nil {
			b[at(len(b))] ^= 1
		}
		w.Header().Set("Oci-Peer-Source", "hit")
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)+more)) // the whole, and wrong
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)+more))
		_, _ = w.Write(append(b, make([]byte, max(more, 0))...))
	})
}

// pour writes without end.
func pour(w http.ResponseWriter, r *http.Request) {
	b := bytes.Repeat([]byte("x"), 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// A lie is a way to answer, and what becomes of pulls.
type lie struct {
	answer func(*liar, http.ResponseWriter, *http.Request)
	size   int64         // of the blob; 0: 2 MiB
	look   time.Duration // shortened where the lie is to be slow
	cut    bool          // a response that has begun may be cut; the client asks again
	known  bool          // the node has seen a manifest that tells the size, as before most pulls
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

func silent(_ *liar, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

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

// header lies in headers, and tells the truth in the body.
func header(name, value string) func(*liar, http.ResponseWriter, *http.Request) {
	return getBlob(func(l *liar, w http.ResponseWriter, r *http.Request) {
		w.Header().Set(name, value)
		_, _ = w.Write(l.truth(r))
	})
}

// redirect answers as a registry's redirect travels.
func redirect(to string) func(*liar, http.ResponseWriter, *http.Request) {
	return getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Oci-Peer-Redirect", to)
		w.WriteHeader(http.StatusNoContent)
	})
}

// hijack answers with these bytes, and goes on by more.
func hijack(text string, more func(io.Writer) error) func(*liar, http.ResponseWriter, *http.Request) {
	return getBlob(func(_ *liar, w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }() // it is a liar
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
	"silence":                {answer: func(l *liar, w http.ResponseWriter, r *http.Request) { l.asked.Add(1); silent(l, w, r) }, look: 20 * time.Millisecond},
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

// twoSizes tells another size each time, and breaks off.
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

// patiently pulls as clients do: a response that is cut is asked for again. It
// reads no further than a client would that knows the size from the manifest.
func (l *liar) patiently(t *testing.T, b testBlob, cut bool) (tries int) {
	t.Helper()
	for tries = 1; tries <= 4; tries++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		code, whole, n, err := l.once(ctx, b)
		cancel()
		if whole {
			return tries
		}
		if n == b.size && err == nil {
			t.Errorf("try %d: %d wrong bytes are a whole answer", tries, n)
		}
		if !cut || code != http.StatusOK {
			t.Errorf("try %d: status %d, %d bytes, %v", tries, code, n, err)
		}
	}
	return tries
}

func (l *liar) once(ctx context.Context, b testBlob) (code int, whole bool, n int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.c.nodes[0].client+blobPath(b.Digest), nil)
	if err != nil {
		return 0, false, 0, err
	}
	resp, err := l.c.client.Do(req)
	if err != nil {
		return 0, false, 0, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.Header.Get("Location") != "" {
		return resp.StatusCode, false, 0, errors.New("it was sent elsewhere")
	}
	v := b.Verifier()
	n, err = io.Copy(v, io.LimitReader(resp.Body, b.size+1))
	return resp.StatusCode, err == nil && resp.StatusCode == http.StatusOK && n == b.size && v.Verified(), n, err
}

// Whatever a member says of a blob, clients get the right one, in time, and
// no client gets a whole answer that is wrong.
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
			if took > 2*patience {
				t.Errorf("%d tries in %v", tries, took)
			}
			before := l.asked.Load()
			second := l.patiently(t, b, false)
			if second != 1 || l.asked.Load() != before {
				t.Errorf("the second pull: %d tries, and the liar is asked again", second)
			}
			t.Logf("%d tries, %v", tries, took.Round(time.Millisecond))
		})
	}
}

// A member that says it holds a blob that is another's to get, and does not
// deliver, costs a moment.
func TestMeshLiarHoldsWhatItDoesNot(t *testing.T) {
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
			for range 20 { // it may be late with its first answers
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

// image puts one into the registry whose tag or manifest is the liar's to get.
func (l *liar) image(t *testing.T, tagged bool) (tag string, img upstreamtest.Image) {
	t.Helper()
	for i := range 200 {
		tag = fmt.Sprintf("v%d", i)
		img = l.c.up.PutImage(repo, tag, random(uint64(i), 100))
		if !tagged && l.owns(img.Manifest.String()) {
			return tag, img
		}
		if tagged && l.asksForTag(tag) {
			return tag, img
		}
	}
	t.Fatal("none is the liar's")
	return "", img
}

// asksForTag reports whether the node would ask the liar what the tag means.
func (l *liar) asksForTag(tag string) bool {
	before := l.asked.Load()
	a := l.c.get(0, "/v2/"+repo+"/manifests/"+tag)
	_ = a
	return l.asked.Load() != before
}

func TestMeshLiarAboutManifests(t *testing.T) {
	t.Parallel()
	manifest := func(do func(l *liar, w http.ResponseWriter, r *http.Request, b []byte)) func(*liar, http.ResponseWriter, *http.Request) {
		return on(http.MethodGet, "manifests/", func(l *liar, w http.ResponseWriter, r *http.Request) {
			path := r.URL.Path
			resp, err := http.Get("http://" + l.c.up.Host() + "/v2/" + repo + "/manifests/" + path[strings.LastIndexByte(path, '/')+1:])
			if err != nil {
				return
			}
			defer func() { _ = resp.Body.Close() }() // only read
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				return
			}
			do(l, w, r, b)
		})
	}
	typed := func(mediaType string) func(*liar, http.ResponseWriter, *http.Request) {
		return manifest(func(_ *liar, w http.ResponseWriter, _ *http.Request, b []byte) {
			w.Header().Set("Content-Type", mediaType)
			_, _ = w.Write(b)
		})
	}
	for name, answer := range map[string]func(*liar, http.ResponseWriter, *http.Request){
		"5 MiB":              manifest(func(_ *liar, w http.ResponseWriter, _ *http.Request, _ []byte) { _, _ = w.Write(make([]byte, 5*mib)) }),
		"no end":             manifest(func(_ *liar, w http.ResponseWriter, r *http.Request, _ []byte) { pour(w, r) }),
		"other bytes":        manifest(func(_ *liar, w http.ResponseWriter, _ *http.Request, b []byte) { _, _ = w.Write(append(b, ' ')) }),
		"nothing":            manifest(func(*liar, http.ResponseWriter, *http.Request, []byte) {}),
		"html":               typed("text/html"),
		"another type":       typed("application/vnd.oci.image.index.v1+json"),
		"control characters": typed("application/json;\x01x"),
		"a long type":        typed("application/" + strings.Repeat("x", 8<<10)),
		"silence":            on(http.MethodGet, "manifests/", silent),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{}, 20*time.Millisecond, answer)
			_, img := l.image(t, false)
			for range 2 {
				a := l.c.get(0, "/v2/"+repo+"/manifests/"+img.Manifest.String())
				a.want(t, http.StatusOK, "Content-Type", upstreamtest.TypeManifest)
				if !bytes.Equal(a.body, img.ManifestBytes) {
					t.Errorf("%d bytes", len(a.body))
				}
			}
			if l.asked.Load() == 0 {
				t.Error("it was not asked: nothing is shown")
			}
		})
	}
}

// A member's word is taken for what a tag means; but for nothing that could
// not be true.
func TestMeshLiarAboutTags(t *testing.T) {
	t.Parallel()
	d := digest.FromString("nowhere")
	for name, said := range map[string]string{
		"no digest":           `{"digest":"latest"}`,
		"a path":              `{"digest":"../../etc/passwd"}`,
		"a weak digest":       `{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"}`,
		"a short digest":      `{"digest":"sha256:abc"}`,
		"upper case":          fmt.Sprintf(`{"digest":"sha256:%s"}`, strings.ToUpper(d.Encoded())),
		"html":                fmt.Sprintf(`{"digest":%q,"media_type":"text/html","size":5}`, d),
		"a header in a type":  fmt.Sprintf(`{"digest":%q,"media_type":"application/json\r\nSet-Cookie: x","size":5}`, d),
		"a negative size":     fmt.Sprintf(`{"digest":%q,"media_type":"application/json","size":-7}`, d),
		"a size of an EiB":    fmt.Sprintf(`{"digest":%q,"media_type":"application/json","size":1152921504606846976}`, d),
		"nesting":             strings.Repeat(`{"digest":`, 90_000),
		"a number of 900 KiB": `{"size":1` + strings.Repeat("0", 900<<10) + `}`,
		"two MiB":             strings.Repeat(" ", 2*mib) + "{}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{}, 0, on(http.MethodGet, "tags", func(_ *liar, w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, said) }))
			tag, img := l.image(t, true)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := l.c.do(method, 0, "/v2/"+repo+"/manifests/"+tag)
				a.want(t, http.StatusOK, "Content-Type", upstreamtest.TypeManifest, "Docker-Content-Digest", img.Manifest.String(), "Set-Cookie", "")
			}
		})
	}
}

// Figures of a member may be anything.
func TestMeshLiarAboutFigures(t *testing.T) {
	t.Parallel()
	many := func(n int, figures string) string {
		var b strings.Builder
		b.WriteString(`{"registries":{`)
		for i := range n {
			fmt.Fprintf(&b, `%q:%s,`, fmt.Sprint(i), figures)
		}
		b.WriteString(`"x":{}}}`)
		return b.String()
	}
	for name, test := range map[string]struct {
		said    string
		counted bool // the member has answered
	}{
		"nesting":             {strings.Repeat(`{"registries":`, 70_000), false},
		"arrays":              {strings.Repeat("[", 1<<20), false},
		"a number of 900 KiB": {`{"max_size":1` + strings.Repeat("0", 900<<10) + `}`, false},
		"a large exponent":    {`{"max_size":1e999999999}`, false},
		"negative":            {`{"registries":{"a.b":{"Hits":-5}}}`, false},
		"the largest":         {`{"registries":{"a.b":{"Hits":9223372036854775807}}}`, false},
		"no bound":            {`{"max_size":9223372036854775807}`, false},
		"120,000 registries":  {many(80_000, "{}"), false},
		"odd names":           {`{"registries":{"<script>\n":{"Hits":1}}}`, false},
		"null":                {`null`, true},
		"nulls":               {`{"registries":{"a.b":null}}`, true},
		"other types":         {`{"registries":[1,2]}`, false},
		"4 GiB":               {"", false},
		"right":               {many(1000, `{"Hits":1}`), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{}, 0, func(l *liar, w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path != "/peer/v1/stats":
					honest(w, r)
				case test.said == "":
					pour(w, r)
				default:
					_, _ = io.WriteString(w, test.said)
				}
			})
			var sums map[string]map[string]int64
			h := l.c.json(0, "/_/stats", &sums)
			want := "1/2"
			if test.counted {
				want = "2/2"
			}
			if got := h.Get("X-Cluster-Nodes"); got != want {
				t.Errorf("%s answered, want %s", got, want)
			}
			for registry, figures := range sums {
				for figure, n := range figures {
					if n < 0 {
						t.Errorf("%s: %s is %d", registry, figure, n)
					}
				}
			}
			l.c.json(0, "/_/cluster", new(cluster.Description))
			l.c.get(0, "/v2/").want(t, http.StatusOK)
		})
	}
}

// What a member offers has to be what it says, and finds no more room than
// there is.
func TestMeshLiarOffers(t *testing.T) {
	t.Parallel()
	const bound = 8 * mib
	for name, answer := range map[string]func(*liar, http.ResponseWriter, *http.Request){
		"what it has not":     on(http.MethodGet, "blobs/", func(_ *liar, w http.ResponseWriter, r *http.Request) { honest(w, r) }),
		"what has no end":     on(http.MethodGet, "blobs/", func(_ *liar, w http.ResponseWriter, r *http.Request) { pour(w, r) }),
		"a redirect":          redirect("http://169.254.169.254/"),
		"wrong bytes":         on(http.MethodGet, "blobs/", func(_ *liar, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, small)) }),
		"more than there is":  hijack("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nContent-Length: 1000000000000\r\n\r\n", again(strings.Repeat("x", 64<<10))),
		"more than it sends":  hijack(fmt.Sprintf("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nContent-Length: %d\r\n\r\n", 4*mib), nil),
		"what is never there": on(http.MethodGet, "blobs/", silent),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{settings: settings{defaults: "cache_max_size: 8MiB"}}, 0, answer)
			one := l.c.nodes[0]
			p := l.client.Peer(one.node.cluster.Members().View().Self.ID)
			var wg sync.WaitGroup
			most := int64(0)
			for i := range 20 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					defer cancel()
					ref := oci.Ref{Registry: l.c.up.Host(), Digest: digest.FromString(fmt.Sprint(name, i))}
					if err := p.Offer(ctx, ref, ""); err == nil {
						t.Error("it was taken")
					}
				})
			}
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			for tick := time.NewTicker(20 * time.Millisecond); ; {
				most = max(most, diskOf(t, one.dir))
				select {
				case <-tick.C:
					continue
				case <-done:
				}
				tick.Stop()
				break
			}
			if most > bound+mib {
				t.Errorf("%d bytes were on the disk", most)
			}
			if log := one.log.String(); strings.Contains(log, "by a bug") {
				t.Errorf("a bug: %s", log[strings.Index(log, "by a bug")-200:])
			}
			b := l.c.blob(small)
			for l.owns(b.String()) {
				b = l.c.blob(small)
			}
			l.patiently(t, b, false)
		})
	}
}

// diskOf is what the blobs in a directory take.
func diskOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // files come and go
		}
		if info, err := d.Info(); err == nil && info.Size() > 64<<10 {
			n += info.Size()
		}
		return nil
	})
	return n
}

// A liar's answers take no more memory than those that are right.
func TestMeshLiarTakesNoMemory(t *testing.T) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, peak := m.HeapAlloc, uint64(0)
	l := infiltrate(t, form{}, 0, func(_ *liar, w http.ResponseWriter, r *http.Request) { pour(w, r) })
	for range 4 {
		b, _ := l.blob(small)
		l.patiently(t, b, true)
		l.c.json(0, "/_/stats", new(map[string]map[string]int64))
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}
	if peak > before+128*mib {
		t.Errorf("it takes %d MiB", (peak-before)/mib)
	}
}

// What a member reads of private content: for a repository only what the
// registry vouches for, as a client; but all that is held, if it says that the
// registry vouched for it. docs/security.md says so.
func TestMeshTraitorReadsWhatIsHeld(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: upstreamUser, Password: upstreamPassword}))
	l := infiltrateAt(t, up, form{settings: settings{
		registry: fmt.Sprintf("auth: {username: %s, password: %s}", upstreamUser, upstreamPassword),
	}}, 0, func(_ *liar, w http.ResponseWriter, r *http.Request) { honest(w, r) })
	img := up.PutImage(repo, "v1", random(1, 10_000))
	l.c.get(0, "/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	l.c.tryPull(0, img.Layers[0]).wantWhole(t)
	id := l.c.nodes[0].node.cluster.Members().View().Self.ID
	for began := time.Now(); !l.client.Healthy(id) && time.Since(began) < patience; { // until it knows the node
		runtime.Gosched()
	}
	p := l.client.Peer(id)
	open := func(repository string, terms mesh.Terms) error {
		s, err := p.Open(t.Context(), oci.Ref{Registry: up.Host(), Repository: repository, Digest: img.Layers[0]}, 0, terms)
		if err == nil {
			err = s.Body.Close()
		}
		return err
	}
	if err := open("other/app", mesh.Terms{}); oci.KindOf(err) != oci.NotFound {
		t.Errorf("of another repository: %v", err)
	}
	if _, _, err := p.Stat(t.Context(), oci.Ref{Registry: up.Host(), Repository: "other/app", Digest: img.Layers[0]}); err == nil {
		t.Error("the size of it is told")
	}
	if _, err := p.Manifest(t.Context(), oci.Ref{Registry: up.Host(), Repository: "other/app", Digest: img.Manifest}, mesh.Terms{}); err == nil {
		t.Error("a manifest of another repository")
	}
	if err := open(repo, mesh.Terms{}); err != nil {
		t.Errorf("of its own: %v", err)
	}
	if err := open("other/app", mesh.Terms{Held: true}); oci.KindOf(err) != oci.NotFound {
		t.Errorf("what is held, without a word of the registry: %v", err)
	}
	if err := open("other/app", mesh.Terms{Held: true, Vouched: true}); err != nil {
		t.Errorf("what is held: %v", err)
	}
}
