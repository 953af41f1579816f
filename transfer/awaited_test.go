package transfer_test

import (
	"fmt"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// headAs asks for a tag by HEAD, as docker and containerd do, and returns its digest's ref.
func (r *rig) headAs(tag string, want upstreamtest.Image) oci.Ref {
	r.t.Helper()
	m, err := r.Manifest(r.t.Context(), r.tag(tag), nil, true)
	if err != nil || m.Digest != want.Manifest {
		r.t.Fatalf("HEAD of %s: %+v, error %v; want %s", tag, m, err, want.Manifest)
	}
	return r.ref(m.Digest)
}

// wantStale fails the test unless the tag still means that image while the registry is gone.
func (r *rig) wantStale(tag string, want upstreamtest.Image) {
	r.t.Helper()
	for _, head := range []bool{true, false} {
		m, err := r.Manifest(r.t.Context(), r.tag(tag), nil, head)
		if err != nil || m.Digest != want.Manifest || m.Stale == nil {
			r.t.Errorf("%s in the outage (HEAD: %t): %+v, error %v; want %s", tag, head, m, err, want.Manifest)
		}
	}
}

// One pull by HEAD and digest makes a tag known, also of a private registry, also a second
// tag of the same image, and also when the tag had another meaning before.
func TestATagPulledByHeadAndDigestOutlivesTheRegistry(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]bool{"public": false, "private": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}, private: func(string) bool { return private }})
			first := r.registry.PutImage(repo, "moved", random(1, 10))
			r.mustFind(r.tag("moved"), first.ManifestBytes, upstreamtest.TypeManifest)
			img := r.registry.PutImage(repo, "moved", random(2, 10))
			for _, tag := range []string{"v1", "v1.0", "latest"} {
				r.registry.PutImage(repo, tag, random(2, 10))
				r.headAs(tag, img)
			}
			by := r.headAs("moved", img)
			r.mustFind(by, img.ManifestBytes, upstreamtest.TypeManifest)
			r.registry.Down()
			for _, tag := range []string{"v1", "v1.0", "latest", "moved"} {
				r.wantStale(tag, img)
			}
		})
	}
}

// What a HEAD told counts only if the manifest comes, and not against a newer answer.
func TestWhatAHeadToldDoesNotReplaceWhatIsVerified(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}})
	first := r.registry.PutImage(repo, "v1", random(1, 10))
	r.mustFind(r.tag("v1"), first.ManifestBytes, upstreamtest.TypeManifest)
	second := r.registry.PutImage(repo, "v1", random(2, 10))
	late := r.headAs("v1", second)
	third := r.registry.PutImage(repo, "v1", random(3, 10))
	r.mustFind(r.tag("v1"), third.ManifestBytes, upstreamtest.TypeManifest)
	r.mustFind(late, second.ManifestBytes, upstreamtest.TypeManifest) // its tag has moved on
	fourth := r.registry.PutImage(repo, "v1", random(4, 10))
	r.headAs("v1", fourth) // whose manifest nobody asks for
	r.registry.Down()
	r.wantStale("v1", third)
}

// Clients that ask for any number of tags by HEAD alone cost a bounded amount of memory, and
// others' pulls go on.
func TestManyHeadsAreForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}})
	img := r.registry.PutImage(repo, "v0", random(1, 10))
	for i := range 20 {
		tag := fmt.Sprintf("v%d", i)
		r.registry.PutImage(repo, tag, random(1, 10))
		r.headAs(tag, img)
	}
	r.mustFind(r.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest)
	r.headAs("v19", img) // by now the manifest is here
	r.registry.Down()
	r.wantStale("v0", img)
	r.wantStale("v19", img)
	if _, err := r.Manifest(t.Context(), r.tag("v18"), nil, true); err == nil {
		t.Error("more tags are kept for one manifest than there is room for")
	}
}
