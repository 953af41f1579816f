package transfer_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// These match requests for manifests.
var (
	heads        = upstreamtest.Match{Method: "HEAD", PathPart: "/manifests/"}
	manifestGets = upstreamtest.Match{Method: "GET", PathPart: "/manifests/"}
)

// wantAsked fails the test unless so many HEADs and GETs of manifests arrived.
func (r *rig) wantAsked(head, get int) {
	r.t.Helper()
	h, g := r.registry.Count("HEAD", "/manifests/"), r.registry.Count("GET", "/manifests/")
	if h != head || g != get {
		r.t.Errorf("%d HEADs and %d GETs reached the registry, want %d and %d", h, g, head, get)
	}
}

func TestAnUnchangedTagCostsHeadsOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	img := r.registry.PutImage(repo, "latest")
	if m := r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest); m.Checked || !m.Stored || m.Origin != oci.Miss {
		t.Errorf("at first: %+v", m.Provenance)
	}
	r.wantAsked(1, 1)
	for range 3 {
		if m := r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest); !m.Checked || m.Stale != nil {
			t.Errorf("later: %+v", m.Provenance)
		}
	}
	r.wantAsked(4, 1)
}

func TestAChangedTagIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for i := range 3 {
		img := r.registry.PutImage(repo, "latest", random(uint64(i), 10))
		m := r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
		if m.Checked != (i > 0) {
			t.Errorf("%+v", m.Provenance)
		}
	}
	r.wantAsked(3, 3)
}

func TestATagWhereHeadDoesNotTell(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]upstreamtest.Fault{
		"HEAD without a digest": {NoDigest: true},
		"HEAD not offered":      {Status: http.StatusMethodNotAllowed},
		"HEAD not implemented":  {Status: http.StatusNotImplemented},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			fault.Match = heads
			r.registry.Fault(fault)
			for i := range 2 {
				img := r.registry.PutImage(repo, "latest", random(uint64(i), 10))
				r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
				m, err := r.Manifest(t.Context(), r.tag("latest"), nil, true)
				if err != nil || m.Digest != img.Manifest {
					t.Errorf("HEAD: %+v, error %v", m, err)
				}
			}
			r.wantAsked(4, 4)
			each(20, func(int) {
				if m, err := r.Manifest(t.Context(), r.tag("latest"), nil, false); err != nil || len(m.Bytes) == 0 {
					t.Errorf("%+v, error %v", m, err)
				}
			})
		})
	}
}

func TestHeadOfATagGetsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	img := r.registry.PutImage(repo, "latest")
	for range 2 {
		m, err := r.Manifest(t.Context(), r.tag("latest"), nil, true)
		if err != nil || m.Digest != img.Manifest || m.Size != int64(len(img.ManifestBytes)) || m.MediaType != upstreamtest.TypeManifest {
			t.Errorf("HEAD: %+v, error %v", m, err)
		}
	}
	r.wantAsked(2, 0)
}

func TestConcurrentChecksOfATagAreOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	img := r.registry.PutImage(repo, "latest")
	release := r.registry.Hold(heads)
	const n = 50
	arrived := make(chan struct{}, n)
	done := make(chan int)
	go func() {
		joined := make(chan bool, n)
		each(n, func(int) {
			ctx := &noticed{Context: t.Context(), notice: func() { arrived <- struct{}{} }}
			m, err := r.Manifest(ctx, r.tag("latest"), nil, false)
			if err != nil || m.Digest != img.Manifest {
				t.Errorf("%+v, error %v", m, err)
				return
			}
			joined <- m.Collapsed
		})
		close(joined)
		k := 0
		for j := range joined {
			if j {
				k++
			}
		}
		done <- k
	}()
	for range n {
		<-arrived
	}
	r.registry.WaitFor(heads, 1)
	release()
	if k := <-done; k < 1 {
		t.Errorf("%d of %d joined", k, n)
	}
	// A request that began after the answer came asks again.
	if h := r.registry.Count("HEAD", ""); h > 3 {
		t.Errorf("%d HEADs", h)
	}
	if g := r.registry.Count("GET", ""); g != 1 {
		t.Errorf("%d GETs", g)
	}
}

