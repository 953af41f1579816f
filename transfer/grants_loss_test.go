package transfer_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// imageOnly is the Accept list of a client that takes no index.
var imageOnly = []string{upstreamtest.TypeManifest}

// An aged mesh holds a private image on every node; the registry vouched for it an
// hour ago.
type aged struct {
	*meshRig
	img   upstreamtest.Image
	layer []byte
}

func newAged(t *testing.T, seed uint64, alone bool) *aged {
	t.Helper()
	var private atomic.Bool // from the moment on that the image is here
	m := newMesh(t, 3, setup{private: func(string) bool { return private.Load() }, policy: grants.Site{StaleIfError: 24 * time.Hour}})
	if alone {
		m.alone()
	}
	img, layer := m.held(0, seed)
	for i, n := range m.nodes {
		for _, accept := range [][]string{nil, imageOnly} {
			if _, err := n.Manifest(t.Context(), n.tag("v1"), accept, false); err != nil {
				t.Fatal(err)
			}
		}
		m.pull(i, img.Layers[0], layer)
		n.events.await(filled, 1)
	}
	private.Store(true)
	for _, n := range m.nodes {
		at := time.Now().Add(-time.Hour)
		n.Grant(n.ref(img.Layers[0]), oci.BlobResource, at)
		n.Grant(n.ref(img.Manifest), oci.ManifestResource, at)
		n.Grant(n.tag("v1"), oci.ManifestResource, at)
	}
	return &aged{m, img, layer}
}

// hide makes the registry answer 404 to every path that contains part.
func (m *aged) hide(part string) {
	m.registry.Fault(upstreamtest.Fault{
		Match: upstreamtest.Match{PathPart: part}, Status: 404, Header: http.Header{"Content-Type": {"application/json"}},
		Body: `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`,
	})
}

// A served says what a node serves of the image.
type served struct{ layer, manifest, tag, other bool }

// whole means that the node serves the whole image.
var whole = served{true, true, true, true}

// wantEach fails the test unless each node serves exactly that.
func (m *aged) wantEach(when string, want served) {
	m.t.Helper()
	each(len(m.nodes), func(i int) {
		if got := m.served(m.nodes[i]); got != want {
			m.t.Errorf("%s: %s serves %+v, want %+v", when, m.nodes[i].name(), got, want)
		}
	})
}

func (m *aged) served(n *meshNode) served {
	_, _, blob := n.pull(n.ref(m.img.Layers[0]), m.layer, 0, -1)
	_, stat := n.StatBlob(m.t.Context(), n.ref(m.img.Layers[0]))
	_, manifest := n.Manifest(m.t.Context(), n.ref(m.img.Manifest), nil, false)
	_, tag := n.Manifest(m.t.Context(), n.tag("v1"), nil, false)
	_, other := n.Manifest(m.t.Context(), n.tag("v1"), imageOnly, false)
	if (blob == nil) != (stat == nil) {
		m.t.Errorf("%s: GET of the layer: %v, HEAD: %v", n.name(), blob, stat)
	}
	return served{blob == nil, manifest == nil, tag == nil, other == nil}
}

// Content that a registry has hidden by a 404 is not served in the next outage,
// neither by the node that got the 404 nor by another. Other content is.
func TestWhatA404HidesStaysHiddenInAnOutage(t *testing.T) {
	t.Parallel()
	layer := func(m *aged) string { return m.img.Layers[0].Encoded() }
	for name, tt := range map[string]struct {
		hidden func(m *aged) string
		ask    func(m *aged, n *meshNode) error
		want   served
	}{
		"a layer, by GET": {layer, func(m *aged, n *meshNode) error {
			_, _, err := n.pull(n.ref(m.img.Layers[0]), m.layer, 0, -1)
			return err
		}, served{false, true, true, true}},
		"a layer, by HEAD": {layer, func(m *aged, n *meshNode) error {
			_, err := n.StatBlob(t.Context(), n.ref(m.img.Layers[0]))
			return err
		}, served{false, true, true, true}},
		"a manifest, by GET": {func(m *aged) string { return m.img.Manifest.Encoded() }, func(m *aged, n *meshNode) error {
			_, err := n.Manifest(t.Context(), n.ref(m.img.Manifest), nil, false)
			return err
		}, served{true, false, false, false}},
		"a manifest, by HEAD": {func(m *aged) string { return m.img.Manifest.Encoded() }, func(m *aged, n *meshNode) error {
			_, err := n.Manifest(t.Context(), n.ref(m.img.Manifest), nil, true)
			return err
		}, served{true, false, false, false}},
		"a tag, by GET": {func(*aged) string { return "/manifests/v1" }, func(_ *aged, n *meshNode) error {
			_, err := n.Manifest(t.Context(), n.tag("v1"), nil, false)
			return err
		}, served{true, true, false, false}},
		"a tag, by HEAD, for another Accept list": {func(*aged) string { return "/manifests/v1" }, func(_ *aged, n *meshNode) error {
			_, err := n.Manifest(t.Context(), n.tag("v1"), imageOnly, true)
			return err
		}, served{true, true, false, false}},
	} {
		for how, alone := range map[string]bool{"every node asks the registry": true, "the first node asks for all": false} {
			if testing.Short() && (alone || strings.Contains(name, "HEAD")) {
				continue
			}
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				m := newAged(t, 61, alone)
				m.hide(tt.hidden(m))
				asked := m.nodes[2]
				if err := tt.ask(m, asked); oci.KindOf(err) != oci.NotFound {
					t.Fatalf("hidden: %v", err)
				}
				for _, n := range m.nodes {
					if n != asked && (alone || n != m.nodes[0]) { // the node that got the 404 from the registry tells the others
						n.events.await(toldOfALoss, 1)
					}
				}
				m.registry.ClearFaults()
				m.registry.Down()
				m.wantEach("in the outage", tt.want)
				m.registry.Up()
				m.wantEach("when all is shown again", whole)
				m.registry.Down()
				m.wantEach("in the next outage", whole)
			})
		}
	}
}

