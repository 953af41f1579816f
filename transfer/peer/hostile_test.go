package peer

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
)

// hostileStreams is how many connections a test opens.
func hostileStreams() int {
	switch {
	case os.Getenv("MESH_TEST_FIGURES") != "":
		return 1_000_000
	case testing.Short():
		return 2_000
	default:
		return 8_000
	}
}

// A book knows which requests were signed, and which of them may still be accepted.
type book struct {
	number  atomic.Uint64
	mu      sync.Mutex
	deliver func(string)
	open    map[uint64]statement
	reached int      // requests that were accepted
	wrong   []string // requests that nobody signed, or that came twice
}

const hostileDigest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

// signed returns a fresh request that would be answered.
func (l *book) signed(rng *rand.Rand) raw {
	q := good(l.number.Add(1))
	q.query = "registry=registry.example.com&repository=team%2Fapp"
	switch rng.IntN(8) {
	case 0:
		q.path, q.query = root+"ping", ""
	case 1:
		q.path, q.query = root+"stats", ""
	case 2:
		q.path, q.query = root+"tags", q.query+"&tag=v1&accept=application%2Fjson"
	case 3:
		q.method, q.path, q.query = "POST", root+"offers", "registry=registry.example.com"
		q.body = fmt.Appendf(nil, `{"registry":"registry.example.com","digest":%q}`, hostileDigest)
	case 4:
		q.method, q.path, q.query = "HEAD", root+"blobs/"+hostileDigest, q.query+"&held=1"
	case 5:
		q.path = root + "manifests/" + hostileDigest
	default:
		q.path, q.span = root+"blobs/"+hostileDigest, []string{"", "bytes=5-"}[rng.IntN(2)]
	}
	q = q.signed()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[q.number] = q.statement
	return q
}

// reach notes a request that was accepted. It must have been signed, and must come for
// the first time.
func (l *book) reach(c *call) {
	path, query, _ := strings.Cut(c.RequestURI, "?")
	a, err := parseAuth(c.Header.Get(headerAuth))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reached++
	s, ok := l.open[a.number]
	if err != nil || !ok || s.method != c.Method || s.path != path || s.query != query || s.span != c.Header.Get("Range") || !bytes.Equal(s.body, c.body) || c.sender != "a" {
		l.wrong = append(l.wrong, fmt.Sprintf("%s %s %v %q", c.Method, c.RequestURI, c.Header, c.body))
	}
	delete(l.open, a.number)
}

// watch replaces all answers of the server, and notes each request.
func (l *book) watch(s *Server) {
	for key, to := range s.table {
		to.answer = func(w *reply, c *call) error {
			l.reach(c)
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		s.table[key] = to
	}
}

// taken delivers a request and returns it, so that it can be sent again.
func (l *book) taken(q raw) string {
	l.deliver(q.text())
	return q.text()
}

// forget drops requests that were signed long ago.
func (l *book) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.open, func(n uint64, _ statement) bool { return n+2*width < l.number.Load() })
}

// spoilBytes changes some of the bytes.
func spoilBytes(rng *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	at := func() int { return rng.IntN(len(b)) }
	switch rng.IntN(5) {
	case 0:
		return b[:at()]
	case 1:
		i, j := at(), at()
		return append(b[:i:i], b[j:]...)
	case 2:
		b[at()] = []byte("\x00\r\n\t :/%?&=\x7f\xff")[rng.IntN(13)]
		return b
	default:
		for range 1 + rng.IntN(3) {
			b[at()] ^= 1 << rng.IntN(8)
		}
		return b
	}
}

