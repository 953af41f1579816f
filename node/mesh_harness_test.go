package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/figures"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/upstreamtest"
)

const (
	mib        = 1 << 20
	meshSecret = "sesame sesame sesame"
)

// A testCluster is a mesh of real nodes in this process: gossip and blobs go
// over loopback, the registry counts. Nodes are told apart by number, from 0.
type testCluster struct {
	t      testing.TB
	up     *upstreamtest.Registry
	client *http.Client
	form   func(i int) form
	links  *links
	nodes  []*testNode
	seed   uint64 // of the last blob
	dir    string
	seams  seams // of every node, beside its own
}

// A form is the part of a node's config that a test chooses.
type form struct {
	settings
	cluster string // members of cluster; "": the secret
}

// A testNode is one node. It keeps its directory and its addresses when it is
// started again.
type testNode struct {
	c                    *testCluster
	i                    int
	name, dir            string
	client, gossip, peer string // addresses, once it was started
	log                  *buffer

	node  *Node // nil while it is down
	port  *port
	stop  context.CancelFunc
	ended chan error

	stuck atomic.Pointer[membership.View] // what it routes by, nil: what is known
}

// newCluster starts n nodes, and waits until each knows all.
func newCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	return formCluster(t, n, upstreamtest.New(t), func(int) form { return form{} })
}

// formCluster is newCluster for nodes of a form, in front of up.
func formCluster(t testing.TB, n int, up *upstreamtest.Registry, of func(i int) form) *testCluster {
	t.Helper()
	c := &testCluster{
		t: t, up: up, form: of, links: &links{at: map[string]int{}, all: map[[2]int]*link{}},
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}},
	}
	c.dir = t.TempDir() // goes after the nodes
	t.Cleanup(c.end)
	for range n {
		c.join()
	}
	c.awaitMembers(n)
	return c
}

// end stops all nodes.
func (c *testCluster) end() {
	for i, one := range c.nodes {
		if one.node != nil {
			c.links.heal()
			c.kill(i) // whatever hangs
		}
	}
	if c.t.Failed() && testing.Verbose() {
		for _, one := range c.nodes {
			c.t.Logf("%s (gossip %s, peers %s):\n%s", one.name, one.gossip, one.peer, one.log.String())
		}
	}
}

// anyPort is an address with a port that is free.
const anyPort = "127.0.0.1:0"

// join adds a node, and returns its number.
func (c *testCluster) join() int {
	c.t.Helper()
	i := len(c.nodes)
	c.nodes = append(c.nodes, &testNode{
		c: c, i: i, name: fmt.Sprintf("node-%d", i), dir: filepath.Join(c.dir, strconv.Itoa(i)), client: anyPort, gossip: anyPort, peer: anyPort, log: new(buffer),
	})
	c.start(i)
	return i
}

// start starts a node that is down.
func (c *testCluster) start(i int) {
	c.t.Helper()
	one := c.nodes[i]
	cfg := one.config(c.form(i))
	var err error
	if one.port, err = openPort(one.client); err != nil {
		c.t.Fatal(err)
	}
	if one.client == anyPort {
		one.client = one.port.Addr().String() // others may be reading it later
	}
	log := slog.New(slog.NewJSONHandler(one.log, &slog.HandlerOptions{Level: cfg.LogLevel}))
	test := c.seams
	test.Dial, test.View = c.links.dial(i), one.sees
	n, err := build(cfg, log, test)
	if err != nil {
		c.t.Fatalf("starting %s: %v", one.name, err)
	}
	one.gossip, one.peer = n.GossipAddr(), n.PeerAddr()
	c.links.is(one.peer, i)
	ctx, cancel := context.WithCancel(context.Background())
	one.node, one.stop, one.ended = n, cancel, make(chan error, 1)
	go func() { one.ended <- n.Run(ctx, one.port) }()
}

// config is the node's.
func (one *testNode) config(f form) *config.Config {
	c, up := one.c, one.c.up
	var seeds []string
	for _, other := range c.nodes {
		if other != one {
			seeds = append(seeds, other.gossip)
		}
	}
	list, err := json.Marshal(seeds)
	if err != nil || seeds == nil {
		list = []byte("[]")
	}
	comma := func(s string) string {
		if s != "" {
			return ", " + s
		}
		return s
	}
	text := fmt.Sprintf("log_level: debug\ndefault_registry: %q\n%s\ndefaults: {cache_dir: %q%s}\nregistries:\n  %q: {insecure: true%s}\n%s\n"+
		"cluster: {name: %s, bind_addr: %q, peer_addr: %q, seeds: %s%s}\n",
		up.Host(), f.top, cmp.Or(f.dir, one.dir), comma(f.defaults), up.Host(), comma(f.registry), f.more,
		one.name, one.gossip, one.peer, list, comma(cmp.Or(f.cluster, fmt.Sprintf("secret: %q", meshSecret))))
	cfg, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		c.t.Fatalf("the test's config:\n%s\n%v", text, err)
	}
	return cfg
}

