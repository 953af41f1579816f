package node

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/figures"
)

// A testBlob is a blob of the registry.
type testBlob struct {
	digest.Digest
	size int64
}

// blob puts a new blob into the registry.
func (c *testCluster) blob(size int64) testBlob {
	c.seed++
	return testBlob{c.up.PutRandomBlob(repo, c.seed, size), size}
}

// blobOf puts a new blob into the registry. The given node owns the blob.
func (c *testCluster) blobOf(owner int, size int64) testBlob {
	c.t.Helper()
	for range 200 {
		if b := c.blob(size); c.order(b.Digest)[0] == owner {
			return b
		}
	}
	c.t.Fatalf("%s owns none of 200 blobs", c.nodes[owner].name)
	return testBlob{}
}

// order lists all nodes: first the owners of the digest in the order that the first
// running node sees, then the others.
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

// pulled is what a client received.
type pulled struct {
	code   int
	status string // Cache-Status
	n      int64
	took   time.Duration
	whole  bool // every byte was right
	err    error
}

// tryPull pulls a blob from a node.
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

// pull pulls a blob from a node and fails the test unless the blob is right.
func (c *testCluster) pull(i int, b testBlob) pulled {
	c.t.Helper()
	p := c.tryPull(i, b.Digest)
	if !p.whole {
		c.t.Errorf("pull of %d bytes at %s: status %d, %d bytes in %v, %v", b.size, c.nodes[i].name, p.code, p.n, p.took, p.err)
	}
	return p
}

// began pulls a blob in the background. The channel delivers the result.
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

// ask sends a request to a node. header holds names and values in turn.
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

// json asks a node for a report.
func (c *testCluster) json(i int, path string, into any) http.Header {
	c.t.Helper()
	a := c.get(i, path)
	a.want(c.t, http.StatusOK, "Content-Type", "application/json")
	if err := json.Unmarshal(a.body, into); err != nil {
		c.t.Fatalf("%s: %v in %q", path, err, a.body)
	}
	return a.Header
}

// own returns the node's own figures of the registry.
func (c *testCluster) own(i int) figures.Registry {
	c.t.Helper()
	all := map[string]figures.Registry{}
	c.json(i, "/_/stats?scope=node", &all)
	return all[c.up.Host()]
}

// gets returns how often the registry was asked for the blob.
func (c *testCluster) gets(b testBlob) int {
	return c.up.Count(http.MethodGet, repo+"/blobs/"+b.String()) // in the repository that has it; others do not count
}

// wantGets fails the test unless the registry was asked for the blob n times.
func (c *testCluster) wantGets(b testBlob, n int) {
	c.t.Helper()
	if got := c.gets(b); got != n {
		c.t.Errorf("the registry was asked %d times for a blob of %d bytes, want %d", got, b.size, n)
	}
}
