package transfer_test

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A cached is a rig that has pulled an image, and a list.
type cached struct {
	*rig
	img   upstreamtest.Image
	layer []byte
	tags  string
	refs  string // to the image
}

// newCached returns a rig that has pulled from a registry with these options.
func newCached(t *testing.T, private bool, options ...upstreamtest.Option) *cached {
	t.Helper()
	r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}, private: func(string) bool { return private }, options: options})
	c := &cached{rig: r, layer: random(71, 1000)}
	c.img = r.registry.PutImage(repo, "latest", c.layer)
	r.mustFind(r.tag("latest"), c.img.ManifestBytes, upstreamtest.TypeManifest)
	r.mustPull(r.ref(c.img.Layers[0]), c.layer, oci.Miss)
	var err error
	if c.tags, _, err = r.list(""); err != nil {
		t.Fatal(err)
	}
	r.registry.PutManifest(repo, "", upstreamtest.TypeManifest, fmt.Appendf(nil, `{"schemaVersion":2,"layers":[],"config":{"digest":%q},"subject":{"digest":%q}}`, c.img.Config, c.img.Manifest))
	if c.refs, _, err = c.referrers(); err != nil || !strings.Contains(c.refs, "sha256:") {
		t.Fatal(c.refs, err)
	}
	if _, err := r.Manifest(t.Context(), r.tag("latest"), nil, true); err != nil {
		t.Fatal(err)
	}
	r.registry.RevokeTokens()
	return c
}

// referrers gets the list of what refers to the image.
func (c *cached) referrers() (body string, way oci.Provenance, err error) {
	return read(c.Referrers(c.t.Context(), c.ref(c.img.Manifest), ""))
}

// outage makes the registry fail by itself, in a way that is not tried again.
func (c *cached) outage() {
	c.registry.ClearFaults()
	c.registry.Fault(says(503, "", ""))
}

// later waits until what is said now is told from what was said before: words are kept by
// the millisecond.
func (c *cached) later() {
	began := time.Now()
	testkit.Await(c.t, "the clock moves", func() bool { return time.Since(began) > 2*time.Millisecond })
}

// wantServed fails the test unless tag, list and layer are what they were.
func (c *cached) wantServed(when string) {
	c.t.Helper()
	for _, head := range []bool{true, false} {
		m, err := c.Manifest(c.t.Context(), c.tag("latest"), nil, head)
		if err != nil || m.Digest != c.img.Manifest || !head && !bytes.Equal(c.body(m), c.img.ManifestBytes) {
			c.t.Errorf("%s, head %v: %+v, %v", when, head, m, err)
		}
	}
	if tags, _, err := c.list(""); err != nil || tags != c.tags {
		c.t.Errorf("%s, the list: %q, %v", when, tags, err)
	}
	if refs, _, err := c.referrers(); err != nil || refs != c.refs {
		c.t.Errorf("%s, the referrers: %q, %v", when, refs, err)
	}
	if _, _, err := c.pull(c.ref(c.img.Layers[0]), c.layer, 0, -1); err != nil {
		c.t.Errorf("%s, the layer: %v", when, err)
	}
}

// TestWhatNoRegistrySaidForgetsNothing: whatever stands between answers, or storage or a
// token server in trouble, the tag, the list and the layer are served, then and in the
// next outage.
func TestWhatNoRegistrySaidForgetsNothing(t *testing.T) {
	t.Parallel()
	all := middleboxes()
	maps.Copy(all, storages())
	maps.Copy(all, tokenServers())
	for name, v := range all {
		for _, private := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, private %v", name, private), func(t *testing.T) {
				t.Parallel()
				if v.Status == 0 {
					testkit.SkipShort(t) // without an answer it is tried again, after pauses
				}
				c := newCached(t, private, v.options...)
				c.registry.Fault(v.Fault)
				c.wantServed("while it fails")
				c.outage()
				c.wantServed("in the outage")
			})
		}
	}
}

