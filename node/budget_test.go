package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

// someone is a client by number.
func someone(i int) client {
	return client{from: network(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))}
}

// A crowd takes and gives back turns.
type crowd struct {
	*budget
	mu    sync.Mutex
	order []client // who began, in order
	ends  map[client][]func()
	errs  map[client]int
}

func newCrowd(b *budget) *crowd {
	return &crowd{budget: b, ends: map[client][]func(){}, errs: map[client]int{}}
}

// ask asks for a pull, and waits until all are settled.
func (c *crowd) ask(ctx context.Context, who client) {
	go func() {
		end, err := c.begin(ctx, who)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.errs[who]++
			return
		}
		c.order = append(c.order, who)
		c.ends[who] = append(c.ends[who], end)
	}()
	synctest.Wait()
}

// finish ends one of a client's pulls.
func (c *crowd) finish(who client) {
	c.mu.Lock()
	end := c.ends[who][0]
	c.ends[who] = c.ends[who][1:]
	c.mu.Unlock()
	end()
	synctest.Wait()
}

func (c *crowd) finishAll() {
	for who, ends := range c.ends {
		for range ends {
			c.finish(who)
		}
	}
}

// has is how many pulls of a client are under way.
func (c *crowd) has(who client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ends[who])
}

func TestWhoAsksForAThousandStarvesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(20000, time.Hour)
		b.pulls = 50
		c := newCrowd(b)
		greedy := someone(0)
		for range 1000 {
			c.ask(t.Context(), greedy)
		}
		if n := c.has(greedy); n != 40 {
			t.Fatalf("the greedy one alone has %d of 50", n)
		}
		for i := range 5 {
			if c.ask(t.Context(), someone(1+i)); c.has(someone(1+i)) != 1 {
				t.Errorf("client %d waits though there is room", 1+i)
			}
		}
		// All is taken by many: then who is new comes next, whoever waits for longer.
		for i := range 200 {
			c.ask(t.Context(), someone(100+i))
		}
		late := someone(999)
		c.ask(t.Context(), late)
		c.order = nil
		for range 200 {
			for who := range c.ends {
				if c.has(who) > 0 {
					c.finish(who)
					break
				}
			}
		}
		seen := map[client]bool{}
		for i, who := range c.order {
			if who == greedy && i < 190 {
				t.Errorf("the greedy one is served as number %d, while others wait for their first", i)
				break
			}
			seen[who] = true
		}
		if !seen[late] {
			t.Errorf("the last of 201 was not served among the first %d", len(c.order))
		}
		for _, active, queued := c.figures(); active > 0 || queued > 0; _, active, queued = c.figures() {
			c.finishAll()
		}
		if len(b.clients) != 0 || b.fresh.Len() != 0 || b.others.Len() != 0 {
			t.Errorf("%d clients are remembered", len(b.clients))
		}
	})
}

func TestAnotherClientIsNextButFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(20000, time.Hour)
		b.pulls = 10
		c := newCrowd(b)
		greedy, thrifty := someone(0), someone(1)
		for range 1000 {
			c.ask(t.Context(), greedy)
		}
		for range 3 { // takes what the greedy one may not have, and one more
			c.ask(t.Context(), thrifty)
		}
		if c.has(greedy) != 8 || c.has(thrifty) != 2 {
			t.Fatalf("%d and %d", c.has(greedy), c.has(thrifty))
		}
		c.order = nil
		for range 4 {
			c.finish(greedy)
		}
		for i, who := range c.order {
			if who == thrifty {
				if i > 1 {
					t.Errorf("it came as number %d", i)
				}
				break
			}
			if i == len(c.order)-1 {
				t.Errorf("it did not come among %d", len(c.order))
			}
		}
		c.budget.patience = 0
		for _, active, queued := c.figures(); active > 0 || queued > 0; _, active, queued = c.figures() {
			c.finishAll()
		}
	})
}

