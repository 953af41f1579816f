package transfer_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"

	"github.com/opencontainers/go-digest"
)

// in returns a ref to the same content in another repository.
func in(ref oci.Ref, repository string) oci.Ref {
	ref.Repository = repository
	return ref
}

// all says that every registry is private.
func all(string) bool { return true }

func TestAPrivateBlobIsServedOnlyForARepositoryThatHoldsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{private: all})
	content := random(1, 200*kib)
	d := r.registry.PutBlob(repo, content)
	if _, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
		t.Fatal(err)
	}
	other := in(r.ref(d), "strangers/app")
	if _, _, err := r.pull(other, content, 0, -1); oci.KindOf(err) != oci.NotFound {
		t.Errorf("another repository's blob: %v", err)
	}
	if _, err := r.StatBlob(t.Context(), other); oci.KindOf(err) != oci.NotFound {
		t.Errorf("HEAD of another repository's blob: %v", err)
	}
	r.registry.PutBlob("strangers/app", content)
	if _, way, err := r.pull(other, content, 0, -1); err != nil || way.Origin != oci.Hit {
		t.Errorf("a repository that holds the blob by now: %v, %v", way, err)
	}
	if n := r.registry.Count("GET", "/blobs/"); n != 3 { // one delivers the blob; after a 404 to a HEAD a GET decides
		t.Errorf("%d GETs", n)
	}
}

func TestAPrivateManifestVouchesForWhatItLists(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{private: all, policy: grants.Site{StaleIfError: time.Hour}})
	layer := random(2, 100*kib)
	img := r.registry.PutImage(repo, "v1", layer)
	r.mustFind(r.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	if _, _, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err != nil {
		t.Fatal(err)
	}
	asked := r.registry.Count("", img.Layers[0].Encoded())
	if _, way, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err != nil || way.Origin != oci.Hit {
		t.Errorf("%v, %v", way, err)
	}
	if n := r.registry.Count("", img.Layers[0].Encoded()); n != asked {
		t.Errorf("the registry was asked %d times more", n-asked)
	}
	if _, err := r.Manifest(t.Context(), in(r.ref(img.Manifest), "strangers/app"), nil, false); oci.KindOf(err) != oci.NotFound {
		t.Errorf("another repository's manifest: %v", err)
	}
	r.registry.Down()
	r.mustFind(r.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	if _, _, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err != nil {
		t.Errorf("while the registry is down: %v", err)
	}
}

func TestAPrivateRegistrysWordEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		age    time.Duration
		status int
		want   oci.Kind
		served bool
	}{
		"it is asked again and says yes":          {age: time.Hour, served: true},
		"it is asked again and refuses":           {age: time.Hour, status: 403, want: oci.Denied},
		"it is asked again and has lost it":       {age: time.Hour, status: 404, want: oci.NotFound},
		"it fails, and its last word still holds": {age: time.Hour, status: 500, served: true},
		"it fails, and its last word is too old":  {age: 48 * time.Hour, status: 500, want: oci.Unavailable},
		"the clock was set back":                  {age: -time.Hour, status: 403, want: oci.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var private atomic.Bool
			r := newRig(t, setup{private: func(string) bool { return private.Load() }, policy: grants.Site{StaleIfError: 24 * time.Hour}})
			content := random(3, 70*kib)
			d := r.registry.PutBlob(repo, content)
			if _, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
				t.Fatal(err)
			}
			r.events.await(filled, 1)
			private.Store(true)
			r.Grant(r.ref(d), oci.BlobResource, time.Now().Add(-c.age))
			if c.status != 0 {
				r.registry.Fault(upstreamtest.Fault{Status: c.status})
			}
			_, way, err := r.pull(r.ref(d), content, 0, -1)
			if c.served && (err != nil || way.Origin != oci.Hit) || !c.served && (err == nil || oci.KindOf(err) != c.want) {
				t.Errorf("%v, %v", way, err)
			}
		})
	}
}

