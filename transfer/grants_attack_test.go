package transfer_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

const strangersRepo = "strangers/app"

// attacks lists manifests that a stranger may push to a repository of its own. They name
// the victim's content in places that registries do not check. own is a descriptor of
// content that the stranger's repository holds.
func attacks(own string, victim digest.Digest) map[string]struct{ mediaType, manifest string } {
	v := fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":%q,"size":3}`, victim)
	const (
		image      = upstreamtest.TypeManifest
		index      = "application/vnd.oci.image.index.v1+json"
		docker     = "application/vnd.docker.distribution.manifest.v2+json"
		dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
		artifact   = "application/vnd.oci.artifact.manifest.v1+json"
		foreign    = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		withheld   = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
	)
	of := func(mediaType, more string) string {
		return `{"schemaVersion":2,"mediaType":"` + mediaType + `","config":` + own + `,"layers":[` + own + `]` + more + `}`
	}
	bare := func(more string) string { return `{"schemaVersion":2,"config":` + own + more + `}` }
	foreignly := func(mediaType string) string { return strings.Replace(v, "application/octet-stream", mediaType, 1) }
	return map[string]struct{ mediaType, manifest string }{
		"blobs in an image":                   {image, of(image, `,"blobs":[`+v+`]`)},
		"manifests in an image":               {image, of(image, `,"manifests":[`+v+`]`)},
		"blobs in Docker's image":             {docker, of(docker, `,"blobs":[`+v+`],"manifests":[`+v+`]`)},
		"a subject":                           {image, of(image, `,"subject":`+v)},
		"an annotation":                       {image, of(image, `,"annotations":{"layers":`+v+`}`)},
		"layers and config in an index":       {index, `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[],"config":` + v + `,"layers":[` + v + `],"blobs":[` + v + `]}`},
		"layers in Docker's list":             {dockerList, `{"schemaVersion":2,"mediaType":"` + dockerList + `","manifests":[],"layers":[` + v + `]}`},
		"a sparse index, for a blob":          {index, `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[` + v + `]}`},
		"layers in an artifact":               {artifact, `{"mediaType":"` + artifact + `","blobs":[],"layers":[` + v + `]}`},
		"a key in capitals":                   {image, bare(`,"LAYERS":[` + v + `]`)},
		"a key twice":                         {image, bare(`,"layers":[` + v + `],"layers":[` + own + `]`)},
		"a key twice, the other way":          {image, bare(`,"layers":[` + own + `],"layers":[` + v + `]`)},
		"a key in two cases":                  {image, bare(`,"layers":[` + own + `],"Layers":[` + v + `]`)},
		"a key in two cases, the other way":   {image, bare(`,"layers":[` + v + `],"lAyers":[` + own + `]`)},
		"a key that only folds":               {image, bare(`,"layers":[` + v + `],"layerſ":[` + own + `]`)},
		"a key escaped":                       {image, bare(`,"layers":[` + v + `],"l\u0061yers":[` + own + `]`)},
		"a digest twice":                      {image, bare(`,"layers":[{"digest":"` + string(victim) + `","digest":` + own[strings.Index(own, `"sha256`):strings.Index(own, `,"size`)] + `}]`)},
		"urls":                                {image, bare(`,"layers":[` + strings.Replace(v, `"size"`, `"urls":["https://a.example/x"],"size"`, 1) + `]`)},
		"urls that are empty":                 {image, bare(`,"layers":[` + strings.Replace(v, `"size"`, `"urls":[],"size"`, 1) + `]`)},
		"a foreign layer":                     {docker, of(docker, "")[:1] + `"schemaVersion":2,"mediaType":"` + docker + `","config":` + own + `,"layers":[` + foreignly(foreign) + `]}`},
		"a layer that is not distributable":   {image, bare(`,"layers":[` + foreignly(withheld) + `]`)},
		"the same with a parameter":           {image, bare(`,"layers":[` + foreignly(strings.ToUpper(withheld)+"; x=y") + `]`)},
		"an index that is called an image":    {image, `{"schemaVersion":2,"mediaType":"` + index + `","config":` + v + `,"layers":[` + v + `]}`},
		"an image that is called an index":    {index, of(image, "")[:1] + `"schemaVersion":2,"mediaType":"` + image + `","manifests":[` + v + `]}`},
		"an image of no known type":           {"application/vnd.stranger+json", bare(`,"layers":[` + v + `]`)},
		"signed, with layers":                 {"application/vnd.docker.distribution.manifest.v1+prettyjws", bare(`,"layers":[` + v + `]`)},
		"more than one document":              {image, of(image, "") + bare(`,"layers":[`+v+`]`)},
		"a config that is a list":             {image, `{"schemaVersion":2,"config":[` + v + `],"layers":[` + own + `]}`},
		"layers that are no list":             {image, bare(`,"layers":{"0":` + v + `}`)},
		"layers inside a layer":               {image, bare(`,"layers":[[` + v + `]]`)},
		"a digest with space around":          {image, bare(`,"layers":[` + strings.Replace(v, string(victim), " "+string(victim), 1) + `]`)},
		"a digest in capitals":                {image, bare(`,"layers":[` + strings.Replace(v, victim.Encoded(), strings.ToUpper(victim.Encoded()), 1) + `]`)},
		"a descriptor in two cases":           {image, bare(`,"layers":[{"digest":"` + string(victim) + `","Digest":"x"}]`)},
		"a type whose name has a parameter":   {image + "; x=" + index, `{"schemaVersion":2,"manifests":[` + v + `]}`},
		"a type in capitals":                  {strings.ToUpper(image), bare(`,"layers":[` + v + `]`)},
		"a type with which nobody is content": {"application/json", bare(`,"layers":[` + v + `]`)},
	}
}