// TestWhatTheRegistrySaidCounts: its refusal ends what is served from the cache, then and in
// the next outage, of a private registry to the last byte; until it says otherwise.
func TestWhatTheRegistrySaidCounts(t *testing.T) {
	t.Parallel()
	for name, v := range words() {
		kind := oci.Denied
		if v.Status == 404 || v.Status == 410 {
			kind = oci.NotFound
		}
		for _, private := range []bool{false, true} {
			for _, head := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, private %v, head %v", name, private, head), func(t *testing.T) {
					t.Parallel()
					c := newCached(t, private, v.options...)
					c.later()
					c.registry.Fault(v.Fault)
					_, err := c.Manifest(t.Context(), c.tag("latest"), nil, head)
					wantKind(t, err, kind)
					_, _, err = c.list("")
					wantKind(t, err, kind)
					_, _, err = c.referrers()
					wantKind(t, err, kind)
					c.outage()
					c.wantGone("in the outage", kind, private)
					c.registry.ClearFaults()
					c.wantServed("when it is told again")
					c.outage()
					c.wantServed("in the next outage")
				})
			}
		}
	}
}

// wantGone fails the test unless what a refusal of that kind took back is not served, and
// the rest is: tag and list, and of a private repository that denies access all. What is
// public may be had by its digest.
func (c *cached) wantGone(when string, kind oci.Kind, private bool) {
	c.t.Helper()
	denied := private && kind == oci.Denied
	for _, head := range []bool{true, false} {
		if m, err := c.Manifest(c.t.Context(), c.tag("latest"), nil, head); err == nil {
			c.t.Errorf("%s, head %v: %+v", when, head, m)
		}
	}
	if tags, _, err := c.list(""); err == nil {
		c.t.Errorf("%s, the list: %q", when, tags)
	}
	if refs, _, err := c.referrers(); err == nil {
		c.t.Errorf("%s, the referrers: %q", when, refs)
	}
	if _, _, err := c.pull(c.ref(c.img.Layers[0]), c.layer, 0, -1); (err != nil) != denied {
		c.t.Errorf("%s, the layer: %v", when, err)
	}
	if _, err := c.Manifest(c.t.Context(), c.ref(c.img.Manifest), nil, false); (err != nil) != denied {
		c.t.Errorf("%s, the manifest by its digest: %v", when, err)
	}
}

// TestARegistryWithoutReferrersInAnOutage: clients that look for signatures hear the same
// 404 as ever, and go on with a tag.
func TestARegistryWithoutReferrersInAnOutage(t *testing.T) {
	t.Parallel()
	const api = "Docker-Distribution-Api-Version"
	for name, f := range map[string]upstreamtest.Fault{
		"404":  says(404, "text/plain", "404 page not found", api, "registry/2.0"),
		"406":  says(406, "", "", api, "registry/2.0"),
		"GHCR": says(303, "", "", api, "registry/2.0"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			github := upstreamtest.New(t)
			github.Fault(says(404, htmlType, htmlBody))
			r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}, registries: []*upstreamtest.Registry{github}})
			if f.Status == 303 {
				f.Header.Set("Location", "http://"+github.Host()+"/-/v2/packages/referrers")
			}
			f.PathPart = "/referrers/"
			r.registry.Fault(f)
			c := &cached{rig: r, img: r.registry.PutImage(repo, "latest")}
			_, _, err := c.referrers()
			wantKind(t, err, oci.NotFound)
			c.outage()
			_, _, err = c.referrers()
			if e := wantKind(t, err, oci.NotFound); e.Told.IsZero() {
				t.Errorf("%v is not marked as an earlier answer", e)
			}
			c.registry.ClearFaults()
			if refs, way, err := c.referrers(); err != nil || way.Stale != nil {
				t.Errorf("when it has the API: %q, %+v, %v", refs, way, err)
			}
		})
	}
}

// TestWhatIsNoManifestIsNoTagsMeaning: not even if a digest beside it matches, or the
// registry gives it by that digest.
func TestWhatIsNoManifestIsNoTagsMeaning(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing": "", "a page": htmlBody, "an array": `[]`, "a text": `"manifest"`, "null": "null", "an error": ociError, "a token": `{"token":"t"}`, "a part": `{"schemaVersion":2,`,
	} {
		for _, byDigest := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by digest %v", name, byDigest), func(t *testing.T) {
				t.Parallel()
				c := newCached(t, false)
				if byDigest {
					c.registry.PutManifest(repo, "latest", upstreamtest.TypeManifest, []byte(body))
				} else {
					f := says(200, upstreamtest.TypeManifest, body, "Docker-Content-Digest", digest.FromString(body).String())
					f.PathPart = "/manifests/"
					c.registry.Fault(f)
				}
				m, err := c.Manifest(t.Context(), c.tag("latest"), nil, false)
				if err != nil || m.Stale == nil || m.Digest != c.img.Manifest {
					t.Errorf("%+v, %v", m, err)
				}
				c.outage()
				c.wantServed("in the outage")
			})
		}
	}
}