// A registry that claims to hold the content of a private one gets none of it.
func TestAClaimUnlocksNothing(t *testing.T) {
	t.Parallel()
	evil := upstreamtest.New(t)
	r := newRig(t, setup{registries: []*upstreamtest.Registry{evil}, private: func(registry string) bool { return registry != evil.Host() }})
	layer := random(4, 100*kib)
	img := r.registry.PutImage(repo, "v1", layer)
	r.mustFind(r.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
	if _, _, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err != nil {
		t.Fatal(err)
	}
	head := upstreamtest.Match{Method: "HEAD"}
	evil.Fault(upstreamtest.Fault{Match: head, Status: 200, Header: map[string][]string{
		"Docker-Content-Digest": {img.Manifest.String()}, "Content-Type": {upstreamtest.TypeManifest}, "Content-Length": {"500"},
	}})
	claim := func(ref oci.Ref) oci.Ref {
		ref.Registry = evil.Host()
		return ref
	}
	if m, err := r.Manifest(t.Context(), claim(r.tag("v1")), nil, false); err == nil {
		t.Errorf("a claimed tag delivered %q", m.Bytes)
	}
	if m, err := r.Manifest(t.Context(), claim(r.ref(img.Manifest)), nil, false); err == nil {
		t.Errorf("a claimed digest delivered %q", m.Bytes)
	}
	if _, _, err := r.pull(claim(r.ref(img.Layers[0])), layer, 0, -1); err == nil {
		t.Error("a claimed blob was delivered")
	}
	// The claiming registry delivers the bytes itself, so nothing is unlocked.
	evil.ClearFaults()
	evil.PutBlob(repo, layer)
	for range 2 {
		if _, _, err := r.pull(claim(r.ref(img.Layers[0])), layer, 0, -1); err != nil {
			t.Error(err)
		}
	}
	if n := evil.Count("GET", img.Layers[0].Encoded()); n != 2 { // the first was refused
		t.Errorf("%d GETs of the blob that it delivered", n)
	}
}

// A request that began before a refusal and ends after it gets nothing by the grant from
// before.
func TestARefusalInTheMiddleOfADownloadCounts(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{private: all, policy: grants.Site{StaleIfError: 24 * time.Hour}})
	layer := random(6, 300*kib)
	img := r.registry.PutImage(repo, "", layer)
	if _, _, err := r.pull(r.ref(img.Config), nil, 0, 0); err != nil { // so that the repository is known
		t.Fatal(err)
	}
	release := r.registry.Hold(upstreamtest.Match{Method: "GET", PathPart: img.Layers[0].Encoded()})
	done := make(chan error, 1)
	go func() {
		_, _, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1)
		done <- err
	}()
	r.registry.WaitFor(upstreamtest.Match{Method: "GET", PathPart: img.Layers[0].Encoded()}, 1)
	r.events.await(filled, 1)
	r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/manifests/"}, Status: 403})
	if _, err := r.Manifest(t.Context(), r.tag("v1"), nil, false); oci.KindOf(err) != oci.Denied {
		t.Fatal(err)
	}
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.events.await(filled, 2)
	r.registry.Down()
	if _, way, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err == nil {
		t.Errorf("the layer is served: %v", way)
	}
}

// A user who may not read a repository any more gets nothing of it in an outage either.
func TestARefusalOutlastsAnOutage(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*rig, upstreamtest.Image) error{
		"of a tag": func(r *rig, _ upstreamtest.Image) error {
			_, err := r.Manifest(t.Context(), r.tag("v1"), nil, false)
			return err
		},
		"of another digest": func(r *rig, img upstreamtest.Image) error {
			_, err := r.StatBlob(t.Context(), r.ref(img.Config))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{private: all, policy: grants.Site{StaleIfError: 24 * time.Hour, TagTTL: time.Nanosecond}})
			layer := random(5, 100*kib)
			img := r.registry.PutImage(repo, "v1", layer)
			r.mustFind(r.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
			if _, _, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err != nil {
				t.Fatal(err)
			}
			r.events.await(filled, 1)
			r.registry.Fault(upstreamtest.Fault{Status: 403})
			if err := ask(r, img); oci.KindOf(err) != oci.Denied {
				t.Fatalf("refused: %v", err)
			}
			r.registry.Down()
			if m, err := r.Manifest(t.Context(), r.tag("v1"), nil, false); err == nil {
				t.Errorf("the tag's manifest: %q", m.Bytes)
			}
			if _, err := r.Manifest(t.Context(), r.ref(img.Manifest), nil, false); err == nil {
				t.Error("the manifest is served")
			}
			if _, way, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err == nil {
				t.Errorf("the layer is served: %v", way)
			}
			r.registry.ClearFaults()
			r.registry.Up()
			r.mustFind(r.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
			r.registry.Down()
			if _, _, err := r.pull(r.ref(img.Layers[0]), layer, 0, -1); err != nil {
				t.Errorf("let in again: %v", err)
			}
		})
	}
}

// Serving a stale tag is not a new grant of the registry.
func TestAStaleTagVouchesForNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := newTagged([]byte("a layer"))
		m := fakeMesh(t, dir, 2, up, grants.Site{Private: true, StaleIfError: 24 * time.Hour})
		defer m.end()
		n := m.nodes[1]
		tag := fakeRef("")
		tag.Tag = "v1"
		then := time.Now()
		if _, err := n.Manifest(t.Context(), tag, nil, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour) // in the bubble's time
		up.down = true
		found, err := n.Manifest(t.Context(), tag, nil, false)
		if err != nil || found.Stale == nil {
			t.Fatalf("%+v, %v", found, err)
		}
		for as, d := range map[oci.Resource]digest.Digest{oci.ManifestResource: digest.FromString(up.now), oci.BlobResource: digest.FromString("a layer")} {
			if at := n.GrantedAt(fakeRef(d), as); !at.Equal(then) {
				t.Errorf("the grant is of %v, but the registry has been down since %v", at, then)
			}
		}
	})
}

// The grant is noted before the first client has the last byte. A later request need not
// ask the registry.
func TestADeliveryVouchesAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{private: all})
	for seed := range uint64(50) {
		content := random(100+seed, 10*kib)
		ref := r.ref(r.registry.PutBlob(repo, content))
		a, err := r.Blob(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Send(t.Context(), writer(func(p []byte) (int, error) {
			_, _, err := r.pull(ref, content, 0, -1)
			return len(p), err
		}), 0, -1)
		if err := errors.Join(err, a.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.registry.Count("HEAD", "/blobs/"); n != 0 {
		t.Errorf("the registry was asked %d times more", n)
	}
}

// A writer is a function as an io.Writer.
type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
