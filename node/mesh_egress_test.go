package node

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A wayOutOf is a node's way out: an HTTP proxy of its own, which can be cut off and come back.
type wayOutOf struct {
	t      testing.TB
	addr   string
	resets atomic.Bool  // each connection, once it has been asked something
	passed atomic.Int64 // bytes of plain answers that went through

	mu    sync.Mutex
	open  net.Listener // nil while it is cut off
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// newWayOut returns a way out that is open until the test ends.
func newWayOut(t testing.TB) *wayOutOf {
	t.Helper()
	w := &wayOutOf{t: t, addr: testkit.FreeAddr(t, "127.0.0.1"), conns: map[net.Conn]bool{}}
	w.mend()
	t.Cleanup(func() {
		w.cut()
		w.wg.Wait()
	})
	return w
}

// mend opens the way, at the address that it had.
func (w *wayOutOf) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open != nil {
		return
	}
	l, err := net.Listen("tcp", w.addr)
	if err != nil {
		w.t.Error(err)
		return
	}
	w.addr, w.open = l.Addr().String(), l
	w.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // it is cut off
			}
			w.mu.Lock()
			through := w.open == l
			w.conns[conn] = through
			w.mu.Unlock()
			if through {
				w.wg.Go(func() { w.serve(conn) })
			} else {
				_ = conn.Close()
			}
		}
	})
}

// serve serves a connection: CONNECT, and requests with an absolute URL.
func (w *wayOutOf) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if w.resets.Load() {
		_ = conn.(*net.TCPConn).SetLinger(0) // so that closing it resets it
		return
	}
	if req.Method == http.MethodConnect {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		upstreamtest.Tunnel(conn, req.Host)
		return
	}
	to, err := net.Dial("tcp", req.URL.Host)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	req.Close = true
	if req.Write(to) == nil {
		_, _ = io.Copy(passing{conn, &w.passed}, to)
	}
}

// A passing counts what it writes.
type passing struct {
	to    io.Writer
	bytes *atomic.Int64
}

// Write implements io.Writer.
func (p passing) Write(b []byte) (int, error) {
	n, err := p.to.Write(b)
	p.bytes.Add(int64(n))
	return n, err
}

// cut breaks all connections, and refuses new ones.
func (w *wayOutOf) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		return
	}
	_ = w.open.Close() // nobody uses it any more
	w.open = nil
	for conn := range w.conns {
		_ = conn.Close() // as above
	}
	clear(w.conns)
}

// clusterWithWays starts nodes each with a way out of its own, of which only that of node
// open works.
func clusterWithWays(t *testing.T, n, open int, up *upstreamtest.Registry) (*testCluster, []*wayOutOf) {
	t.Helper()
	var ways []*wayOutOf
	for range n {
		ways = append(ways, newWayOut(t))
	}
	c := formCluster(t, n, up, func(i int) form {
		return form{settings: settings{registry: fmt.Sprintf("upstream_proxy: %q", "http://"+ways[i].addr)}}
	})
	for i, w := range ways {
		if i != open {
			w.cut()
		}
	}
	return c, ways
}

// upstreamBytes is how many bytes of blobs the nodes counted as the registry's.
func (c *testCluster) upstreamBytes() (n int64) {
	for _, one := range c.running() {
		n += c.own(one.i)[figures.FromUpstreamBytes]
	}
	return n
}

