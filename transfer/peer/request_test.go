package peer

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// date matches the only part in which two equal answers differ.
var date = regexp.MustCompile(`Date: [^\r]*\r\n`)

func TestAnythingElseGetsABare404(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	const (
		d     = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
		where = "registry=registry.example.com&repository=team%2Fapp"
	)
	number := uint64(0)
	fresh := func(change func(*raw)) raw {
		number++
		q := good(number)
		q.path, q.query = root+"blobs/"+d, where
		change(&q)
		return q
	}
	after := func(change func(*raw)) raw { // changed after it was signed
		q := fresh(func(*raw) {}).signed()
		change(&q)
		return q
	}
	before := func(change func(*raw)) raw { return fresh(change).signed() }
	post := func(q *raw) { q.method, q.path, q.body = "POST", root+"offers", []byte(`{"registry":"x"}`) }
	cases := map[string]raw{
		"unsigned":         fresh(func(*raw) {}),
		"garbage":          after(func(q *raw) { q.auth = "garbage" }),
		"signed twice":     after(func(q *raw) { q.header = []string{headerAuth + ": " + q.auth} }),
		"wrong key":        before(func(q *raw) { q.key = []byte("another secret") }),
		"receiver's boot":  before(func(q *raw) { q.receiver = []byte("before") }),
		"sender's boot":    before(func(q *raw) { q.nonce = []byte("before") }),
		"sender's none":    before(func(q *raw) { q.sender, q.nonce = "bootless", nil }),
		"unknown member":   before(func(q *raw) { q.sender = "z" }),
		"another's name":   after(func(q *raw) { q.auth = strings.Replace(q.auth, " a ", " b ", 1) }),
		"number":           after(func(q *raw) { q.auth = strings.Replace(q.auth, " a ", " a 9", 1) }),
		"number zero":      before(func(q *raw) { q.number = 0 }),
		"method":           after(func(q *raw) { q.method = "HEAD" }),
		"path":             after(func(q *raw) { q.path = root + "manifests/" + d }),
		"query":            after(func(q *raw) { q.query += "&held=1" }),
		"no query":         after(func(q *raw) { q.query = "" }),
		"range":            after(func(q *raw) { q.span = "bytes=5-" }),
		"another range":    after(func(q *raw) { q.header = []string{"Range: bytes=5-"} }),
		"body":             func() raw { q := before(post); q.body = []byte(`{"registry":"y"}`); return q }(),
		"body of a GET":    before(func(q *raw) { q.body = []byte("x") }),
		"large body":       before(func(q *raw) { post(q); q.body = make([]byte, maxOffer+1) }),
		"chunked body":     before(func(q *raw) { post(q); q.body, q.header = nil, []string{"Transfer-Encoding: chunked"} }),
		"expectation":      after(func(q *raw) { q.header = []string{"Expect: 100-continue"} }),
		"HTTP/1.0":         after(func(q *raw) { q.proto = "HTTP/1.0" }),
		"absolute form":    after(func(q *raw) { q.path = "http://peer" + q.path }),
		"clients' path":    before(func(q *raw) { q.path, q.query = "/v2/", "" }),
		"the page":         before(func(q *raw) { q.path, q.query = "/", "" }),
		"no path":          before(func(q *raw) { q.path = root + "nothing" }),
		"no digest":        before(func(q *raw) { q.path = root + "blobs/" }),
		"weak digest":      before(func(q *raw) { q.path = root + "blobs/md5:d41d8cd98f00b204e9800998ecf8427e" }),
		"escaped digest":   before(func(q *raw) { q.path = root + "blobs/sha256%3A" + d[7:] }),
		"path in a digest": before(func(q *raw) { q.path = root + "blobs/../ping" }),
		"wrong method":     before(func(q *raw) { q.method = "DELETE" }),
		"no registry":      before(func(q *raw) { q.query = "repository=a" }),
		"no repository":    before(func(q *raw) { q.query = "registry=a.b" }),
		"two registries":   before(func(q *raw) { q.query += "&registry=a.b" }),
		"odd registry":     before(func(q *raw) { q.query = "registry=user@a.b&repository=a" }),
		"odd repository":   before(func(q *raw) { q.query = "registry=a.b&repository=..%2Fa" }),
		"odd range":        before(func(q *raw) { q.span = "bytes=5-6" }),
		"odd tag":          before(func(q *raw) { q.path, q.query = root+"tags", where+"&tag=-" }),
		"no tag":           before(func(q *raw) { q.path = root + "tags" }),
		"odd accept":       before(func(q *raw) { q.path, q.query = root+"tags", where+"&tag=a&accept=x" }),
		"long query":       before(func(q *raw) { q.query += "&x=" + strings.Repeat("y", maxQuery) }),
		"OPTIONS *":        before(func(q *raw) { q.method, q.path, q.query = "OPTIONS", "*", "" }),
	}
	r.members.put(Member{ID: "bootless"})
	for key := range r.server.table {
		method, path, _ := strings.Cut(key, " ")
		cases["unsigned "+key] = fresh(func(q *raw) { q.method, q.path = method, root+path })
	}
	for name, q := range cases {
		got, _ := roundTrip(t, r.addr, q.text(), q.method)
		got = strings.Replace(date.ReplaceAllString(got, ""), "HTTP/1.0", "HTTP/1.1", 1)
		if got != "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if n := r.server.Counts().Refused; n != int64(len(cases)) {
		t.Errorf("%d refused, want %d", n, len(cases))
	}
	number = 1 << 20
	if got, resp := roundTrip(t, r.addr, before(func(q *raw) { q.path, q.query = root+"ping", "" }).text(), "GET"); resp.StatusCode != 204 || resp.Header.Get(headerMark) != version {
		t.Errorf("a right request: %q", got)
	}
}

func TestRequestsCountOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	status := func(q raw) int {
		_, resp := roundTrip(t, r.addr, q.text(), q.method)
		return resp.StatusCode
	}
	for _, c := range []struct {
		number uint64
		want   int
	}{{5, 204}, {5, 404}, {3, 204}, {3, 404}, {5 + width, 204}, {5, 404}, {6, 204}, {6, 404}} {
		if got := status(good(c.number).signed()); got != c.want {
			t.Errorf("number %d: %d, want %d", c.number, got, c.want)
		}
	}
	// A request with a wrong signature does not use up its number.
	q := good(1 << 40)
	q.key = []byte("another")
	if got := status(q.signed()); got != 404 {
		t.Errorf("wrong key: %d", got)
	}
	if got := status(good(7).signed()); got != 204 {
		t.Errorf("after one with a wrong key: %d", got)
	}
	// A restarted sender counts from the beginning again.
	m, _ := r.members.get("a")
	m.Nonce = []byte("next boot of a")
	r.members.put(m)
	q = good(5)
	q.nonce = m.Nonce
	if got := status(q.signed()); got != 204 {
		t.Errorf("next boot: %d", got)
	}
	if got := status(good(8).signed()); got != 404 {
		t.Errorf("last boot: %d", got)
	}
}

func TestKeysAreRotated(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	next := []byte("the next secret of this cluster")
	ask := func() error {
		_, err := r.Stats(t.Context(), "b")
		return err
	}
	for _, step := range []struct {
		client, server [][]byte
		works          bool
	}{
		{[][]byte{secret}, [][]byte{secret, next}, true},
		{[][]byte{next, secret}, [][]byte{secret, next}, true},
		{[][]byte{next, secret}, [][]byte{next}, true},
		{[][]byte{secret, next}, [][]byte{next}, false},
		{[][]byte{{}}, [][]byte{{}}, false},
		{nil, nil, false},
	} {
		r.Client.SetKeys(step.client)
		r.server.SetKeys(step.server)
		err := ask()
		if (err == nil) != step.works {
			t.Errorf("%s to %s: %v", step.client, step.server, err)
		}
		if err != nil {
			wantPeerError(t, err, "")
		}
	}
}

