package node

import (
	"fmt"
	"net/http"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

const (
	typeDocker     = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	everyType      = upstreamtest.TypeManifest + ", " + upstreamtest.TypeIndex + ", " + typeDocker + ", " + typeDockerList
)

// In an outage any manifest that the tag meant will do, if the client takes its type.
func TestStaleManifestsOfAnyAcceptedType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, held, before, now string
		status                  int
	}{
		{"one of its types", upstreamtest.TypeManifest, everyType, upstreamtest.TypeManifest, 200},
		{"one of its types, after any", typeDocker, "*/*", typeDocker, 200},
		{"any, after one", typeDocker, typeDocker, "*/*", 200},
		{"none, after one", typeDocker, typeDocker, "", 200},
		{"all, after one", upstreamtest.TypeManifest, upstreamtest.TypeManifest, everyType, 200},
		{"an index alone", upstreamtest.TypeIndex, everyType, upstreamtest.TypeIndex, 200},
		{"two types, after two others", typeDocker, typeDocker + ", " + typeSigned, typeDocker + ", application/vnd.oci.artifact.manifest.v1+json", 200},
		{"application/*", typeDocker, typeDocker, "application/*", 200},
		{"with quality", typeDocker, everyType, upstreamtest.TypeIndex + ";q=0.5, " + typeDocker + "; q=0.1", 200},
		{"a wildcard with quality", typeDocker, everyType, upstreamtest.TypeIndex + ", */*;q=0.1", 200},
		{"in capitals", typeDocker, everyType, "Application/VND.docker.distribution.manifest.v2+json", 200},
		{"no type of manifests", typeDocker, everyType, "application/json", 200},
		{"another type", typeDocker, everyType, upstreamtest.TypeIndex, 502},
		{"other types", upstreamtest.TypeIndex, everyType, typeDocker + ", " + upstreamtest.TypeManifest, 502},
		{"its type, but refused", typeDocker, everyType, typeDocker + ";q=0, " + upstreamtest.TypeIndex, 502},
		{"its type, refused with zeros", typeDocker, everyType, typeDocker + " ; Q = 0.000, " + upstreamtest.TypeIndex, 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			d := up.PutManifest(repo, "v1", c.held, []byte(`{"odd":1}`))
			s := settings{dir: t.TempDir()}
			p := newProxy(t, up, s)
			path := "/v2/" + repo + "/manifests/v1"
			p.get(path, "Accept", c.before).want(t, http.StatusOK)
			up.Down()
			ask := func() {
				t.Helper()
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					var header []string
					if c.now != "" {
						header = []string{"Accept", c.now}
					}
					a := p.do(method, path, header...)
					a.want(t, c.status)
					if c.status == http.StatusOK {
						a.want(t, c.status, "Content-Type", c.held, "Docker-Content-Digest", d.String(), "Cache-Status", "oci-proxy; fwd=stale; detail=stale-if-error")
					}
				}
			}
			ask()
			p.close()
			p = newProxy(t, up, s)
			ask()
		})
	}
}

// Of several the client's own comes first, then the one that was checked last.
func TestStaleManifestsOfSeveralTypes(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	image := up.PutManifest(repo, "v1", upstreamtest.TypeManifest, []byte(`{"v":1}`))
	p := newProxy(t, up, settings{})
	path := "/v2/" + repo + "/manifests/v1"
	p.get(path, "Accept", upstreamtest.TypeManifest).want(t, http.StatusOK)
	docker := up.PutManifest(repo, "v1", typeDocker, []byte(`{"v":2}`))
	p.get(path, "Accept", typeDocker).want(t, http.StatusOK)
	up.Down()
	for accept, want := range map[string]string{
		upstreamtest.TypeManifest: image.String(), typeDocker: docker.String(), "*/*": docker.String(), everyType: docker.String(),
		typeDocker + ", " + upstreamtest.TypeManifest: docker.String(),
	} {
		p.get(path, "Accept", accept).want(t, http.StatusOK, "Docker-Content-Digest", want)
	}
	p.get(path, "Accept", upstreamtest.TypeIndex).want(t, http.StatusBadGateway)
}

// So it is in a cluster, whichever node got the tag.
func TestMeshStaleManifestsOfAnAcceptedType(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	tags := map[string]string{}
	for i := range 6 {
		tag := fmt.Sprint("v", i)
		tags[tag] = c.up.PutManifest(repo, tag, typeDocker, fmt.Appendf(nil, `{"v":%d}`, i)).String()
		c.get(0, "/v2/"+repo+"/manifests/"+tag, "Accept", everyType).want(t, http.StatusOK)
	}
	c.up.Down()
	for tag, d := range tags {
		for i := range c.nodes {
			c.get(i, "/v2/"+repo+"/manifests/"+tag, "Accept", typeDocker).want(t, http.StatusOK, "Docker-Content-Digest", d, "Content-Type", typeDocker)
			c.get(i, "/v2/"+repo+"/manifests/"+tag, "Accept", upstreamtest.TypeIndex).want(t, http.StatusBadGateway)
		}
	}
}