// sees is what the node routes by.
func (one *testNode) sees(now *membership.View) *membership.View {
	if v := one.stuck.Load(); v != nil {
		return v
	}
	return now
}

// kill ends a node as a crash would: its sockets are closed without a word.
func (c *testCluster) kill(i int) {
	one := c.nodes[i]
	n := one.node
	_ = n.cluster.Kill() // whatever it says, it is over
	one.port.cut()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	n.fetcher.Close(gone)
	one.stop()
	<-one.ended
	one.node = nil
}

// stop ends a node as SIGTERM does.
func (c *testCluster) stop(i int) {
	c.t.Helper()
	one := c.nodes[i]
	one.stop()
	if err := <-one.ended; err != nil {
		c.t.Errorf("stopping %s: %v", one.name, err)
	}
	one.node = nil
}

// leave makes a node leave for good, and returns what it has handed over.
func (c *testCluster) leave(i int) cluster.HandedOver {
	c.t.Helper()
	one := c.nodes[i]
	a := c.do(http.MethodPost, i, "/_/leave")
	a.want(c.t, http.StatusOK)
	var done cluster.HandedOver
	if err := json.Unmarshal(a.body, &done); err != nil {
		c.t.Errorf("leave: %v in %q", err, a.body)
	}
	if err := <-one.ended; err != nil {
		c.t.Errorf("%s leaves: %v", one.name, err)
	}
	one.node = nil
	return done
}

// running are the nodes that are not down.
func (c *testCluster) running() (all []*testNode) {
	for _, one := range c.nodes {
		if one.node != nil {
			all = append(all, one)
		}
	}
	return all
}

// awaitMembers waits until each node that runs knows of n that are up.
func (c *testCluster) awaitMembers(n int) {
	c.t.Helper()
	for _, one := range c.running() {
		c.awaitMembersOf(one.i, n)
	}
}

// awaitView waits until the node knows what ok wants.
func (one *testNode) awaitView(what string, ok func(*membership.View) bool) {
	one.c.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		changed := one.node.cluster.Members().Changed()
		v := one.node.cluster.Members().View()
		if ok(v) {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			one.c.t.Fatalf("%s does not see %s: %+v", one.name, what, v.Members)
		}
	}
}

