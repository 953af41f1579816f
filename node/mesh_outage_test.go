package node

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// What a registry said is known after all nodes were killed and one of them lost its
// disk, though clients had asked that one alone.
func TestMeshKnowsTagsAfterADiskIsLost(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]string{"public": "", "private": "private: true"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			c := formCluster(t, 3, up, func(int) form { return form{settings: settings{registry: private}} })
			const many = 6 // tags, each owned by one node or another
			for i := range many {
				up.PutImage(repo, fmt.Sprint("v", i), []byte("layer"), fmt.Append(nil, i))
			}
			manifests := "/v2/" + repo + "/manifests/"
			for i := range many {
				c.get(0, manifests+fmt.Sprint("v", i)).want(t, http.StatusOK)
				c.get(0, manifests+fmt.Sprint("none", i)).want(t, http.StatusNotFound)
			}
			list := "/v2/" + repo + "/tags/list"
			c.get(0, list).want(t, http.StatusOK)
			c.await("another node knows all that the first does", func() bool {
				for i := range many {
					for _, tag := range []string{fmt.Sprint("v", i), fmt.Sprint("none", i)} {
						if !c.knownBut(0, oci.Question{Ref: oci.Ref{Registry: up.Host(), Repository: repo, Tag: tag}, Accept: oci.ManifestTypes}) {
							return false
						}
					}
				}
				return c.knownBut(0, oci.Question{Ref: oci.Ref{Registry: up.Host(), Repository: repo}})
			})
			up.Down()
			for i := range c.nodes {
				c.kill(i)
			}
			if err := os.RemoveAll(c.nodes[0].dir); err != nil {
				t.Fatal(err)
			}
			for i := range c.nodes {
				c.start(i)
			}
			c.awaitMembers(3)
			for node := range c.nodes {
				for i := range many {
					c.do(http.MethodHead, node, manifests+fmt.Sprint("v", i)).want(t, http.StatusOK, "Warning", "299 - \"stale: "+up.Host()+"/"+repo+":v"+fmt.Sprint(i)+" was last checked before the registry failed\"")
					c.get(node, manifests+fmt.Sprint("none", i)).want(t, http.StatusNotFound)
				}
				a := c.get(node, list)
				if a.want(t, http.StatusOK); !strings.Contains(string(a.body), "v5") {
					t.Errorf("node %d: the list is %s", node, a.body)
				}
			}
		})
	}
}

// knownBut reports whether a node but that one knows the registry's last answer to q.
func (c *testCluster) knownBut(but int, q oci.Question) bool {
	for _, one := range c.running() {
		if one.i == but {
			continue
		}
		if _, known := one.node.fetcher.Holder().LastWord(q); known {
			return true
		}
	}
	return false
}