// A noticed context tells when somebody first waits for it or derives a context from it.
type noticed struct {
	context.Context
	notice func()
	told   bool
}

func (n *noticed) Done() <-chan struct{} {
	if !n.told {
		n.told = true
		n.notice()
	}
	return n.Context.Done()
}

func TestTheAcceptListDecidesWhatATagMeans(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	img := r.registry.PutImage(repo, "latest")
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	sent := map[string][]string{}
	for name, accept := range map[string][]string{
		"none": nil, "any": {"*/*"}, "a list": {upstreamtest.TypeIndex, docker}, "unknown": {"text/html"}, "one": {upstreamtest.TypeManifest, "text/html"},
	} {
		if m, err := r.Manifest(t.Context(), r.tag("latest"), accept, false); err != nil || m.Digest != img.Manifest {
			t.Errorf("%s: %+v, error %v", name, m, err)
		}
		all := r.registry.Requests()
		for _, q := range all {
			if q.Method == "HEAD" {
				sent[name] = q.Header.Values("Accept")
			}
		}
	}
	if got := sent["one"]; len(got) != 1 || got[0] != upstreamtest.TypeManifest {
		t.Errorf("upstream was told %q for a client that takes one type", got)
	}
	_, err := r.Manifest(t.Context(), r.tag("latest"), []string{docker}, false)
	wantKind(t, err, oci.NotFound)
	// If the manifest is missing for one kind of client, nothing changes for another kind.
	r.registry.Down()
	r.registry.Up()
	r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
}

func TestATagIsBelievedForItsTTL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir, policy: grants.Site{TagTTL: time.Hour}})
	img := r.registry.PutImage(repo, "latest")
	r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
	for range 3 {
		if m := r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest); m.Origin != oci.Hit {
			t.Errorf("it came as a %v", m.Origin)
		}
	}
	if m, err := r.Manifest(t.Context(), r.tag("latest"), nil, true); err != nil || m.Digest != img.Manifest {
		t.Errorf("HEAD: %+v, error %v", m, err)
	}
	r.wantAsked(1, 1)
	r.end()
	again := newRig(t, setup{dir: dir, registry: r.registry, policy: grants.Site{TagTTL: time.Hour}})
	again.mustFind(again.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
	r.wantAsked(1, 1)
}

func TestALastManifestStandsInWhileUpstreamFails(t *testing.T) {
	t.Parallel()
	down := func(r *rig) { r.registry.Down() }
	status := func(code int) func(*rig) {
		return func(r *rig) { r.registry.Fault(upstreamtest.Fault{Status: code, Header: later}) }
	}
	for name, test := range map[string]struct {
		fail  func(*rig)
		kind  oci.Kind
		stale bool
	}{
		"connection refused": {down, oci.Unavailable, true},
		"429":                {status(429), oci.Limited, true},
		"500":                {status(500), oci.Unavailable, true},
		"502":                {status(502), oci.Unavailable, true},
		"503":                {status(503), oci.Unavailable, true},
		"504":                {status(504), oci.Timeout, true},
		"401":                {status(401), oci.Denied, false},
		"403":                {status(403), oci.Denied, false},
		"404":                {status(404), oci.NotFound, false},
		"changed, but not to get": {func(r *rig) {
			r.registry.PutImage(repo, "latest", []byte("new"))
			r.registry.Fault(upstreamtest.Fault{Match: manifestGets, Status: 503, Header: later})
		}, oci.Unavailable, true},
		"changed, and corrupt": {func(r *rig) {
			r.registry.PutImage(repo, "latest", []byte("new"))
			r.registry.Fault(upstreamtest.Fault{Match: manifestGets, Wrap: forged})
		}, oci.Corrupt, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}})
			img := r.registry.PutImage(repo, "latest")
			r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
			test.fail(r)
			m, err := r.Manifest(t.Context(), r.tag("latest"), nil, false)
			if !test.stale {
				wantKind(t, err, test.kind)
				return
			}
			if err != nil || m.Digest != img.Manifest || len(m.Bytes) == 0 || m.Stale == nil || m.Stale.Kind != test.kind || m.Origin != oci.Hit {
				t.Fatalf("%+v, error %v", m, err)
			}
			if _, err := r.Manifest(t.Context(), r.tag("never-seen"), nil, false); err == nil {
				t.Error("a tag never seen was served")
			}
		})
	}
}

