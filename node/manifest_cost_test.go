package node

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/upstreamtest"
)

// allocated is how many bytes each of n calls of do allocates, in all goroutines. It
// counts only in a test that runs alone.
func allocated(n int, do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		do()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / uint64(n)
}

// An answer without a body costs next to nothing however large the manifest is, and
// whatever size others say it has. It does not run in parallel: it counts memory.
func TestNothingIsReadForAnAnswerWithoutABody(t *testing.T) {
	const most = 200 << 10 // client, node and registry together
	for _, registry := range []string{"", "private: true"} {
		for _, size := range []string{"5", "4000000000", "-1", "1e99", `"x"`, "null"} {
			t.Run(fmt.Sprint(registry, " size ", size), func(t *testing.T) {
				up := upstreamtest.New(t)
				large := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":2,"mediaType":%q},"layers":[],"annotations":{"pad":%q}}`,
					upstreamtest.TypeManifest, digest.FromString("{}"), upstreamtest.TypeConfig, strings.Repeat("x", 3_900_000))
				d := up.PutManifest(repo, "v1", upstreamtest.TypeManifest, large)
				up.PutManifest(repo, "index", upstreamtest.TypeIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"digest":%q,"size":%s,"mediaType":%q}]}`,
					upstreamtest.TypeIndex, d, size, upstreamtest.TypeManifest))
				p := newProxy(t, up, settings{registry: registry})
				byTag, byDigest := "/v2/"+repo+"/manifests/v1", "/v2/"+repo+"/manifests/"+d.String()
				for _, path := range []string{"/v2/" + repo + "/manifests/index", byDigest, byTag, "/v2/" + repo + "/manifests/index", byTag} {
					p.get(path).want(t, http.StatusOK)
				}
				for _, path := range []string{byTag, byDigest} {
					if n := allocated(20, func() { p.get(path, "If-None-Match", `"`+d.String()+`"`).want(t, http.StatusNotModified) }); n > most {
						t.Errorf("each 304 of %s takes %d bytes", path, n)
					}
					if n := allocated(20, func() {
						if a := p.do(http.MethodHead, path); a.StatusCode != http.StatusOK || a.ContentLength != int64(len(large)) {
							t.Errorf("HEAD of %s: %d, %d bytes", path, a.StatusCode, a.ContentLength)
						}
					}); n > most {
						t.Errorf("each HEAD of %s takes %d bytes", path, n)
					}
				}
			})
		}
	}
}