// A 404 to a HEAD alone revokes nothing: the GET decides.
func TestA404OfHeadAloneHidesNothing(t *testing.T) {
	t.Parallel()
	m := newAged(t, 62, true)
	m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "HEAD"}, Status: 404})
	n := m.nodes[1]
	if found, err := n.Manifest(t.Context(), n.ref(m.img.Manifest), nil, true); err != nil || found.Size != int64(len(m.img.ManifestBytes)) {
		t.Errorf("HEAD of the manifest: %+v, %v", found, err)
	}
	if _, err := n.StatBlob(t.Context(), n.ref(m.img.Layers[0])); err != nil {
		t.Errorf("HEAD of the layer: %v", err)
	}
	m.registry.Down()
	if got := m.served(n); got != whole {
		t.Errorf("it serves %+v", got)
	}
}

// A 404 that does not come from the registry revokes nothing.
func TestA404OfAnybodyElseHidesNothing(t *testing.T) {
	t.Parallel()
	m := newAged(t, 63, true)
	m.registry.Fault(upstreamtest.Fault{
		Match: upstreamtest.Match{PathPart: m.img.Layers[0].Encoded()}, Status: 404, Body: "<html>no backend</html>",
		Header: http.Header{"Content-Type": {"text/html"}, "Docker-Distribution-Api-Version": nil},
	})
	for _, n := range m.nodes {
		if _, _, err := n.pull(n.ref(m.img.Layers[0]), m.layer, 0, -1); err != nil {
			t.Errorf("%s: the failure may pass, so what was granted counts: %v", n.name(), err)
		}
	}
	m.registry.Down()
	m.wantEach("in the outage", whole)
	m.wantNothingTold()
}

// A layer that is asked for as a manifest long after its grant, and a manifest that
// is asked for as a blob, stay what they are.
func TestAskingForTheWrongKindTakesNothingBack(t *testing.T) {
	t.Parallel()
	m := newAged(t, 64, true)
	for _, n := range m.nodes {
		for _, head := range []bool{true, false} {
			if _, err := n.Manifest(t.Context(), n.ref(m.img.Layers[0]), nil, head); oci.KindOf(err) != oci.NotFound {
				t.Errorf("%s, a layer as a manifest: %v", n.name(), err)
			}
		}
		if _, err := n.StatBlob(t.Context(), n.ref(m.img.Manifest)); oci.KindOf(err) != oci.NotFound {
			t.Errorf("%s, a manifest as a blob: %v", n.name(), err)
		}
		if _, _, err := n.pull(n.ref(m.img.Manifest), m.img.ManifestBytes, 0, -1); oci.KindOf(err) != oci.NotFound {
			t.Errorf("%s, a manifest as a blob: %v", n.name(), err)
		}
	}
	for _, n := range m.nodes {
		n.events.await(toldOfALoss, 1) // a loss of the wrong kind
	}
	m.registry.Down()
	m.wantEach("in the outage", whole)
}

// Each minute of an hour the layer is asked for as a manifest.
func TestTheWrongKindAsTimePasses(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := newTagged([]byte("a layer"))
		m := fakeMesh(t, dir, 2, up, grants.Site{Private: true, StaleIfError: 24 * time.Hour})
		defer m.end()
		n, layer := m.nodes[1], fakeRef(digest.FromBytes(up.blob))
		if _, err := n.Manifest(t.Context(), aTag, nil, false); err != nil {
			t.Fatal(err)
		}
		if _, _, err := n.pull(layer, up.blob, 0, -1); err != nil {
			t.Fatal(err)
		}
		stat, manifest := up.stat, up.manifest
		for range 60 {
			<-time.After(time.Minute)
			absent := func() error {
				e := failure(oci.NotFound)
				e.Status, e.By = 404, oci.Registry
				return e
			}
			up.stat = func(context.Context) (oci.Descriptor, error) { return oci.Descriptor{}, absent() }
			up.manifest = func(context.Context) (oci.Manifest, error) { return oci.Manifest{}, absent() }
			if _, err := n.Manifest(t.Context(), layer, nil, false); oci.KindOf(err) != oci.NotFound {
				t.Errorf("a layer as a manifest: %v", err)
			}
			up.stat, up.manifest = stat, manifest
		}
		up.down = true
		if _, _, err := n.pull(layer, up.blob, 0, -1); err != nil {
			t.Errorf("the layer in the outage: %v", err)
		}
	})
}