func TestWindowAgainstASet(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		w, seen, top := &window{}, map[uint64]bool{}, uint64(0)
		at := rng.Uint64N(3 * width)
		if rng.IntN(4) == 0 {
			at = ^uint64(0) - 3*width
		}
		for range 5000 {
			n := at + rng.Uint64N(64)
			switch rng.IntN(40) {
			case 0:
				at += rng.Uint64N(2 * width)
			case 1:
				n -= min(n, rng.Uint64N(2*width))
			}
			if at > ^uint64(0)-64 {
				at = ^uint64(0) - 64
			}
			n = max(n, 1)
			want := !seen[n] && (n > top || top-n < width)
			if got := w.take(n); got != want {
				t.Fatalf("take(%d) = %v, top %d", n, got, top)
			}
			seen[n], top = true, max(top, n)
		}
	}
}

func TestSendersAreBounded(t *testing.T) {
	t.Parallel()
	g := newMembers("")
	r := newReplays(g.get)
	for i := range maxSenders {
		if !r.take(Member{ID: "gone" + strconv.Itoa(i), Nonce: nonceA}, 1) {
			t.Fatalf("sender %d is refused", i)
		}
	}
	if !r.take(Member{ID: "a", Nonce: nonceA}, 1) || r.windows.Len() != maxSenders || r.windows.Contains("gone0") || !r.windows.Contains("gone1") {
		t.Errorf("%d windows; the window of the sender that is gone and was silent for longest should go", r.windows.Len())
	}
	for i := range maxSenders {
		m := Member{ID: "m" + strconv.Itoa(i), Nonce: nonceA}
		g.put(m)
		r.take(m, 1)
	}
	if r.take(Member{ID: "one more", Nonce: nonceA}, 1) || r.windows.Len() > maxSenders {
		t.Errorf("%d windows", r.windows.Len())
	}
}

func FuzzParseAuth(f *testing.F) {
	f.Add(auth{"a", 1, make([]byte, 32)}.String())
	f.Add("v1 a 01 00")
	f.Add("v1  1 " + strings.Repeat("A", 64))
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAuth(s)
		if err != nil {
			return
		}
		if a.String() != s || !isID(a.sender) || a.number == 0 || len(a.mac) != 32 {
			t.Errorf("%q: %+v", s, a)
		}
	})
}

func TestFieldsDontRunTogether(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for i, s := range []statement{
		{sender: "ab"},
		{sender: "a", nonce: []byte("b")},
		{nonce: []byte("ab")},
		{receiver: []byte("ab")},
		{method: "a", path: "b"},
		{method: "ab"},
		{path: "a", query: "b"},
		{path: "ab"},
		{query: "ab"},
		{span: "ab"},
		{body: []byte("ab")},
		{number: 1},
	} {
		key := fmt.Sprintf("%x", s.sign(newKey(secret)))
		if j, ok := seen[key]; ok {
			t.Errorf("%d and %d have one signature", i, j)
		}
		seen[key] = i
	}
}

// Members of other versions compute the same signatures. These were computed by
// another program.
func TestSignaturesStayTheSame(t *testing.T) {
	t.Parallel()
	const (
		mac  = "e2622570306ebcdbbf647599c8e825b52048f493133ec51a0d977d0d2a4ede1d"
		seal = "v1 8a4b2d76e58de9e5b65cd02f7a3fd02deb86ac099ac2586c55df0586e1aec3b3"
	)
	k, s := newKey(secret), good(7).statement
	if got := fmt.Sprintf("%x", s.sign(k)); got != mac {
		t.Errorf("a request is signed %s, want %s", got, mac)
	}
	if got := k.seal(s.sign(k), http.StatusNoContent, http.Header{headerMark: {version}}); got != seal {
		t.Errorf("an answer is signed %s, want %s", got, seal)
	}
}