// Whatever a stranger writes in its own manifest, it gets no content of another
// repository by that: no blob and no manifest, by GET or by HEAD, at any node, in an
// outage or not.
func TestAManifestOfAStrangerOpensNothing(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 2, setup{private: all, policy: grants.Site{StaleIfError: 24 * time.Hour}})
	m.alone()
	img, layer := m.held(0, 51)
	m.nodes[1].holds([]int{0})
	own := []byte("own")
	ownLayer := fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":%q,"size":3}`, m.registry.PutBlob(strangersRepo, own))
	victims := []digest.Digest{img.Layers[0], img.Config, img.Manifest}
	tag := 0
	if testing.Short() {
		victims = victims[:1]
	}
	for _, victim := range victims {
		for name, a := range attacks(ownLayer, victim) {
			tag++
			d := m.registry.PutManifest(strangersRepo, fmt.Sprint("v", tag), a.mediaType, []byte(a.manifest))
			for _, n := range m.nodes {
				byTag := in(n.tag(fmt.Sprint("v", tag)), strangersRepo)
				_, err := n.Manifest(t.Context(), byTag, nil, false)
				_, again := n.Manifest(t.Context(), in(n.ref(d), strangersRepo), nil, false)
				if (err != nil || again != nil) && a.mediaType == upstreamtest.TypeManifest && !strings.Contains(name, "more than") {
					t.Errorf("%s: the stranger does not get its own content: %v, %v", name, err, again)
				}
			}
			if got := m.opened(victim, layer, m.nodes[tag%2]); got != "" {
				t.Errorf("%s gives the stranger %s as %s", name, victim, got)
			}
		}
	}
	m.registry.Down()
	for _, victim := range victims {
		if got := m.opened(victim, layer, m.nodes...); got != "" {
			t.Errorf("in the outage the stranger gets %s as %s", victim, got)
		}
	}
	if _, _, err := m.nodes[0].pull(m.nodes[0].ref(img.Layers[0]), layer, 0, -1); err != nil {
		t.Errorf("the owner does not get its own content: %v", err)
	}
}