func TestWhoWaitsTooLongOrLeavesIsTakenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(20000, 2*time.Minute)
		b.pulls, b.waiters = 1, 3
		c := newCrowd(b)
		first, second, third := someone(0), someone(1), someone(2)
		c.ask(t.Context(), first)
		start := time.Now()
		if _, err := b.begin(t.Context(), second); !errors.Is(err, errBusy) || time.Since(start) != 2*time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, leave := context.WithCancel(t.Context())
		c.ask(ctx, second)
		leave()
		synctest.Wait()
		if _, active, queued := c.figures(); active != 1 || queued != 0 || len(b.clients) != 1 {
			t.Errorf("%d under way, %d wait, %d clients", active, queued, len(b.clients))
		}
		// Who waits with most loses one, not who came last.
		for range 3 {
			c.ask(t.Context(), second)
		}
		c.ask(t.Context(), third)
		if c.errs[second] != 2 || c.errs[third] != 0 || b.refused.Load() != 2 {
			t.Errorf("refused: %v, %d in all", c.errs, b.refused.Load())
		}
		c.finish(first)
		c.finish(second)
		if c.has(third) != 1 {
			t.Errorf("began: %v", c.order)
		}
		for _, active, queued := c.figures(); active > 0 || queued > 0; _, active, queued = c.figures() {
			c.finishAll()
		}
	})
}

func TestBudgetsOfLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ limit, files, pulls, waiters int }{
		{64, 32, 4, 8},
		{1024, 896, 112, 224},
		{20000, 18000, 2048, 4500},
		{1 << 20, 32768, 2048, 8192},
	} {
		b := newBudget(c.limit, time.Minute)
		if b.files != c.files || b.pulls != c.pulls || b.waiters != c.waiters {
			t.Errorf("of %d: %d files, %d pulls, %d waiters", c.limit, b.files, b.pulls, b.waiters)
		}
		if most := b.pulls*(1+filesOfPull) + b.waiters; most > b.files {
			t.Errorf("of %d: pulls and waiters take %d of %d", c.limit, most, b.files)
		}
	}
	if n := openFiles(); n < 64 {
		t.Errorf("%d open files", n)
	}
}

// served is a proxy that the node's own server serves, with a budget.
func served(t *testing.T, up *upstreamtest.Registry, s settings, b *budget) *proxy {
	t.Helper()
	p := newProxy(t, up, s)
	p.node.budget = b
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := p.node.server()
	over := make(chan error, 1)
	go func() { over <- serve(srv, l) }()
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		_ = srv.Close() // tests cut what they left
		<-over
	})
	p.url = "http://" + l.Addr().String()
	return p
}

func TestIdleConnectionsGoWhenDescriptorsRunLow(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(1, 1000))
	b := newBudget(1024, time.Minute)
	b.files = 100
	p := served(t, up, settings{}, b)
	used := p.dial() // answered once, idle since
	fmt.Fprintf(used, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(used), nil); err != nil {
		t.Fatal(err)
	}
	const many = 2000
	var conns []net.Conn
	for i := range many {
		c := p.dial()
		if i%3 == 1 {
			fmt.Fprintf(c, "GET /v2/ HTTP/1.1\r\nHo") // half a header is worth no more
		}
		conns = append(conns, c)
	}
	// As the listener takes one after the other, this one is behind all of them.
	p.get(blobPath(d)).want(t, 200)
	for n, active, _ := b.figures(); n > b.files || active != 0; n, active, _ = b.figures() {
		if n > b.files {
			t.Fatalf("%d connections of %d", n, b.files)
		}
		runtime.Gosched() // the answer may be here before its pull is over
	}
	for i, c := range append([]net.Conn{used}, conns[:many-b.files]...) {
		// A reset, if half a header was on its way.
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("connection %d was not closed in order: %v", i, err)
		}
	}
	last := conns[many-2] // which has sent nothing
	fmt.Fprintf(last, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(last), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the youngest: %v", err)
	}
}

