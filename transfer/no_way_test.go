package transfer_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// nowhere is the URL of a proxy that is not there.
func nowhere(t *testing.T) *url.URL {
	t.Helper()
	return &url.URL{Scheme: "http", Host: testkit.FreeAddr(t, "127.0.0.1")}
}

// rebuild makes a node anew, in a directory and with a proxy on its way out.
func (m *meshRig) rebuild(i int, s setup, dir string, proxy *url.URL) {
	s.registry, s.mesh, s.look, s.dir, s.proxy = m.registry, m.nodes[i], 100*time.Millisecond, dir, proxy
	m.nodes[i].rig = newRig(m.t, s)
}

// TestNodesWithoutAWayOutAskTheOthers: blobs, tags and lists come through any node, if
// one of the nodes on the route has a way out.
func TestNodesWithoutAWayOutAskTheOthers(t *testing.T) {
	t.Parallel()
	for name, nodes := range map[string][]int{"the owner": {0}, "the next": {1}, "the owner and the next": {0, 1}, "the last two": {1, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for private, s := range map[bool]setup{false: {}, true: {private: all}} {
				m := newMesh(t, 3, s)
				for _, i := range nodes {
					m.rebuild(i, s, "", nowhere(t))
				}
				for i, n := range m.nodes {
					content := random(uint64(i+1), 300*kib)
					img := m.registry.PutImage(repo, "v"+string(rune('0'+i)), content)
					n.mustFind(n.tag("v"+string(rune('0'+i))), img.ManifestBytes, upstreamtest.TypeManifest)
					d := img.Layers[0]
					if _, _, err := n.pull(n.ref(d), content, 0, -1); err != nil {
						t.Errorf("private %v, through node %d: %v", private, i, err)
					}
					if gets := m.gets(d); gets != 1 {
						t.Errorf("private %v, through node %d: %d downloads", private, i, gets)
					}
					if page, _, err := read(n.Tags(t.Context(), n.tag(""), "")); err != nil || !strings.Contains(page, "v0") {
						t.Errorf("private %v, through node %d: no list: %v", private, i, err)
					}
				}
			}
		})
	}
}

// TestNoNodeHasAWayOut: that is told soon, and tags that are cached are served.
func TestNoNodeHasAWayOut(t *testing.T) {
	t.Parallel()
	s := setup{policy: grants.Site{StaleIfError: time.Hour}}
	m := newMesh(t, 3, s)
	img := m.registry.PutImage(repo, "v1", random(1, 10*kib))
	var dirs []string
	for i := range m.nodes {
		dirs = append(dirs, t.TempDir())
		m.rebuild(i, s, dirs[i], nil)
	}
	for _, n := range m.nodes {
		n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	}
	for i, n := range m.nodes {
		n.end()
		m.rebuild(i, s, dirs[i], nowhere(t))
	}
	missing, _ := m.put(7, 1000)
	for i, n := range m.nodes {
		if found := n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest); found.Stale == nil || !slices.Contains([]oci.Kind{oci.Unavailable, oci.Timeout}, found.Stale.Kind) {
			t.Errorf("node %d: %+v is not marked", i, found.Provenance)
		}
		took := took(func() {
			_, _, err := n.pull(n.ref(missing), nil, 0, -1)
			if e := wantKind(t, err, oci.Unavailable); !e.Unreached {
				t.Errorf("node %d: %+v", i, e)
			}
		})
		if took > 10*time.Second { // as upstream.Patience says
			t.Errorf("node %d: it took %v", i, took)
		}
	}
}
