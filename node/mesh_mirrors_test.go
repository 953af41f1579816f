package node

import (
	"fmt"
	"net/http"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// Where the registry is down its mirrors are reached by the way out of whoever has one.
func TestMeshReachesMirrorsByWayOfAMember(t *testing.T) {
	t.Parallel()
	mirror := upstreamtest.New(t)
	c := formCluster(t, 3, upstreamtest.New(t), func(i int) form {
		return form{
			settings: settings{defaults: "insecure: true", registry: fmt.Sprintf("mirrors: [%q]", mirror.Host())},
			cluster:  fmt.Sprintf("secret: %q%s", meshSecret, map[bool]string{true: "", false: ", egress: false"}[i == 0]),
		}
	})
	c.up.Down()
	for i := range c.nodes {
		layer := random(uint64(10+i), 300_000)
		c.get(i, "/v2/"+repo+"/manifests/v1").want(t, http.StatusBadGateway) // which only the registry can tell
		img := mirror.PutImage(repo, "v1", layer)
		c.tryPull(i, img.Layers[0]).wantWhole(t)
		c.get(i, "/v2/"+repo+"/manifests/"+img.Manifest.String()).want(t, http.StatusOK)
	}
}

// Mirrors do not keep a blob of the registry from coming by the ways out of all nodes.
func TestMeshLanesGoByAllWaysBesideMirrors(t *testing.T) {
	t.Parallel()
	mirror := upstreamtest.New(t)
	c := formCluster(t, 3, upstreamtest.New(t), func(int) form {
		return form{settings: settings{defaults: "insecure: true", registry: fmt.Sprintf("upstream_connections: 4, mirrors: [%q]", mirror.Host())}}
	})
	mirror.Down()
	c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/"}, SlowBytesPerSecond: 4 * mib})
	b := c.blobOf(1, 16*mib)
	c.tryPull(1, b.Digest).wantWhole(t)
	if n := ways(c, b); n != 3 {
		t.Errorf("the registry was asked by %d nodes", n)
	}
}