// opened says how a stranger gets the victim's content, "" if it does not.
func (m *meshRig) opened(victim digest.Digest, layer []byte, nodes ...*meshNode) string {
	for _, n := range nodes {
		ref := in(n.ref(victim), strangersRepo)
		if _, _, err := n.pull(ref, layer, 0, -1); err == nil {
			return fmt.Sprintf("a blob at %s", n.name())
		}
		if s, err := n.StatBlob(m.t.Context(), ref); err == nil {
			return fmt.Sprintf("a size, %d, at %s", s.Size, n.name())
		}
		for _, head := range []bool{false, true} {
			if _, err := n.Manifest(m.t.Context(), ref, nil, head); err == nil {
				return fmt.Sprintf("a manifest at %s, HEAD %v", n.name(), head)
			}
		}
	}
	return ""
}

// mine is a private image that each node of a mesh of three holds.
func mine(t *testing.T, seed uint64, options ...upstreamtest.Option) (*meshRig, upstreamtest.Image, []byte) {
	t.Helper()
	m := newMesh(t, 3, setup{private: all, policy: grants.Site{StaleIfError: 24 * time.Hour}, options: options})
	img, layer := m.held(0, seed)
	for i, n := range m.nodes {
		n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
		m.pull(i, img.Layers[0], layer)
	}
	return m, img, layer
}

// wantServed fails the test unless every node serves the image while the registry is
// down.
func (m *meshRig) wantServed(img upstreamtest.Image, layer []byte) {
	m.t.Helper()
	m.registry.ClearFaults()
	m.registry.Down()
	defer m.registry.Up()
	for i, n := range m.nodes {
		found, err := n.Manifest(m.t.Context(), n.tag("v1"), nil, false)
		if err != nil || !bytes.Equal(found.Bytes, img.ManifestBytes) {
			m.t.Errorf("node %d, the tag in the outage: %v", i, err)
		}
		if _, err := n.Manifest(m.t.Context(), n.ref(img.Manifest), nil, false); err != nil {
			m.t.Errorf("node %d, the manifest in the outage: %v", i, err)
		}
		if _, _, err := n.pull(n.ref(img.Layers[0]), layer, 0, -1); err != nil {
			m.t.Errorf("node %d, the layer in the outage: %v", i, err)
		}
	}
}

// wantNothingTold fails the test if a node told another of a revocation.
func (m *meshRig) wantNothingTold() {
	m.t.Helper()
	for i, n := range m.nodes {
		if told := n.events.text(); strings.Contains(told, toldOf) || strings.Contains(told, toldOfALoss) {
			m.t.Errorf("node %d was told of a revocation", i)
		}
	}
}

// A user who may pull but not list asks for a list. That revokes no grant.
func TestARefusedListTakesNothingBack(t *testing.T) {
	t.Parallel()
	const ociError = `{"errors":[{"code":"DENIED","message":"no"}]}`
	for _, status := range []int{401, 403, 404} {
		for name, header := range map[string]http.Header{
			"as JSON":          {"Content-Type": {"application/json"}},
			"with the API's":   {"Docker-Distribution-Api-Version": {"registry/2.0"}},
			"with a challenge": {"Www-Authenticate": {`Basic realm="x"`}, "Content-Type": {"application/json"}},
		} {
			t.Run(fmt.Sprint(status, " ", name), func(t *testing.T) {
				t.Parallel()
				m, img, layer := mine(t, 52)
				for _, part := range []string{"/tags/list", "/referrers/"} {
					m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: part}, Status: status, Header: header, Body: ociError})
				}
				for i, n := range m.nodes {
					if _, err := n.Tags(t.Context(), n.tag(""), ""); err == nil {
						t.Errorf("node %d lists tags", i)
					}
					if _, err := n.Referrers(t.Context(), n.ref(img.Manifest), ""); err == nil {
						t.Errorf("node %d lists referrers", i)
					}
					if _, err := m.nodes[(i+1)%3].Holder().List(t.Context(), oci.Question{Ref: n.tag("")}); err == nil {
						t.Errorf("node %d lists tags for a member", i)
					}
				}
				m.wantServed(img, layer)
				m.wantNothingTold()
			})
		}
	}
}

