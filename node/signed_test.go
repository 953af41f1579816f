package node

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/upstreamtest"
)

const typeSigned = "application/vnd.docker.distribution.manifest.v1+prettyjws"

// signed returns a schema 1 manifest with a signature, and the digest that registries
// know it by: that of what was signed.
func signed(name string) (manifest string, d digest.Digest) {
	payload := fmt.Sprintf("{\n   \"schemaVersion\": 1,\n   \"name\": %q,\n   \"fsLayers\": []\n}", name)
	enc := base64.RawURLEncoding.EncodeToString
	header := fmt.Sprintf(`{"formatLength":%d,"formatTail":%q}`, len(payload)-2, enc([]byte("\n}")))
	manifest = payload[:len(payload)-2] + fmt.Sprintf(",\n   \"signatures\": [{\"signature\":\"c2ln\",\"protected\":%q}]\n}", enc([]byte(header)))
	return manifest, digest.FromString(payload)
}

// serveSigned makes up answer requests for that manifest, by a tag or its digest.
func serveSigned(up *upstreamtest.Registry, tag, manifest, mediaType string, d digest.Digest) {
	up.PutImage(repo, "v1", []byte("layer"))
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/manifests/"}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/"+tag) && !strings.HasSuffix(r.URL.Path, d.String()) {
			return false
		}
		w.Header().Set("Docker-Content-Digest", d.String())
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
		if r.Method != http.MethodHead {
			_, _ = w.Write([]byte(manifest))
		}
		return true
	}})
}

// A signed manifest is served as it came, under the digest of what was signed.
func TestSignedManifests(t *testing.T) {
	t.Parallel()
	for _, mediaType := range []string{typeSigned, "application/json", "text/plain; charset=utf-8"} {
		up := upstreamtest.New(t)
		manifest, d := signed("org/app")
		serveSigned(up, "signed", manifest, mediaType, d)
		p := newProxy(t, up, settings{})
		for range 2 {
			for _, ref := range []string{"signed", d.String()} {
				path := "/v2/" + repo + "/manifests/" + ref
				a := p.get(path)
				a.want(t, http.StatusOK, "Docker-Content-Digest", d.String(), "Content-Length", fmt.Sprint(len(manifest)))
				if string(a.body) != manifest {
					t.Errorf("%s: %q", ref, a.body)
				}
				p.do(http.MethodHead, path).want(t, http.StatusOK, "Docker-Content-Digest", d.String(), "Content-Length", fmt.Sprint(len(manifest)))
			}
		}
	}
}

// No byte leaves of one that is not what its digest names.
func TestForgedSignedManifests(t *testing.T) {
	t.Parallel()
	manifest, d := signed("org/app")
	for name, forged := range map[string]string{
		"another name":          strings.Replace(manifest, "org/app", "org/evl", 1),
		"another field":         strings.Replace(manifest, `"signatures"`, `"architecture":"evil","signatures"`, 1),
		"a field twice":         strings.Replace(manifest, `"signatures"`, `"fsLayers":[{"blobSum":"evil"}],"signatures"`, 1),
		"no signature":          manifest[:strings.Index(manifest, ",\n   \"sig")] + "\n} ",
		"signed by nobody":      strings.Replace(manifest, "protected", "protect3d", 1),
		"another schema's mark": strings.Replace(manifest, `"schemaVersion": 1`, `"schemaVersion": 2`, 1),
	} {
		up := upstreamtest.New(t)
		serveSigned(up, "signed", forged, typeSigned, d)
		p := newProxy(t, up, settings{})
		for _, ref := range []string{"signed", d.String()} {
			a := p.get("/v2/" + repo + "/manifests/" + ref)
			a.want(t, http.StatusBadGateway)
			if strings.Contains(string(a.body), "fsLayers") {
				t.Errorf("%s: a client got %q", name, a.body)
			}
		}
	}
}

// Nodes get it from each other too.
func TestMeshSignedManifests(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	manifest, d := signed("org/app")
	serveSigned(up, "signed", manifest, typeSigned, d)
	c := formCluster(t, 3, up, func(i int) form {
		return form{cluster: fmt.Sprintf("secret: %q%s", meshSecret, map[bool]string{true: ", egress: false"}[i == 2])}
	})
	for i := range c.nodes {
		for _, ref := range []string{"signed", d.String()} {
			a := c.get(i, "/v2/"+repo+"/manifests/"+ref)
			a.want(t, http.StatusOK, "Docker-Content-Digest", d.String(), "Content-Type", typeSigned)
			if string(a.body) != manifest {
				t.Errorf("node %d, %s: %q", i, ref, a.body)
			}
		}
	}
}
