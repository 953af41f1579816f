package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/journal"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

const (
	mib        = 1 << 20
	meshSecret = "sesame sesame sesame"
	// peersPatience multiplies the short time-outs between the nodes of a test. On a
	// busy machine a node would pass over another that is well.
	peersPatience = 10
)

// A testCluster is a mesh of real nodes in this process. Gossip and blobs go over
// loopback, and the registry counts its requests. Nodes are numbered from 0.
type testCluster struct {
	t      testing.TB
	up     *upstreamtest.Registry
	client *http.Client
	form   func(i int) form
	links  *links
	nodes  []*testNode
	seed   uint64 // of the last blob
	dir    string
	seams  seams // used for every node, beside those of the harness
}

// A form is the part of a node's config that a test chooses.
type form struct {
	settings
	cluster string // members of the config's cluster; "": the secret
	exact   bool   // the time-outs between nodes are the product's: the test is about them
}

// A testNode is one node. It keeps its directory and its addresses over a restart.
type testNode struct {
	c                    *testCluster
	i                    int
	name, dir            string
	client, gossip, peer string // addresses, once the node has been started
	log                  *testkit.Log

	node  *Node // nil while it is down
	port  *port
	stop  context.CancelFunc
	ended chan error

	stuck atomic.Pointer[membership.View] // the view it routes by; nil: its own
}

// newCluster starts n nodes and waits until each knows all others.
func newCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	return formCluster(t, n, upstreamtest.New(t), func(int) form { return form{} })
}

// newExactCluster is newCluster for a test about the time-outs between nodes.
func newExactCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	return formCluster(t, n, upstreamtest.New(t), func(int) form { return form{exact: true} })
}

// formCluster is newCluster for nodes of that form, in front of up.
func formCluster(t testing.TB, n int, up *upstreamtest.Registry, of func(i int) form) *testCluster {
	t.Helper()
	testkit.SkipShort(t)
	return startCluster(t, n, up, of)
}

// startCluster is formCluster for the few tests that are part of a short run.
func startCluster(t testing.TB, n int, up *upstreamtest.Registry, of func(i int) form) *testCluster {
	t.Helper()
	c := &testCluster{
		t: t, up: up, form: of, links: &links{at: map[string]int{}, all: map[[2]int]*link{}},
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}},
	}
	c.dir = t.TempDir() // removed after the nodes have ended
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
			c.kill(i) // even if it hangs
		}
		wantSchema(c.t, one.log)
	}
	if c.t.Failed() && testing.Verbose() {
		for _, one := range c.nodes {
			c.t.Logf("%s (gossip %s, peers %s):\n%s", one.name, one.gossip, one.peer, one.log.String())
		}
	}
}

// anyPort is an address with any free port.
const anyPort = "127.0.0.1:0"

// join adds a node and returns its number.
func (c *testCluster) join() int {
	c.t.Helper()
	i := len(c.nodes)
	c.nodes = append(c.nodes, c.node(i, fmt.Sprintf("node-%d", i), strconv.Itoa(i)))
	c.start(i)
	return i
}

// node makes a node that is down. It keeps its addresses over its starts.
func (c *testCluster) node(i int, name, dir string) *testNode {
	c.t.Helper()
	addr := func() string { return testkit.FreeAddr(c.t, "127.0.0.1") }
	return &testNode{c: c, i: i, name: name, dir: filepath.Join(c.dir, dir), client: addr(), gossip: addr(), peer: addr(), log: new(testkit.Log)}
}

// start starts a node that is down.
func (c *testCluster) start(i int) {
	c.t.Helper()
	one := c.nodes[i]
	f := c.form(i)
	cfg := one.config(f)
	var err error
	if one.port, err = openPort(one.client); err != nil {
		c.t.Fatal(err)
	}
	log := slog.New(journal.New(slog.NewJSONHandler(one.log, &slog.HandlerOptions{Level: cfg.LogLevel})))
	test := c.seams
	test.Dial, test.View = c.links.dial(i), one.sees
	if !f.exact {
		test.Patience = peersPatience
	}
	if test.CopyAfter == 0 { // other tests say themselves which nodes hold what
		test.CopyAfter, test.Settle, test.Rescue = time.Hour, time.Hour, time.Hour
	}
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

// config is the node's config.
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

// sees returns what the node routes by.
func (one *testNode) sees(now *membership.View) *membership.View {
	if v := one.stuck.Load(); v != nil {
		return v
	}
	return now
}

// kill ends a node as a crash would: its sockets close without a word.
func (c *testCluster) kill(i int) {
	one := c.nodes[i]
	n := one.node
	_ = n.cluster.Kill() // the node is gone, whatever this returns
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

// leave makes a node leave for good, and returns what it handed over.
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

// running lists the nodes that are not down.
func (c *testCluster) running() (all []*testNode) {
	for _, one := range c.nodes {
		if one.node != nil {
			all = append(all, one)
		}
	}
	return all
}

// awaitMembers waits until each running node sees n members up.
func (c *testCluster) awaitMembers(n int) {
	c.t.Helper()
	for _, one := range c.running() {
		c.awaitMembersOf(one.i, n)
	}
}

// awaitView waits until the node's view satisfies ok.
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

// await waits for something that no channel announces.
func (c *testCluster) await(what string, ok func() bool) {
	c.t.Helper()
	testkit.Await(c.t, what, ok)
}

// awaitMembersOf waits until a node sees n members up.
func (c *testCluster) awaitMembersOf(i, n int) {
	c.t.Helper()
	one := c.nodes[i]
	one.awaitView(fmt.Sprintf("%d members", n), func(*membership.View) bool { return one.node.cluster.Size() == n })
}

// awaitLog waits until a node's log contains word.
func (c *testCluster) awaitLog(i int, part string) {
	c.t.Helper()
	c.nodes[i].log.Await(c.t, part, 1)
}
