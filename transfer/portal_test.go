package transfer_test

import (
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// A network that wants a login first answers every request with a page and status 200.
// The registry did not say that, so the answer opens no private content and revokes no
// grant.
func TestAPortalsPageVouchesForNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{private: all, policy: grants.Site{StaleIfError: time.Hour}})
	layer := random(7, 100*kib)
	img := r.registry.PutImage(repo, "v1", layer)
	r.mustFind(r.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	if _, _, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-30 * time.Minute)
	r.Grant(r.ref(img.Layers[0]), oci.BlobResource, old)
	r.registry.Fault(upstreamtest.PortalPage())
	other := in(r.ref(img.Layers[0]), "strangers/app")
	if n, _, err := r.pull(other, layer, 0, -1); err == nil {
		t.Errorf("a stranger gets %d bytes of the layer", n)
	}
	if s, err := r.StatBlob(t.Context(), other); err == nil {
		t.Errorf("a stranger is told a size of %d bytes", s.Size)
	}
	if found, err := r.Manifest(t.Context(), in(r.ref(img.Manifest), "strangers/app"), nil, false); err == nil {
		t.Errorf("a stranger gets the manifest, %d bytes", len(found.Bytes))
	}
	if _, way, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err != nil || way.Origin != oci.Hit {
		t.Errorf("for its own repository: %v, %v", way, err)
	}
}
