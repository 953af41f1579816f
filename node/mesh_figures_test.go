package node

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// fullSize says whether these measurements run at full size, which takes minutes.
var fullSize = os.Getenv("MESH_TEST_FIGURES") != ""

// A thousand clients ask for one cold blob.
func TestMeshFigureThousandClients(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long")
	}
	nodes, clients, size := 8, 1000, int64(mib)
	switch {
	case fullSize:
		size = 64 * mib
	case raceEnabled:
		nodes, clients = 4, 200
	}
	c := newCluster(t, nodes)
	b := c.blob(size)
	release := c.up.Hold(upstreamtest.Match{Method: http.MethodGet, PathPart: b.String()})
	var wg sync.WaitGroup
	var failed, asked atomic.Int64
	var first atomic.Pointer[error]
	start := time.Now()
	for k := range clients {
		wg.Go(func() {
			if err := c.discard(k%nodes, b, func() { asked.Add(1) }); err != nil {
				failed.Add(1)
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	c.await("all have asked", func() bool { return asked.Load() == int64(clients) })
	release()
	wg.Wait()
	took := time.Since(start)
	if n := failed.Load(); n > 0 {
		t.Errorf("%d clients failed: %v", n, *first.Load())
	}
	t.Logf("%d clients, %d nodes, %d MiB: %d upstream GET, %.2f × its bytes, %v, %.2f GB/s to clients", clients, nodes, size/mib,
		c.gets(b), float64(c.up.BytesSent())/float64(size), took.Round(time.Millisecond), float64(size)*float64(clients)/took.Seconds()/1e9)
	c.wantGets(b, 1)
	if sent := c.up.BytesSent(); sent != size {
		t.Errorf("the registry sent %d bytes of %d", sent, size)
	}
}

// discard asks for a blob and discards it as fast as possible.
func (c *testCluster) discard(i int, b testBlob, asked func()) error {
	once := sync.OnceFunc(asked)
	defer once()
	conn, err := net.Dial("tcp", c.nodes[i].client)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // only read
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", blobPath(b.Digest)); err != nil {
		return err
	}
	once()
	buf := make([]byte, 64<<10)
	var n int64
	for {
		k, err := conn.Read(buf)
		n += int64(k)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", n, err)
		}
	}
	if n < b.size || n > b.size+2000 {
		return fmt.Errorf("%d bytes, header included, of %d", n, b.size)
	}
	return nil
}

// Three of many nodes hang.
func TestMeshFigureStatsWhileThreeHang(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long")
	}
	const hung = 3
	n := 30
	switch {
	case fullSize:
		n = 100
	case raceEnabled:
		n = 8
	}
	start := time.Now()
	c := newExactCluster(t, 0)
	c.seams.ReportAge = time.Nanosecond // each round asks
	for range n {
		c.join()
	}
	c.awaitMembers(n)
	t.Logf("%d nodes formed in %v", n, time.Since(start))
	for i := n - hung; i < n; i++ {
		c.links.of(0, i).set(trouble{silent: true})
	}
	want := fmt.Sprintf("%d/%d", n-hung, n)
	whole := func() bool { // on a busy machine one that lives may be late, too
		start := time.Now()
		got := c.json(0, "/_/stats", new(map[string]figures.Registry)).Get("X-Cluster-Nodes")
		t.Logf("%s in %v", got, time.Since(start))
		return got == want
	}
	for range 3 {
		if !testkit.Happens(patience, whole) {
			t.Errorf("never all that live, %s, in %v", want, patience)
		}
	}
}

// This measures how long a pull takes when the owner is not well.
func TestMeshFigureCostOfASickOwner(t *testing.T) {
	t.Parallel()
	if !fullSize {
		t.Skip("it measures")
	}
	const speed = 16 * mib
	for name, sick := range map[string]func(c *testCluster){
		"well": func(*testCluster) {}, "dead": func(c *testCluster) { c.kill(0) }, "hung": func(c *testCluster) { c.hang(0) },
		"crawling": func(c *testCluster) { c.around(0, trouble{rate: 300_000}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newExactCluster(t, 3)
			layer := c.blobOf(0, 64*mib)
			at, other := c.others(layer) // each of the two has to notice by itself
			image := []testBlob{c.blobOf(0, 16*mib), c.blobOf(0, 16*mib), c.blobOf(0, 16*mib), c.blobOf(0, 16*mib)}
			for _, b := range append(image, layer) {
				c.pull(0, b)
			}
			c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet}, SlowBytesPerSecond: speed})
			sick(c)
			start := time.Now()
			c.pull(at, layer)
			one := time.Since(start).Round(time.Millisecond)
			start = time.Now()
			for _, b := range image {
				c.pull(other, b)
			}
			t.Logf("an owner that is %s: a layer of 64 MiB in %v, then elsewhere four of 16 MiB in %v", name, one, time.Since(start).Round(time.Millisecond))
		})
	}
}
