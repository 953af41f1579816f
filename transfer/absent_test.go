package transfer_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

const signature = "sha256-0000000000000000000000000000000000000000000000000000000000000000.sig"

// absent asks a node for a tag by HEAD and by GET, and fails the test unless both are 404. It returns
// when the registry said so, zero for just now.
func (n *meshNode) absent(tag string) (told time.Time) {
	n.t.Helper()
	for _, head := range []bool{true, false} {
		_, err := n.Manifest(n.t.Context(), n.tag(tag), nil, head)
		if err == nil {
			n.t.Errorf("node %d has %s", n.id, tag)
			return time.Time{}
		}
		told = wantKind(n.t, err, oci.NotFound).Told
	}
	return told
}

// Clients that look for a signature under several names go on at a 404 alone, so it
// outlives the registry, at all nodes and over a restart of them.
func TestThatThereIsNoSuchTagOutlivesTheRegistry(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]func(string) bool{"public": nil, "private": all} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.SkipShort(t) // it waits for retries
			s := setup{private: private, policy: grants.Site{StaleIfError: time.Hour}}
			m := newMesh(t, 3, s)
			img := m.registry.PutImage(repo, "v1", random(1, 10))
			if told := m.nodes[2].absent(signature); !told.IsZero() {
				t.Error("what the registry says now counts as kept")
			}
			m.registry.Down()
			for i := range m.nodes {
				m.restart(i, s)
			}
			for _, n := range m.nodes {
				if told := n.absent(signature); told.IsZero() {
					t.Errorf("node %d: it counts as what the registry says now", n.id)
				}
			}
			if _, err := m.nodes[0].Manifest(t.Context(), m.nodes[0].tag("never-asked-for"), nil, false); oci.KindOf(err) != oci.Unavailable {
				t.Errorf("a tag of which nothing is known: %v", err)
			}
			m.registry.Up()
			signed := m.registry.PutImage(repo, signature, random(2, 10))
			m.nodes[1].mustFind(m.nodes[1].tag(signature), signed.ManifestBytes, upstreamtest.TypeManifest)
			m.registry.Down()
			for _, n := range m.nodes[:2] { // the one that asked and the tag's owner
				n.mustFind(n.tag(signature), signed.ManifestBytes, upstreamtest.TypeManifest)
			}
			m.registry.Up()
			for _, n := range m.nodes {
				n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
			}
			m.wantNothingTold()
		})
	}
}

// A node that had the tag before hears from another that it is gone.
func TestTheNewestWordOnATagCounts(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t) // it waits for retries
	m := newMesh(t, 3, setup{policy: grants.Site{StaleIfError: time.Hour}})
	img := m.registry.PutImage(repo, "v1", random(1, 10))
	for _, n := range m.nodes {
		n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	}
	m.registry.DeleteTag(repo, "v1")
	m.nodes[1].absent("v1")
	m.registry.Down()
	for _, n := range m.nodes {
		if told := n.absent("v1"); told.IsZero() {
			t.Errorf("node %d: it counts as what the registry says now", n.id)
		}
	}
}

// Only the registry can say that there is no such tag.
func TestA404OfAnybodyElseIsNotKept(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]upstreamtest.Fault{
		"a balancer without a route": {Status: 404, Body: "default backend - 404", Header: http.Header{"Docker-Distribution-Api-Version": nil, "Content-Type": {"text/plain"}}},
		"a page":                     {Status: 404, Body: "<html>Not Found</html>", Header: http.Header{"Docker-Distribution-Api-Version": nil, "Content-Type": {"text/html"}}},
		"nothing at all":             {Status: 404, Header: http.Header{"Docker-Distribution-Api-Version": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.SkipShort(t) // it waits for retries
			r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}})
			r.registry.PutImage(repo, "v1", random(1, 10))
			r.registry.Fault(fault)
			if _, err := r.Manifest(t.Context(), r.tag(signature), nil, false); err == nil {
				t.Error("it is found")
			}
			r.registry.ClearFaults()
			r.registry.Down()
			_, err := r.Manifest(t.Context(), r.tag(signature), nil, false)
			wantKind(t, err, oci.Unavailable)
		})
	}
}

// That there is no such tag counts for stale_if_error from when the registry said so,
// also at a node that heard it from another.
func TestThatThereIsNoSuchTagCountsForAsLongAsItMay(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := newTagged(nil)
		missing := failure(oci.NotFound)
		missing.By, missing.Status = oci.Registry, http.StatusNotFound
		up.stat = func(context.Context) (oci.Descriptor, error) {
			if up.down {
				return oci.Descriptor{}, failure(oci.Unavailable)
			}
			return oci.Descriptor{}, missing
		}
		up.manifest = func(context.Context) (oci.Manifest, error) { return oci.Manifest{}, missing }
		m := fakeMesh(t, dir, 3, up, grants.Site{StaleIfError: time.Hour})
		defer m.end()
		want := func(i int, kind oci.Kind) {
			t.Helper()
			_, err := m.nodes[i].Manifest(t.Context(), aTag, nil, true)
			wantKind(t, err, kind)
		}
		want(1, oci.NotFound)
		up.down = true
		<-time.After(50 * time.Minute)
		want(2, oci.NotFound)
		<-time.After(9 * time.Minute)
		for i := range m.nodes {
			want(i, oci.NotFound)
		}
		<-time.After(2 * time.Minute)
		for i := range m.nodes {
			want(i, oci.Unavailable)
		}
		up.down = false
		want(0, oci.NotFound)
		for _, n := range m.nodes {
			n.policy.StaleIfError = 0
		}
		up.down = true
		want(0, oci.Unavailable)
	})
}