// An answer from storage, from a CDN or from a middlebox revokes no grant at any node.
func TestARefusalOfAnybodyElseTakesNothingBack(t *testing.T) {
	t.Parallel()
	const (
		expired = `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`
		skewed  = `<?xml version="1.0"?><Error><Code>RequestTimeTooSkewed</Code></Error>`
		page    = `<!DOCTYPE html><html><title>403 Forbidden</title>The request is blocked.</html>`
		forged  = `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`
	)
	xml, html := http.Header{"Content-Type": {"application/xml"}}, http.Header{"Content-Type": {"text/html"}, "Docker-Distribution-Api-Version": nil}
	api := http.Header{"Content-Type": {"application/json"}, "Docker-Distribution-Api-Version": {"registry/2.0"}}
	for name, f := range map[string]upstreamtest.Fault{
		"the signature has expired":         {Match: upstreamtest.Match{Server: "cdn"}, Status: 403, Header: xml, Body: expired},
		"the clock is wrong":                {Match: upstreamtest.Match{Server: "cdn"}, Status: 403, Header: xml, Body: skewed},
		"the CDN blocks":                    {Match: upstreamtest.Match{Server: "cdn"}, Status: 403, Header: html, Body: page},
		"the CDN wants a login":             {Match: upstreamtest.Match{Server: "cdn"}, Status: 401, Header: http.Header{"Www-Authenticate": {`Basic realm="cdn"`}}},
		"the CDN has lost it":               {Match: upstreamtest.Match{Server: "cdn"}, Status: 404, Header: xml, Body: expired},
		"the CDN speaks as a registry":      {Match: upstreamtest.Match{Server: "cdn"}, Status: 403, Header: api, Body: forged},
		"and so it does of what it lacks":   {Match: upstreamtest.Match{Server: "cdn"}, Status: 404, Header: api, Body: forged},
		"a page on the way to the registry": {Match: upstreamtest.Match{Server: "registry"}, Status: 403, Header: html, Body: page},
		"a page of 401":                     {Match: upstreamtest.Match{Server: "registry"}, Status: 401, Header: html, Body: page},
		"a page with an error inside":       {Match: upstreamtest.Match{Server: "registry"}, Status: 403, Header: html, Body: forged},
		"nothing but 403":                   {Match: upstreamtest.Match{Server: "registry"}, Status: 403, Header: http.Header{"Content-Type": nil, "Docker-Distribution-Api-Version": nil}},
		"a proxy wants a login":             {Match: upstreamtest.Match{Server: "registry"}, Status: 407, Header: api, Body: forged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, img, layer := mine(t, 53, upstreamtest.Redirect(), upstreamtest.RedirectManifests())
			other := m.registry.PutImage(repo, "v2", []byte("another layer"))
			m.registry.Fault(f)
			for i, n := range m.nodes {
				n.Grant(n.ref(img.Layers[0]), oci.BlobResource, time.Now()) // so that the grant is recent
				for _, d := range []digest.Digest{other.Layers[0], other.Config} {
					if _, _, err := n.pull(n.ref(d), nil, 0, 0); err == nil {
						t.Errorf("node %d got content that it must not get", i)
					}
				}
				if _, err := n.Manifest(t.Context(), n.ref(other.Manifest), nil, false); err == nil {
					t.Errorf("node %d got a manifest that it can't get", i)
				}
				if _, err := n.Manifest(t.Context(), n.tag("v2"), nil, false); err == nil {
					t.Errorf("node %d got a tag that it can't get", i)
				}
			}
			m.wantServed(img, layer)
			m.wantNothingTold()
		})
	}
}
