package node

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/upstreamtest"
)

// kinds are manifests with the type that a registry tells, and the one that clients get.
var kinds = map[string]struct{ told, body, want string }{
	"an artifact of ORAS": {
		"application/vnd.cncf.oras.artifact.manifest.v1+json", `{"mediaType":"application/vnd.cncf.oras.artifact.manifest.v1+json","blobs":[]}`,
		"application/vnd.cncf.oras.artifact.manifest.v1+json",
	},
	"a type of its own, told alone": {"application/vnd.example.thing.v1+json", `{"thing":1}`, "application/vnd.example.thing.v1+json"},
	"Docker's without mediaType": {
		"application/vnd.docker.distribution.manifest.v2+json", `{"schemaVersion":2,"config":{},"layers":[]}`,
		"application/vnd.docker.distribution.manifest.v2+json",
	},
	"Docker's without mediaType, as JSON": {
		"application/json", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json"},"layers":[]}`,
		"application/vnd.docker.distribution.manifest.v2+json",
	},
	"an index as text":         {"text/plain; charset=utf-8", `{"mediaType":"` + upstreamtest.TypeIndex + `","manifests":[]}`, upstreamtest.TypeIndex},
	"an index without a type":  {"application/octet-stream", `{"schemaVersion":2,"manifests":[]}`, upstreamtest.TypeIndex},
	"an image as a page":       {"text/html", `{"mediaType":"` + upstreamtest.TypeManifest + `","layers":[]}`, upstreamtest.TypeManifest},
	"an artifact as JSON":      {"application/json", `{"mediaType":"application/vnd.example.artifact+json"}`, "application/vnd.example.artifact+json"},
	"anything as octet-stream": {"application/octet-stream", `{"odd":1}`, "application/json"},
}

// A manifest has one media type, from the registry and from the disk, by tag and by
// digest, for GET and HEAD, and after a restart.
func TestManifestsHaveOneMediaType(t *testing.T) {
	t.Parallel()
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			d := up.PutManifest(repo, "v1", k.told, []byte(k.body))
			s := settings{dir: t.TempDir()}
			ask := func(p *proxy) {
				t.Helper()
				for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodHead} {
					for _, ref := range []string{"v1", d.String()} {
						p.do(method, "/v2/"+repo+"/manifests/"+ref).want(t, http.StatusOK, "Content-Type", k.want, "Docker-Content-Digest", d.String())
					}
				}
			}
			p := newProxy(t, up, s)
			ask(p)
			p.close()
			p = newProxy(t, up, s)
			ask(p)
			up.Down()
			ask(p)
		})
	}
}

// And from each node, though only one of them asked the registry.
func TestMeshManifestsHaveOneMediaType(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	c := formCluster(t, 3, up, func(i int) form {
		return form{cluster: fmt.Sprintf("secret: %q%s", meshSecret, map[bool]string{true: ", egress: false"}[i == 2])}
	})
	digests := map[string]digest.Digest{}
	ask := func() {
		t.Helper()
		for name, k := range kinds {
			for i := range c.nodes {
				for _, method := range []string{http.MethodHead, http.MethodGet} {
					for _, ref := range []string{digests[name].Encoded()[:12], digests[name].String()} {
						c.do(method, i, "/v2/"+repo+"/manifests/"+ref).want(t, http.StatusOK, "Content-Type", k.want)
					}
				}
			}
		}
	}
	for name, k := range kinds {
		digests[name] = digest.FromString(k.body)
		up.PutManifest(repo, digests[name].Encoded()[:12], k.told, []byte(k.body))
	}
	ask()
	ask()
	up.Down()
	ask()
}