func TestNewConnectionsWaitWhenAllArePulls(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(1, 1<<20)
	d := up.PutBlob(repo, content)
	release := halve(up, d.String(), 1<<20)
	b := newBudget(1024, time.Minute)
	b.files, b.pulls = 1+filesOfPull, 8
	p := served(t, up, settings{}, b)
	pull := p.send(http.MethodGet, blobPath(d))
	q := *p
	q.client = newClient(t)
	got := make(chan error, 1)
	go func() {
		resp, err := q.try(http.MethodGet, "/v2/")
		if err == nil {
			err = read(resp).err
		}
		got <- err
	}()
	release()
	if a := read(pull); len(a.body) != len(content) {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestSlowReadersLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(1, 12<<20) // more than sockets hold
	d := up.PutBlob(repo, content)
	b := newBudget(20000, time.Minute)
	b.pulls = 20
	p := served(t, up, settings{top: "trusted_proxies: [127.0.0.0/8]"}, b)
	p.get(blobPath(d)).want(t, 200)
	for range 100 {
		c := p.dial()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", blobPath(d))
	}
	for _, active, queued := b.figures(); active != 16 || queued != 84; _, active, queued = b.figures() {
		p.get("/v2/").want(t, 200) // until they hold what one may, and the rest wait
	}
	for i := range 4 {
		a := p.get(blobPath(d), "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", 2+i))
		if a.want(t, 200); len(a.body) != len(content) {
			t.Errorf("%d bytes, %v", len(a.body), a.err)
		}
	}
}

func TestWhoGetsNoTurnIsToldAsTheClientTakesItBest(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	b := newBudget(20000, 0)
	b.pulls = 0
	p := served(t, up, settings{}, b)
	for agent, status := range map[string]int{
		"docker/20.10.24 go/go1.19": 503, "": 503, "curl/8": 503, "containerd/1.6.20": 429, "skopeo/1.9.3": 429,
		"containers/5.24.1 (github.com/containers/image)": 429, "Buildah/1.28": 429, "cri-o/1.30": 429, "libpod/4.3.1": 429,
	} {
		t.Run(agent, func(t *testing.T) {
			t.Parallel()
			code := "UNAVAILABLE"
			if status == 429 {
				code = "TOOMANYREQUESTS"
			}
			q := *p
			q.t = t
			a := q.get("/v2/"+repo+"/manifests/v1", "User-Agent", agent)
			if dt := a.wantError(t, status, code); dt.RetryAfter != 10 || a.Header.Get("Retry-After") != "10" {
				t.Errorf("%+v %v", dt, a.Header)
			}
		})
	}
	p.get("/v2/").want(t, 200) // which asks for no turn
	p.get("/_/health").want(t, 200)
}

// A pipes is a listener without a network, so that time may be virtual.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }
func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// Requests that never get whole, and connections that never say anything, end.
func TestHalfRequestsEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sent string
		within     time.Duration
	}{
		{"nothing at all", "", headerTimeout},
		{"half a request line", "GET /v2", headerTimeout},
		{"half a header", "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-A:", headerTimeout},
		{"an answered request, and half a second", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nGET /", headerTimeout},
		{"an answered request", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", idleTimeout},
		{"half a body of a pull", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", headerTimeout + time.Second},
		{"half a chunk of a pull", "GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", headerTimeout + time.Second},
		{"half a body of a push", "PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", headerTimeout + time.Second},
		{"half a body of a leave", "POST /_/leave HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc", headerTimeout + time.Second},
		{"half a body of nothing", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc", headerTimeout + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				n, _ := newNodeOf(t, fmt.Sprintf("defaults: {cache_dir: %q}", dir))
				l, srv := newPipes(), n.server()
				over := make(chan error, 1)
				go func() { over <- srv.Serve(l) }()
				conn := l.dial()
				start := time.Now()
				go func() { _, _ = io.WriteString(conn, c.sent) }() // it may be cut before
				_, err := io.Copy(io.Discard, conn)
				if took := time.Since(start); err != nil || took > c.within {
					t.Errorf("closed after %s, %v; want %s at most", took, err, c.within)
				}
				_ = srv.Close()
				<-over
				if err := n.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestARequestThatReadsHasNoBody(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	for _, path := range []string{"/v2/", "/v2/a/b/manifests/c", "/_/stats", "/"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		a := read(resp)
		if a.wantError(t, http.StatusBadRequest, "UNSUPPORTED"); !a.Close {
			t.Errorf("%s: the connection stays open", path)
		}
	}
}
