package node

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/transfer/upstreamtest"
)

func TestMeshUpstreamFailsWhileItIsDown(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	known, unknown := c.blobOf(0, 1000), c.blobOf(0, 1000)
	c.pull(1, known)
	c.up.Down()
	for i := range c.nodes {
		c.pull(i, known)
		start := time.Now()
		d := c.get(i, blobPath(unknown.Digest)).wantError(t, http.StatusBadGateway, "UNAVAILABLE")
		if d.Reason == "" || d.Registry != c.up.Host() {
			t.Errorf("detail %+v", d)
		}
		t.Logf("node %d: %v, %+v", i, time.Since(start), d)
	}
	for i := range c.nodes { // no node is blamed for a registry that is down
		for _, other := range c.nodes {
			if other.i != i && !c.nodes[i].node.cluster.Client().Healthy(other.node.cluster.Members().View().Self.ID) {
				t.Errorf("node %d passes over node %d", i, other.i)
			}
		}
	}
}

func TestMeshUpstreamFailsWithWrongBytes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 4*mib)
	c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: b.String()}, Corrupt: true, CorruptAt: mib})
	_, third := c.others(b)
	if p := c.tryPull(third, b.Digest); p.code == http.StatusOK && p.err == nil {
		t.Errorf("a client got %d bytes and no error", p.n)
	}
	for _, one := range c.nodes {
		if s := c.own(one.i); s[figures.Items] != 0 {
			t.Errorf("%s keeps it", one.name)
		}
	}
	if n := c.gets(b); n > 8 {
		t.Errorf("the registry was asked %d times", n)
	}
	c.up.ClearFaults()
	c.pull(third, b)
}

func TestMeshUpstreamFailsWith429(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 1000)
	c.up.Fault(upstreamtest.Fault{
		Match: upstreamtest.Match{PathPart: b.String()}, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"77"}},
	})
	for i := range c.nodes {
		a := c.get(i, blobPath(b.Digest))
		d := a.wantError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
		t.Logf("node %d: Retry-After %q, %+v", i, a.Header.Get("Retry-After"), d)
		if a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if n := c.gets(b); n > 3 {
		t.Errorf("the registry was asked %d times by three clients", n)
	}
}

func TestMeshUpstreamFailsInMidBodyAndIsSlow(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 4*mib)
	blob := upstreamtest.Match{Method: http.MethodGet, PathPart: b.String()}
	c.up.Fault(upstreamtest.Fault{Match: blob, Times: 1, CutAfter: mib})
	c.up.Fault(upstreamtest.Fault{Match: blob, SlowBytesPerSecond: mib})
	_, third := c.others(b)
	c.pull(third, b) // a slow registry is not a hung owner: no other node asks
	c.wantGets(b, 2)
	if sent := c.up.BytesSent(); sent > b.size+mib {
		t.Errorf("the registry sent %d bytes of %d", sent, b.size)
	}
}

// When a registry answers slowly for a tag or a list, the owner does not count as hung.
func TestMeshSlowTag(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.up.PutImage(repo, "slow", random(1, 1000))
	for _, path := range []string{"/manifests/slow", "/tags/list"} {
		c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: path}, Wrap: func(_ http.ResponseWriter, r *http.Request) bool {
			select {
			case <-time.After(3 * time.Second): // longer than a peer may take for a sign of life
			case <-r.Context().Done():
			}
			return false
		}})
	}
	var wg sync.WaitGroup
	for i := range c.nodes {
		for _, path := range []string{"manifests/slow", "tags/list"} {
			wg.Go(func() {
				if a := c.get(i, "/v2/"+c.up.Host()+"/"+repo+"/"+path); a.StatusCode != http.StatusOK {
					t.Errorf("node %d, %s: %d %s", i, path, a.StatusCode, a.body)
				}
			})
		}
	}
	wg.Wait()
	if n := c.up.Count(http.MethodHead, "/manifests/slow"); n != 1 {
		t.Errorf("the registry was asked %d times for one tag", n)
	}
	for i, n := range c.nodes {
		if log := n.log.String(); strings.Contains(log, "quarantined") {
			t.Errorf("node %d passes another over: %s", i, log)
		}
	}
}

func TestMeshClientDisconnects(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 8*mib)
	release := c.gated(b)
	_, third := c.others(b)
	resp, err := c.ask(http.MethodGet, third, blobPath(b.Digest))
	if err != nil {
		t.Fatal(err)
	}
	stays := c.began(0, b)
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	release()
	(<-stays).wantWhole(t)
	c.pull(third, b)
	c.wantGets(b, 1)
}
