package node

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/upstreamtest"
)

// A large manifest goes from node to node without being read into memory, and arrives
// whole under every name.
func TestMeshLargeManifest(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	text := func(i int) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":2,"mediaType":%q},"layers":[],"annotations":{"n":"%d","pad":%q}}`,
			upstreamtest.TypeManifest, digest.FromString("{}"), upstreamtest.TypeConfig, i, bytes.Repeat([]byte("x"), 2_000_000))
	}
	for i := range 3 { // owned by one node or another
		large := text(i)
		long := digest.SHA512.FromBytes(large)
		d := c.up.PutManifest(repo, fmt.Sprint("v", i), upstreamtest.TypeManifest, large)
		c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: long.String()}, Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", upstreamtest.TypeManifest)
			_, _ = w.Write(large)
			return true
		}})
		for _, name := range []string{fmt.Sprint("v", i), d.String(), long.String()} {
			for node := range c.nodes {
				a := c.get(node, "/v2/"+repo+"/manifests/"+name)
				if a.want(t, http.StatusOK, "Content-Type", upstreamtest.TypeManifest); !bytes.Equal(a.body, large) {
					t.Errorf("%s at node %d: %d bytes", name, node, len(a.body))
				}
			}
		}
		for _, name := range []string{d.String(), long.String()} {
			if n := c.up.Count(http.MethodGet, name); n != 1 {
				t.Errorf("the registry was asked for %s %d times", name, n)
			}
		}
	}
}
