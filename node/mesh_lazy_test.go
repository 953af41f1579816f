package node

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// Each node has readers of the same few bytes: the registry is asked once, by the blob's
// owner. That the owner dies then costs another request, and no reader anything.
func TestMeshAsksForARangeOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, upstreamtest.New(t), func(int) form { return form{} })
	b := c.blobOf(1, 4*mib)
	content := c.bytes(b)
	read := func(i int, spec string, want []byte) {
		resp, err := c.ask(http.MethodGet, i, blobPath(b.Digest), "Range", spec)
		if err != nil {
			t.Error(err)
			return
		}
		if a := read(resp); a.StatusCode != http.StatusPartialContent || !bytes.Equal(a.body, want) {
			t.Errorf("node %d, %s: status %d, %d bytes, %v", i, spec, a.StatusCode, len(a.body), a.err)
		}
	}
	release := c.up.Hold(upstreamtest.Match{Method: http.MethodGet})
	var wg sync.WaitGroup
	for i := range 20 * len(c.nodes) {
		wg.Go(func() { read(i%len(c.nodes), "bytes=-10000", content[4*mib-10000:]) })
	}
	c.up.WaitFor(upstreamtest.Match{Method: http.MethodGet}, 1)
	release()
	wg.Wait()
	read(0, "bytes=1000-1200000", content[1000:1200001]) // more than a piece
	if n := c.up.BytesSent(); n > 1220000 {
		t.Errorf("the registry sent %d bytes", n)
	}
	c.wantGets(b, 3)
	c.kill(1)
	for _, i := range []int{0, 2} {
		read(i, "bytes=5-104", content[5:105])
	}
}

// A node gets a range from the owner's shard, and from what the owner has of a download.
func TestMeshServesRangesOfWhatTheOwnerHas(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, upstreamtest.New(t), func(int) form { return form{} })
	b := c.blobOf(1, 6*mib)
	content := c.bytes(b)
	release := c.gated(b)
	arriving, err := c.ask(http.MethodGet, 1, blobPath(b.Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = arriving.Body.Close() }()
	whole := make([]byte, len(content))
	if _, err := io.ReadFull(arriving.Body, whole[:2*mib]); err != nil { // so much has the owner got for sure
		t.Fatal(err)
	}
	for spec, want := range map[string][]byte{"bytes=1000000-1000999": content[1000000:1001000], "bytes=-1000": content[6*mib-1000:]} {
		if a := c.get(0, blobPath(b.Digest), "Range", spec); a.StatusCode != http.StatusPartialContent || !bytes.Equal(a.body, want) {
			t.Errorf("%s: status %d, %d bytes", spec, a.StatusCode, len(a.body))
		}
	}
	release()
	if _, err := io.ReadFull(arriving.Body, whole[2*mib:]); err != nil || !bytes.Equal(whole, content) {
		t.Fatalf("the pull: %v", err)
	}
	c.up.Down()
	a := c.get(0, blobPath(b.Digest), "Range", "bytes=2000000-2000999")
	a.want(t, http.StatusPartialContent, "Cache-Status", "node-1; hit, node-0; fwd=uri-miss")
	if !bytes.Equal(a.body, content[2000000:2001000]) {
		t.Error("wrong bytes")
	}
	c.wantGets(b, 2)
}

// The owner died, and a node that has just joined is asked: the range comes from the one
// that has the blob.
func TestMeshFindsARangeAtAnotherHolder(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	b := c.blobOf(1, 4*mib)
	c.pull(0, b).wantWhole(t)
	c.kill(1)
	i := c.join()
	c.awaitMembersOf(i, 2)
	sent := c.up.BytesSent()
	a := c.get(i, blobPath(b.Digest), "Range", "bytes=-1000")
	a.want(t, http.StatusPartialContent)
	if content := c.bytes(b); !bytes.Equal(a.body, content[4*mib-1000:]) || c.up.BytesSent() != sent {
		t.Errorf("the registry sent %d bytes", c.up.BytesSent()-sent)
	}
}
