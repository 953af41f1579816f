package transfer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// ringOf makes the nodes the owners of all keys, in that order.
func (m *meshRig) ringOf(nodes ...int) {
	for _, n := range m.nodes {
		n.routes(func(string) []int { return nodes })
	}
}

// awaitWord waits until a node knows the last answer to a question.
func (m *meshRig) awaitWord(i int, q oci.Question) {
	m.t.Helper()
	testkit.Await(m.t, "the node knows the answer", func() bool {
		_, known := m.nodes[i].Holder().LastWord(q)
		return known
	})
}

// What a registry says about tags and lists is known to the owner and the next on the
// ring: when the owner, through which alone clients pulled, is dead, all still serve it.
func TestTheNextOnTheRingKnowsWhatTheOwnerKnows(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]func(string) bool{"public": nil, "private": all} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, 4, setup{private: private, policy: grants.Site{StaleIfError: time.Hour}})
			m.ringOf(0, 1)
			img := m.registry.PutImage(repo, "v1", random(1, 10*kib))
			owner, other := m.nodes[0], m.nodes[3]
			for _, n := range m.nodes {
				if err := n.store.Listed(t.Context()); err != nil { // before that answers are not kept
					t.Fatal(err)
				}
			}
			owner.mustFind(owner.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
			if _, err := owner.Manifest(t.Context(), owner.tag("none"), nil, false); oci.KindOf(err) != oci.NotFound {
				t.Fatalf("a tag that is not there: %v", err)
			}
			if _, _, err := owner.list(""); err != nil {
				t.Fatal(err)
			}
			for _, ref := range []oci.Ref{owner.tag("v1"), owner.tag("none")} {
				m.awaitWord(1, oci.Question{Ref: ref, Accept: oci.ManifestTypes})
			}
			m.awaitWord(1, oci.Question{Ref: owner.tag("")})
			other.mustFind(other.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest) // a copy of the bytes alone
			for _, n := range m.nodes {
				n.holds([]int{3}) // the bytes are found
			}
			owner.fails.Store(&fault{dead: true})
			m.registry.Down()

			for i, n := range m.nodes[1:] {
				if found := n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest); found.Stale == nil {
					t.Errorf("node %d: %+v is not marked", i+1, found.Provenance)
				}
				if _, err := n.Manifest(t.Context(), n.tag("none"), nil, false); oci.KindOf(err) != oci.NotFound {
					t.Errorf("node %d: a tag that was not there: %v", i+1, err)
				}
				if body, _, err := n.list(""); err != nil || !strings.Contains(body, "v1") {
					t.Errorf("node %d: the list: %q, %v", i+1, body, err)
				}
			}
		})
	}
}

// A node that owns a tag now, and has never seen it, learns what any member knows.
func TestWhatATagMeantIsFoundAfterOwnershipMoved(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]func(string) bool{"public": nil, "private": all} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, 5, setup{private: private, policy: grants.Site{StaleIfError: time.Hour}})
			m.ringOf(0, 1)
			img := m.registry.PutImage(repo, "v1", random(1, 10*kib))
			m.nodes[0].mustFind(m.nodes[0].tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
			m.registry.Down()
			m.ringOf(3, 4)
			for _, n := range m.nodes {
				n.holds([]int{0}) // who owned the bytes before
			}
			for _, i := range []int{2, 3, 4} {
				n := m.nodes[i]
				if found := n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest); found.Stale == nil {
					t.Errorf("node %d: %+v is not marked", i, found.Provenance)
				}
			}
		})
	}
}

// In an outage a private registry's word on a manifest counts that any member has heard:
// who owns it may never have been asked, as while it was passed over.
func TestAnyMembersGrantCountsInAnOutage(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4, setup{private: all, policy: grants.Site{StaleIfError: time.Hour}})
	layer := random(1, 10*kib)
	img := m.registry.PutImage(repo, "v1", layer)
	one := m.nodes[3]
	m.ringOf(3)
	one.mustFind(one.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest)
	one.mustPull(one.ref(img.Layers[0]), layer, oci.Miss)
	m.ringOf(0, 1)
	for _, n := range m.nodes {
		n.holds([]int{3})
	}
	m.registry.Down()
	for i, n := range m.nodes[:3] {
		n.mustFind(n.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest)
		n.mustPull(n.ref(img.Layers[0]), layer, oci.PeerHit)
		if _, err := n.Manifest(t.Context(), n.ref(digest.FromString("none")), nil, false); err == nil {
			t.Errorf("node %d serves what nobody has", i)
		}
	}
}

// The newest answer counts, whoever heard it: an owner that was away while the tag moved,
// or went, does not take it back.
func TestTheNewestMeaningOfATagCounts(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4, setup{policy: grants.Site{StaleIfError: time.Hour}})
	m.ringOf(0, 1)
	older := m.registry.PutImage(repo, "moved", random(1, 10*kib))
	m.registry.PutImage(repo, "gone", random(2, 10*kib))
	for _, tag := range []string{"moved", "gone"} {
		if _, err := m.nodes[0].Manifest(t.Context(), m.nodes[0].tag(tag), nil, false); err != nil {
			t.Fatal(err)
		}
	}
	m.ringOf(1, 2) // node 0 is away
	newer := m.registry.PutImage(repo, "moved", random(3, 10*kib))
	m.registry.DeleteTag(repo, "gone")
	n := m.nodes[2]
	n.mustFind(n.tag("moved"), newer.ManifestBytes, upstreamtest.TypeManifest)
	if _, err := n.Manifest(t.Context(), n.tag("gone"), nil, false); oci.KindOf(err) != oci.NotFound {
		t.Fatalf("a tag that is gone: %v", err)
	}
	m.ringOf(0, 1)
	m.registry.Down()
	for i, n := range m.nodes {
		found, err := n.Manifest(t.Context(), n.tag("moved"), nil, true)
		if err != nil || found.Digest != newer.Manifest {
			t.Errorf("node %d: %v, %v; want %s, not %s", i, found, err, newer.Manifest, older.Manifest)
		}
		if _, err := n.Manifest(t.Context(), n.tag("gone"), nil, false); oci.KindOf(err) != oci.NotFound {
			t.Errorf("node %d: a tag that is gone: %v", i, err)
		}
	}
}