// hostile lists ways to change a signed request. The result must do nothing, or do what
// was signed exactly once.
var hostile = []func(l *book, rng *rand.Rand, q raw) string{
	func(l *book, _ *rand.Rand, q raw) string { return l.taken(q) },
	func(_ *book, rng *rand.Rand, q raw) string { return string(spoilBytes(rng, []byte(q.text()))) },
	func(l *book, rng *rand.Rand, q raw) string { return string(spoilBytes(rng, []byte(l.taken(q)))) },
	func(_ *book, rng *rand.Rand, q raw) string { // only the signature's line
		q.auth = string(spoilBytes(rng, []byte(q.auth)))
		return q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string {
		q.path = string(spoilBytes(rng, []byte(q.path)))
		return q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string {
		q.query = string(spoilBytes(rng, []byte(q.query+"&")))
		return q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string {
		q.body = spoilBytes(rng, append(q.body, ' '))
		return q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string {
		q.span = []string{"bytes=1-", "bytes=0-", "bytes=5-6", "bytes=5-,7-", "items=5-", "bytes=-5", " bytes=5-"}[rng.IntN(7)]
		return q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string {
		q.method = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "get", "PRI", "TRACE"}[rng.IntN(10)]
		return q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string { // other spellings of the same path
		q.path = []string{"http://peer" + q.path, "//peer" + q.path, q.path + "/", strings.Replace(q.path, "/", "//", 1), strings.Replace(q.path, "peer", "%70eer", 1), q.path + "#x", "/v2/.." + q.path, "*"}[rng.IntN(8)]
		return q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string { // doubled and odd headers
		q.header = []string{[]string{
			headerAuth + ": " + q.auth, strings.ToUpper(headerAuth) + ": " + q.auth, "Range: bytes=7-", "Content-Length: 5", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip",
			"Host: elsewhere", "Expect: 100-continue", "Connection: upgrade\r\nUpgrade: h2c", "Content-Length: 0\r\nContent-Length: 1", " folded: x", "X\x00: y", "Content-Encoding: gzip",
		}[rng.IntN(13)]}
		return q.text()
	},
	func(_ *book, _ *rand.Rand, q raw) string { // the body in chunks
		q.header = []string{"Transfer-Encoding: chunked"}
		body := q.body
		q.body = nil
		return q.text() + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	},
	func(_ *book, rng *rand.Rand, q raw) string { // a wrong key, receiver, sender or number
		other := []func(){
			func() { q.key = []byte("the secret of other people") }, func() { q.receiver = []byte("boot of c") }, func() { q.nonce = []byte("the boot before") },
			func() { q.sender = "z" }, func() { q.sender = "b" }, func() { q.number = 0 }, func() { q.receiver = nil },
		}
		other[rng.IntN(len(other))]()
		return q.signed().text()
	},
	func(l *book, rng *rand.Rand, q raw) string { // older than the window
		if q.number <= 2*width {
			return l.taken(q)
		}
		q.number = 1 + rng.Uint64N(q.number-2*width)
		return q.signed().text()
	},
	func(_ *book, _ *rand.Rand, q raw) string { q.proto = "HTTP/1.0"; return q.text() },
	func(_ *book, rng *rand.Rand, q raw) string {
		q.proto = []string{"HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/9.9", "http/1.1", "", "GARBAGE"}[rng.IntN(7)]
		return q.text()
	},
	func(l *book, rng *rand.Rand, q raw) string { // several in a row, some of them spoiled
		all := ""
		for range 2 + rng.IntN(4) {
			one := []byte(l.signed(rng).text())
			if rng.IntN(2) == 0 {
				one = spoilBytes(rng, one)
			}
			all += string(one)
		}
		return all + q.text() + q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string { // headers of any length
		q.header = []string{strings.Repeat("X: "+strings.Repeat("y", 100)+"\r\n", rng.IntN(600)) + "Z: z"}
		return q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string {
		return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(noise(rng, 100)) + q.text()
	},
	func(_ *book, rng *rand.Rand, q raw) string { return string(noise(rng, 600)) },
	func(_ *book, rng *rand.Rand, q raw) string { // a TLS greeting, or what begins like one
		return "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(noise(rng, 500))
	},
}

func noise(rng *rand.Rand, most int) []byte {
	b := make([]byte, 1+rng.IntN(most))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// A request does something or gets an answer only if a member signed it, if it arrives
// exactly as it was signed, and if it arrives for the first time.
func TestHostileRequests(t *testing.T) {
	for name, secured := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			n := hostileStreams()
			if secured {
				n /= 20
			}
			h := newHall()
			r := newRig(t, setup{tls: secured, listener: func(l net.Listener) net.Listener { _ = l.Close(); return h }})
			l := &book{open: map[uint64]statement{}}
			l.watch(r.server)
			var secure *tls.Config
			if m, _ := r.members.get("b"); secured {
				secure = pinned(m.Fingerprint)
			}
			l.deliver = func(said string) { h.say(said, secure) }
			runtime.GC()
			var before, m runtime.MemStats
			runtime.ReadMemStats(&before)
			gs, peak := runtime.NumGoroutine(), uint64(0)
			var kinds [3]atomic.Int64 // no answer, a bare 404, net/http's own
			var other sync.Map
			work := make(chan int)
			var wg sync.WaitGroup
			for w := range 128 { // many, as net/http waits half a second before it closes some connections
				rng := rand.New(rand.NewPCG(uint64(w), 7))
				wg.Go(func() {
					for i := range work {
						said, over := hostile[i%len(hostile)](l, rng, l.signed(rng)), secure
						if secured && i%len(hostile) >= len(hostile)-3 {
							over = nil // at a port that speaks TLS
						}
						switch got := h.say(said, over); {
						case got == "":
							kinds[0].Add(1)
						case strings.Contains(got, headerMark+": "+version):
						case strings.HasPrefix(got, "HTTP/1.1 404 Not Found\r\n") || strings.HasPrefix(got, "HTTP/1.0 404 Not Found\r\n"):
							kinds[1].Add(1)
						default:
							kinds[2].Add(1)
							line, _, _ := strings.Cut(got, "\r\n")
							other.LoadOrStore(line, got)
						}
					}
				})
			}
			start := time.Now()
			for i := range n {
				work <- i
				if i%1000 == 0 {
					runtime.ReadMemStats(&m)
					peak = max(peak, m.HeapAlloc)
					l.forget()
				}
			}
			close(work)
			wg.Wait()
			t.Logf("%d connections in %v: %d without an answer, %d bare 404, %d of net/http's own; %d requests accepted as signed; heap at most %d MiB, before %d",
				n, time.Since(start).Round(time.Millisecond), kinds[0].Load(), kinds[1].Load(), kinds[2].Load(), l.reached, peak>>20, before.HeapAlloc>>20)
			other.Range(func(line, got any) bool {
				t.Logf("net/http says %q", line)
				if s := strings.ToLower(got.(string)); strings.Contains(s, "oci") || strings.Contains(s, "node-") || strings.Contains(s, "digest") || strings.Contains(s, "go-http") {
					t.Errorf("the answer tells what program this is: %q", got)
				}
				return true
			})
			for _, w := range l.wrong {
				t.Errorf("accepted: %s", w)
			}
			r.quiet(t, gs, before.HeapAlloc)
		})
	}
}

// quiet fails the test if goroutines or memory are not released, or if the registry was
// asked.
func (r *rig) quiet(t *testing.T, goroutines int, heap uint64) {
	t.Helper()
	if n := r.registry.Count("", ""); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(testkit.Patience)
	defer timeout.Stop()
	for {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		if runtime.NumGoroutine() <= goroutines+5 && m.HeapAlloc < heap+16<<20 {
			return
		}
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Errorf("left: %d goroutines, before %d; %d MiB, before %d", runtime.NumGoroutine(), goroutines, m.HeapAlloc>>20, heap>>20)
			return
		}
	}
}
