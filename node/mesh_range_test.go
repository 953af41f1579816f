package node

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Ranges are the same through every node of a mesh: of a blob that no node has, that some
// have, and that all have.
func TestRangesInTheMesh(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for n := range rangeCases("") {
		content := fmt.Appendf(nil, "%010d", 1234567890-n)
		d := c.up.PutBlob(repo, content)
		tag := `"` + d.String() + `"`
		one := rangeCases(tag)[n]
		want := make([]byte, len(one.body)) // the same part of this content
		for i := range want {
			want[i] = content[bytes.IndexByte(ranged, one.body[i])]
		}
		c.everywhere(d, func(i int) {
			a := c.get(i, blobPath(d), "Range", one.spec, "If-Range", one.cond)
			a.want(t, one.status, "Content-Range", one.said, "Content-Length", strconv.Itoa(len(want)), "ETag", tag)
			if !bytes.Equal(a.body, want) {
				t.Errorf("%s, If-Range %q: %q, want %q", one.spec, one.cond, a.body, want)
			}
			c.do(http.MethodHead, i, blobPath(d), "Range", one.spec).want(t, 200, "Content-Range", "", "Content-Length", "10")
		})
	}
}

// Of a blob that no node gets whole for a range, ranges come from the registry by themselves.
func TestRangesOfALargeBlobInTheMesh(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	const size = 3 << 20
	for n, spec := range []string{
		"bytes=1000-1999", "bytes=0-0", "bytes=-1000", "bytes=3144728-", "bytes=100-", "bytes=3145727-9999999", "bytes=1000000-2200000",
		"bytes=3145728-", "bytes=9999999-99999999", "bytes=-0", "bytes=0-9,100-109,-10", "bytes=2000000-2000999,5-9,3145728-", "bytes=0-1500000,2000000-",
	} {
		content := random(uint64(500+n), size)
		d := c.up.PutBlob(repo, content)
		c.everywhere(d, func(i int) {
			a := c.get(i, blobPath(d), "Range", spec)
			if strings.Contains(spec, ",") {
				wantSpans(t, a, a.Request, content)
				return
			}
			status, said, body := oracle(spec, content)
			a.want(t, status, "Content-Range", said, "Content-Length", strconv.Itoa(len(body)))
			if !bytes.Equal(a.body, body) || a.err != nil {
				t.Errorf("%s: %d bytes, want %d, %v", spec, len(a.body), len(body), a.err)
			}
		})
	}
}

// everywhere asks each node, the blob's owner last; and once more when the node has the
// whole blob.
func (c *testCluster) everywhere(d digest.Digest, ask func(i int)) {
	c.t.Helper()
	order := c.order(d)
	for n := range order {
		ask(order[len(order)-1-n])
	}
	for _, i := range order {
		if a := c.get(i, blobPath(d)); digest.FromBytes(a.body) != d {
			c.t.Errorf("%s through node %d: %d bytes, %v", d, i, len(a.body), a.err)
		}
		ask(i)
	}
}