func TestA404ForgetsTheTag(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}})
	img := r.registry.PutImage(repo, "latest")
	r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
	r.registry.DeleteTag(repo, "latest")
	_, err := r.Manifest(t.Context(), r.tag("latest"), nil, false)
	wantKind(t, err, oci.NotFound)
	r.registry.Down()
	_, err = r.Manifest(t.Context(), r.tag("latest"), nil, false)
	if e := wantKind(t, err, oci.NotFound); e.Told.IsZero() {
		t.Errorf("%v is not marked as the registry's last answer", e)
	}
	r.mustFind(r.ref(img.Manifest), img.ManifestBytes, upstreamtest.TypeManifest)
}

func TestARestartKeepsTagAndManifest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	policy := grants.Site{StaleIfError: time.Hour}
	r := newRig(t, setup{dir: dir, policy: policy})
	img := r.registry.PutImage(repo, "latest")
	r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
	r.end()
	r.registry.Down()
	again := newRig(t, setup{dir: dir, registry: r.registry, policy: policy})
	if m := again.mustFind(again.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest); m.Stale == nil {
		t.Error("the stale manifest is not marked as stale")
	}
}

func TestAClientThatLeavesIsToldNothingStale(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}})
	img := r.registry.PutImage(repo, "latest")
	r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
	release := r.registry.Hold(heads)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := r.Manifest(ctx, r.tag("latest"), nil, false)
		ended <- err
	}()
	r.registry.WaitFor(heads, 2)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A registry may give a manifest by its tag and not by its digest, or name a digest in a
// HEAD that is not the tag's.
func TestATagWhoseManifestIsNotGivenByItsDigest(t *testing.T) {
	t.Parallel()
	answer := func(status int) func(img upstreamtest.Image) upstreamtest.Fault {
		return func(img upstreamtest.Image) upstreamtest.Fault {
			return upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET", PathPart: "/manifests/sha256:"}, Status: status}
		}
	}
	for name, faults := range map[string][]func(img upstreamtest.Image) upstreamtest.Fault{
		"400": {answer(400)}, "404": {answer(404)}, "405": {answer(405)}, "410": {answer(410)}, "501": {answer(501)},
		"other bytes": {func(upstreamtest.Image) upstreamtest.Fault {
			return upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET", PathPart: "/manifests/sha256:"}, Wrap: forged}
		}},
		"a HEAD that names another": {func(upstreamtest.Image) upstreamtest.Fault {
			return upstreamtest.Fault{Match: heads, WrongDigest: true}
		}},
		"a HEAD that names another, and its bytes by any digest": {
			func(upstreamtest.Image) upstreamtest.Fault {
				return upstreamtest.Fault{Match: heads, WrongDigest: true}
			},
			func(img upstreamtest.Image) upstreamtest.Fault {
				return upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET", PathPart: "/manifests/sha256:"}, Status: 200, Body: string(img.ManifestBytes)}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			img := r.registry.PutImage(repo, "latest")
			for _, fault := range faults {
				r.registry.Fault(fault(img))
			}
			r.mustFind(r.tag("latest"), img.ManifestBytes, upstreamtest.TypeManifest)
			if m, err := r.Manifest(t.Context(), r.tag("latest"), nil, true); err != nil || m.Digest != img.Manifest && faults[0](img).WrongDigest == false {
				t.Errorf("HEAD: %+v, %v", m, err)
			}
			if n := r.registry.Count("GET", "/manifests/latest"); n > 2 {
				t.Errorf("%d GETs by tag", n)
			}
		})
	}
}