// A clock that was set back has a node believe that it asked in a time to come. That is not the
// newest answer then, neither to it nor to the others; but it serves for want of another.
func TestAnAnswerFromATimeToComeIsNotTheNewest(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4, setup{policy: grants.Site{StaleIfError: time.Hour}})
	tags := map[string]upstreamtest.Image{"moved": m.registry.PutImage(repo, "moved", random(1, 10*kib)), "same": m.registry.PutImage(repo, "same", random(2, 10*kib))}
	m.ringOf(0)
	for tag := range tags {
		n := m.nodes[0]
		if _, err := n.Manifest(t.Context(), n.tag(tag), nil, false); err != nil {
			t.Fatal(err)
		}
		note, ok := n.store.Tag(strings.Join(append([]string{m.registry.Host(), repo, tag}, oci.ManifestTypes...), " "))
		if !ok {
			t.Fatal("the tag is not noted")
		}
		note.Checked = time.Now().Add(24 * time.Hour)
		n.store.SetTag(note)
	}
	m.ringOf(1)
	tags["moved"] = m.registry.PutImage(repo, "moved", random(3, 10*kib))
	m.nodes[1].mustFind(m.nodes[1].tag("moved"), tags["moved"].ManifestBytes, upstreamtest.TypeManifest)
	m.ringOf(0, 1)
	m.registry.Down()
	for i, n := range m.nodes {
		for tag, img := range tags {
			if found, err := n.Manifest(t.Context(), n.tag(tag), nil, true); err != nil || found.Digest != img.Manifest {
				t.Errorf("node %d: %s: %v, %v; want %s", i, tag, found, err, img.Manifest)
			}
		}
	}
}

// Rules for tags say how long each is believed and may stand in.
func TestRulesForTags(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := newTagged([]byte("blob"))
		m := fakeMesh(t, dir, 1, up, grants.Site{StaleIfError: time.Hour, Tags: []grants.TagRule{
			{Match: "*-SNAPSHOT", TagTTL: 10 * time.Second, StaleIfError: time.Minute},
			{Match: "v?.*", TagTTL: time.Hour, StaleIfError: 24 * time.Hour},
			{Match: "v1.*", TagTTL: 0, StaleIfError: 0}, // never the first that matches
		}})
		defer m.end()
		n := m.nodes[0]
		get := func(tag string) (stale bool, err error) {
			found, err := n.Manifest(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: tag}, nil, false)
			return err == nil && found.Stale != nil, err
		}
		tags := []string{"1-SNAPSHOT", "v1.2", "latest"}
		for _, tag := range tags {
			if _, err := get(tag); err != nil {
				t.Fatal(err)
			}
		}
		up.down = true
		for _, at := range []struct {
			after time.Duration
			want  [3]string
		}{
			{5 * time.Second, [3]string{"fresh", "fresh", "stale"}},
			{15 * time.Second, [3]string{"stale", "fresh", "stale"}},
			{2 * time.Minute, [3]string{"error", "fresh", "stale"}},
			{2 * time.Hour, [3]string{"error", "stale", "error"}},
			{25 * time.Hour, [3]string{"error", "error", "error"}},
		} {
			<-time.After(at.after)
			for i, tag := range tags {
				stale, err := get(tag)
				got := map[bool]string{false: "fresh", true: "stale"}[stale]
				if err != nil {
					got = "error"
				}
				if got != at.want[i] {
					t.Errorf("after %s, %s: %s (%v), want %s", at.after, tag, got, err, at.want[i])
				}
			}
		}
	})
}

// What is known of an offline registry serves however old it is, as a hit at each node,
// and the registry is not asked for anything.
func TestAnOfflineMeshServesForEver(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := newTagged([]byte("blob"))
		m := fakeMesh(t, dir, 3, up, grants.Site{StaleIfError: time.Minute})
		defer m.end()
		ref := oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "v1"}
		found, err := m.nodes[0].Manifest(t.Context(), ref, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(48 * time.Hour)
		up.down = true
		for _, n := range m.nodes {
			n.policy.Offline = true
		}
		for i, n := range m.nodes {
			again, err := n.Manifest(t.Context(), ref, nil, false)
			if err != nil || again.Digest != found.Digest {
				t.Errorf("node %d: %v, %v", i, again, err)
				continue
			}
			if s := again.CacheStatus("n", true); again.Marked() || !strings.HasSuffix(s, "n; hit") {
				t.Errorf("node %d: %q", i, s)
			}
			if _, err := n.Manifest(t.Context(), oci.Ref{Registry: ref.Registry, Repository: repo, Tag: "none"}, nil, false); oci.KindOf(err) != oci.Offline {
				t.Errorf("node %d: a tag that nobody knows: %v", i, err)
			}
		}
	})
}