// Only one node has a way out, and another one each time. All pulls work, each blob comes from
// the registry once, and its owner has it.
func TestMeshTheWayOutMovesWhilePullsRun(t *testing.T) {
	t.Parallel()
	const nodes = 3
	c, ways := clusterWithWays(t, nodes, 0, upstreamtest.New(t))
	var blobs []testBlob
	var size int64
	for k := range nodes {
		b := c.blobOf(k%nodes, 6*mib)
		size += b.size
		blobs = append(blobs, b)
	}
	c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/"}, SlowBytesPerSecond: 2 * mib})
	var pulls []<-chan pulled
	for _, b := range blobs {
		for i := range nodes {
			pulls = append(pulls, c.began(i, b))
		}
	}
	stop, moved := make(chan struct{}), make(chan int)
	go func() {
		for k := 1; ; k++ {
			last, came := time.Now(), c.up.BytesSent()
			for time.Since(last) < 1200*time.Millisecond || c.up.BytesSent() < came+2*mib { // however slow this machine is
				select {
				case <-stop:
					moved <- k - 1
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
			ways[k%nodes].mend()
			ways[(k-1)%nodes].cut()
		}
	}()
	for _, one := range pulls {
		p := <-one
		p.wantWhole(t)
	}
	close(stop)
	moves := <-moved
	t.Logf("%d pulls of %d blobs while the way out moved %d times: the registry sent %.3f times their size, the nodes counted %.3f",
		len(pulls), len(blobs), moves, float64(c.up.BytesSent())/float64(size), float64(c.upstreamBytes())/float64(size))
	if got := c.upstreamBytes(); got < size || got > size+size/100 {
		t.Errorf("the nodes counted %d bytes from the registry, the blobs have %d", got, size)
	}
	// What the registry sent and no way had passed on when it was cut was nobody's to keep:
	// on a slow machine that is much.
	var passed int64
	for _, w := range ways {
		passed += w.passed.Load()
	}
	const onItsWay = 64 << 10 // of one blob when its way is cut: in sockets
	if passed < size || passed > size+int64(moves*len(blobs)*onItsWay) {
		t.Errorf("the ways out passed %d bytes, the blobs have %d; the registry sent %d", passed, size, c.up.BytesSent())
	}
	for k, b := range blobs {
		c.await("its owner has it", func() bool {
			var o struct{ Holders []string }
			c.json(0, "/_/owner/"+b.String(), &o)
			return strings.Contains(strings.Join(o.Holders, " "), c.nodes[k%nodes].name)
		})
	}
}

// Nodes that never ask own their share all the same, of a private registry too: they are asked
// for it, keep it, and have it from the registry by way of the one that may ask.
func TestMeshNodesWithoutEgressOwnTheirShare(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: upstreamUser, Password: upstreamPassword}))
	c := formCluster(t, 3, up, func(i int) form {
		return form{
			settings: settings{registry: fmt.Sprintf("auth: {username: %s, password: %s}", upstreamUser, upstreamPassword)},
			cluster:  fmt.Sprintf("secret: %q%s", meshSecret, map[bool]string{true: "", false: ", egress: false"}[i == 0]),
		}
	})
	img := up.PutImage(repo, "v1", random(1, 300_000))
	other := up.PutBlob("other/app", random(7, 1000))
	for _, i := range []int{2, 1, 0} {
		c.get(i, "/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
		c.tryPull(i, img.Layers[0]).wantWhole(t)
		c.get(i, "/v2/"+repo+"/tags/list").want(t, http.StatusOK)
		c.get(i, "/v2/"+repo+"/referrers/"+img.Manifest.String()).want(t, http.StatusOK)
		// A blob that one repository delivered is not served for another.
		c.get(i, "/v2/other/app/blobs/"+img.Layers[0].String()).want(t, http.StatusNotFound)
		c.get(i, "/v2/"+repo+"/blobs/"+other.String()).want(t, http.StatusNotFound)
		c.get(i, "/v2/"+repo+"/manifests/none").want(t, http.StatusNotFound)
	}
	for owner := range c.nodes {
		b := c.blobOf(owner, 200_000)
		asker := (owner + 1) % 3
		c.pull(asker, b)
		c.wantGets(b, 1)
		c.await("its owner has it", func() bool {
			var o struct{ Holders []string }
			c.json(0, "/_/owner/"+b.String(), &o)
			return strings.Contains(strings.Join(o.Holders, " "), c.nodes[owner].name)
		})
	}
	for _, i := range []int{1, 2} {
		if n := c.own(i)[figures.FromUpstreamBytes]; n != 0 {
			t.Errorf("node %d never asks and got %d bytes from the registry", i, n)
		}
	}
	c.get(1, "/v2/"+repo+"/blobs/"+up.PutRandomBlob("third/app", 99, 10).String()).want(t, http.StatusNotFound)
}

// Some networks do not refuse connections to a registry but reset them. Pulls go by the way of
// the one node whose network does not.
func TestMeshLeavesAWayThatResetsConnections(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	c, ways := clusterWithWays(t, 3, 0, up)
	for _, w := range ways[1:] {
		w.resets.Store(true)
		w.mend()
	}
	for i := range c.nodes {
		layer := random(uint64(i), 200_000)
		img := up.PutImage(repo, fmt.Sprint("v", i), layer)
		c.get(i, fmt.Sprint("/v2/", repo, "/manifests/v", i)).want(t, http.StatusOK)
		c.get(i, "/v2/"+repo+"/tags/list").want(t, http.StatusOK)
		c.tryPull(i, img.Layers[0]).wantWhole(t)
	}
}

// No node has a way out: that is told in time, with the host and what each way came to.
func TestMeshNoNodeHasAWayOut(t *testing.T) {
	t.Parallel()
	c, ways := clusterWithWays(t, 3, 0, upstreamtest.New(t))
	ways[0].cut()
	for i := range c.nodes {
		began := time.Now()
		d := c.get(i, blobPath(c.blob(1000).Digest)).wantError(t, http.StatusBadGateway, "UNAVAILABLE")
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
		if d.UpstreamHost != ways[i].addr && !strings.Contains(d.UpstreamHost, "127.0.0.1") || !strings.Contains(d.Reason, "by way of node-") {
			t.Errorf("%+v does not name the host and the ways", d)
		}
		t.Logf("%+v", d)
	}
	ways[2].mend()
	b := c.blob(100_000)
	c.await("it is pulled by the way that came back", func() bool { return c.tryPull(0, b.Digest).whole })
}