// await waits for what no channel tells.
func (c *testCluster) await(what string, ok func() bool) {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout.C:
			c.t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// A testBlob is one that the registry has.
type testBlob struct {
	digest.Digest
	size int64
}

// blob puts a new blob into the registry.
func (c *testCluster) blob(size int64) testBlob {
	c.seed++
	return testBlob{c.up.PutRandomBlob(repo, c.seed, size), size}
}

// blobOf is a new blob that is that node's to get.
func (c *testCluster) blobOf(owner int, size int64) testBlob {
	c.t.Helper()
	for range 200 {
		if b := c.blob(size); c.order(b.Digest)[0] == owner {
			return b
		}
	}
	c.t.Fatalf("of 200 blobs none is %s's", c.nodes[owner].name)
	return testBlob{}
}

// order lists all nodes, first those that own the digest as the first running
// node has it.
func (c *testCluster) order(d digest.Digest) (all []int) {
	v := c.running()[0].node.cluster.Members().View()
	owners, n := v.Ring.Owners(d.String())
	for _, o := range owners[:n] {
		m, _ := v.Member(o.ID)
		if i := slices.IndexFunc(c.nodes, func(one *testNode) bool { return m != nil && one.name == m.Name }); i >= 0 {
			all = append(all, i)
		}
	}
	for i := range c.nodes {
		if !slices.Contains(all, i) {
			all = append(all, i)
		}
	}
	return all
}

// A pulled blob is what a client got.
type pulled struct {
	code   int
	status string // Cache-Status
	n      int64
	took   time.Duration
	whole  bool // every byte was right
	err    error
}

// tryPull pulls a blob at a node.
func (c *testCluster) tryPull(i int, d digest.Digest) (p pulled) {
	start := time.Now()
	defer func() { p.took = time.Since(start) }()
	resp, err := c.ask(http.MethodGet, i, blobPath(d))
	if err != nil {
		return pulled{err: err}
	}
	v := d.Verifier()
	p = pulled{code: resp.StatusCode, status: resp.Header.Get("Cache-Status")}
	p.n, p.err = io.Copy(v, resp.Body)
	p.err = errors.Join(p.err, resp.Body.Close())
	p.whole = p.err == nil && p.code == http.StatusOK && v.Verified()
	return p
}

// pull pulls a blob at a node, which has to be right.
func (c *testCluster) pull(i int, b testBlob) pulled {
	c.t.Helper()
	p := c.tryPull(i, b.Digest)
	if !p.whole {
		c.t.Errorf("pull of %d bytes at %s: status %d, %d bytes in %v, %v", b.size, c.nodes[i].name, p.code, p.n, p.took, p.err)
	}
	return p
}

// began pulls a blob in the background; the channel gives what came.
func (c *testCluster) began(i int, b testBlob) <-chan pulled {
	done := make(chan pulled, 1)
	go func() { done <- c.tryPull(i, b.Digest) }()
	return done
}

// wantWhole fails the test unless the pull was right.
func (p pulled) wantWhole(t testing.TB) {
	t.Helper()
	if !p.whole {
		t.Errorf("the pull: status %d, %d bytes in %v, %v", p.code, p.n, p.took, p.err)
	}
}

// ask sends a request to a node; header holds names and values in turn.
func (c *testCluster) ask(method string, i int, path string, header ...string) (*http.Response, error) {
	req, err := http.NewRequest(method, "http://"+c.nodes[i].client+path, nil)
	if err != nil {
		return nil, err
	}
	for h := range slices.Chunk(header, 2) {
		req.Header.Add(h[0], h[1])
	}
	return c.client.Do(req)
}

// do asks a node and reads the answer.
func (c *testCluster) do(method string, i int, path string, header ...string) answer {
	c.t.Helper()
	resp, err := c.ask(method, i, path, header...)
	if err != nil {
		c.t.Fatal(err)
	}
	return read(resp)
}

func (c *testCluster) get(i int, path string, header ...string) answer {
	c.t.Helper()
	return c.do(http.MethodGet, i, path, header...)
}

// json asks a node for what it tells of itself or the cluster.
func (c *testCluster) json(i int, path string, into any) http.Header {
	c.t.Helper()
	a := c.get(i, path)
	a.want(c.t, http.StatusOK, "Content-Type", "application/json")
	if err := json.Unmarshal(a.body, into); err != nil {
		c.t.Fatalf("%s: %v in %q", path, err, a.body)
	}
	return a.Header
}

// own are the node's own figures of the registry.
func (c *testCluster) own(i int) figures.Registry {
	c.t.Helper()
	all := map[string]figures.Registry{}
	c.json(i, "/_/stats?scope=node", &all)
	return all[c.up.Host()]
}

// gets is how often the registry was asked for the blob.
func (c *testCluster) gets(b testBlob) int {
	return c.up.Count(http.MethodGet, repo+"/blobs/"+b.String()) // not of repositories that lack it
}

// wantGets fails the test unless the registry was asked for the blob n times.
func (c *testCluster) wantGets(b testBlob, n int) {
	c.t.Helper()
	if got := c.gets(b); got != n {
		c.t.Errorf("the registry was asked %d times for a blob of %d bytes, want %d", got, b.size, n)
	}
}

// hang makes a node hang, as far as the others' requests and its own go.
func (c *testCluster) hang(i int) { c.around(i, trouble{silent: true}) }

// around puts a fault on all links of a node.
func (c *testCluster) around(i int, f trouble) {
	for j := range c.nodes {
		if j != i {
			c.links.of(i, j).set(f)
			c.links.of(j, i).set(f)
		}
	}
}

// heal ends all faults.
func (l *links) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.all {
		one.set(trouble{})
	}
}

// awaitHealthy waits until no node passes over another.
func (c *testCluster) awaitHealthy() {
	c.t.Helper()
	c.await("nobody is passed over", func() bool {
		for _, one := range c.running() {
			for _, other := range c.running() {
				if other != one && !one.node.cluster.Client().Healthy(other.node.cluster.Members().View().Self.ID) {
					return false
				}
			}
		}
		return true
	})
}

// A port is a listener that can be cut as a crash cuts it.
type port struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func openPort(addr string) (*port, error) {
	l, err := net.Listen("tcp", addr)
	return &port{Listener: l}, err
}

// Accept implements net.Listener.
func (p *port) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conns = append(p.conns, conn)
	}
	return conn, err
}

// cut resets all connections.
func (p *port) cut() {
	_ = p.Close() // it may have been
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it may be closed
		}
		_ = conn.Close()
	}
}
