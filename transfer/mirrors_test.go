package transfer_test

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mirrors"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// A mirrored rig is one whose registry has a mirror. Both hold an image at v1.
type mirrored struct {
	*rig
	mirror *upstreamtest.Registry
	img    upstreamtest.Image
	layer  []byte
}

// newMirrored builds a mirrored rig.
func newMirrored(t *testing.T, s setup, tags bool) *mirrored {
	t.Helper()
	m := &mirrored{mirror: upstreamtest.New(t), layer: random(7, 300*kib)}
	s.registry = upstreamtest.New(t, s.options...)
	s.registries, s.mirrors = []*upstreamtest.Registry{m.mirror}, []mirrors.Mirror{{Host: m.mirror.Host(), Tags: tags}}
	m.img = s.registry.PutImage(repo, "v1", m.layer)
	m.mirror.PutImage(repo, "v1", m.layer)
	m.rig = newRig(t, s)
	return m
}

// manifest gets the image's manifest by digest, or by tag.
func (m *mirrored) manifest(tag bool) (*oci.Found, error) {
	ref := m.ref(m.img.Manifest)
	if tag {
		ref = m.tag("v1")
	}
	found, err := m.Manifest(context.Background(), ref, nil, false)
	if err == nil {
		err = found.Close()
	}
	return found, err
}

// asked returns how many requests for a path with that part reached a registry.
func asked(r *upstreamtest.Registry, part string) (n int) {
	for _, q := range r.Requests() {
		if strings.Contains(q.Path, part) {
			n++
		}
	}
	return n
}

// With the registry down digests go on by the mirror. A tag is stale if it is known, and an
// error that names the registry if it is not.
func TestMirrorsOutliveTheRegistry(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"a known tag": true, "an unknown tag": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMirrored(t, setup{policy: grants.Site{StaleIfError: time.Hour}}, false)
			if known {
				if _, err := m.manifest(true); err != nil {
					t.Fatal(err)
				}
			}
			m.registry.Down()
			m.mustPull(m.ref(m.img.Layers[0]), m.layer, oci.Miss)
			if found, err := m.manifest(false); err != nil || found.Digest != m.img.Manifest {
				t.Errorf("by digest: %v", err)
			}
			if s, err := m.StatBlob(t.Context(), m.ref(m.img.Config)); err != nil || s.Size <= 0 {
				t.Errorf("a blob's size: %+v, %v", s, err)
			}
			found, err := m.manifest(true)
			switch {
			case known && (err != nil || found.Stale == nil || found.Digest != m.img.Manifest):
				t.Errorf("by tag: %+v, %v", found, err)
			case !known && (wantKind(t, err, oci.Unavailable).Registry != m.registry.Host()):
				t.Errorf("by tag: %v", err)
			}
			if n := asked(m.mirror, "/manifests/v1"); n != 0 {
				t.Errorf("a mirror that is not trusted was asked %d times what a tag means", n)
			}
			m.mirror.Down()
			if _, err := m.Blob(t.Context(), m.ref(digest.FromString("nowhere"))); wantKind(t, err, oci.Unavailable).Host != m.registry.Host() {
				t.Errorf("all down: %v", err)
			}
		})
	}
}

// A mirror that is trusted for tags stands in for the registry, which is not called stale then.
func TestATrustedMirrorTellsTags(t *testing.T) {
	t.Parallel()
	m := newMirrored(t, setup{}, true)
	m.registry.Down()
	if found, err := m.manifest(true); err != nil || found.Digest != m.img.Manifest || found.Stale != nil {
		t.Errorf("by tag: %+v, %v", found, err)
	}
	list, err := m.Tags(t.Context(), m.tag(""), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = list.Close() }() // only read
	var body bytes.Buffer
	if err := list.Send(&body); err != nil || !strings.Contains(body.String(), "v1") || list.Stale != nil {
		t.Errorf("the list is %q, %v", body.String(), err)
	}
}

// A mirror's wrong bytes reach nobody, and are not kept. It is told, and not asked again.
func TestAMirrorsLiesReachNobody(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size  int64
		fault upstreamtest.Fault
	}{
		"a small blob":        {100 * kib, upstreamtest.Fault{Corrupt: true, CorruptAt: 5}},
		"a large blob's end":  {6 * mib, upstreamtest.Fault{Corrupt: true, CorruptAt: 6*mib - 5}},
		"too short":           {100 * kib, upstreamtest.Fault{LieLength: -500}},
		"another blob":        {100 * kib, upstreamtest.Fault{Status: 200, Body: "not that"}},
		"a page for people":   {100 * kib, upstreamtest.Fault{Status: 200, Body: "<html>hello</html>", Header: http.Header{"Content-Type": {"text/html"}}}},
		"nothing":             {100 * kib, upstreamtest.Fault{Status: 200}},
		"it is cut, and cut":  {100 * kib, upstreamtest.Fault{CutAfter: 10 * kib}},
		"it has another size": {100 * kib, upstreamtest.Fault{LieLength: 700}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMirrored(t, setup{}, false)
			content := random(3, test.size)
			d := m.registry.PutBlob(repo, content)
			m.mirror.PutBlob(repo, content)
			test.fault.Match = upstreamtest.Match{Method: "GET", PathPart: "/" + d.String()}
			m.mirror.Fault(test.fault)
			m.mustPull(m.ref(d), content, oci.Miss)
			m.mustPull(m.ref(d), content, oci.Hit)
			if n := asked(m.mirror, d.String()); n < 1 || n > 6 {
				t.Errorf("the mirror was asked %d times", n)
			}
		})
	}
	t.Run("a manifest", func(t *testing.T) {
		t.Parallel()
		m := newMirrored(t, setup{}, false)
		m.mirror.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET", PathPart: "/manifests/"}, Status: 200, Body: `{"schemaVersion":2}`})
		if found, err := m.manifest(false); err != nil || found.Digest != m.img.Manifest {
			t.Error(err)
		}
		if !strings.Contains(m.events.text(), "mirror sent wrong bytes") {
			t.Errorf("the log says\n%s", m.events.text())
		}
	})
}

// What a mirror has of a private registry is for those alone for whom the registry vouches.
func TestAMirrorUnlocksNothingPrivate(t *testing.T) {
	t.Parallel()
	private := func(string) bool { return true }
	refusals := map[string]int{"404": 404, "403": 403, "401": 401}
	for name, status := range refusals {
		t.Run(name+" from the registry", func(t *testing.T) {
			t.Parallel()
			m := newMirrored(t, setup{private: private, policy: grants.Site{StaleIfError: time.Hour}}, true)
			secret := random(9, 20*kib)
			d := m.mirror.PutBlob(repo, secret) // the mirror alone has it
			m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: d.String()}, Status: status, Header: http.Header{"Docker-Distribution-Api-Version": {"registry/2.0"}}})
			for range 2 {
				if _, err := m.Blob(t.Context(), m.ref(d)); oci.KindOf(err) != oci.NotFound && oci.KindOf(err) != oci.Denied {
					t.Errorf("got %v", err)
				}
				if _, err := m.StatBlob(t.Context(), m.ref(d)); err == nil {
					t.Error("its size was told")
				}
			}
			if n := asked(m.mirror, d.String()); n != 0 {
				t.Errorf("the mirror was asked %d times", n)
			}
		})
	}
	t.Run("the registry is down and never vouched", func(t *testing.T) {
		t.Parallel()
		m := newMirrored(t, setup{private: private, policy: grants.Site{StaleIfError: time.Hour}}, true)
		m.registry.Down()
		for _, err := range []error{blobErr(m, m.img.Layers[0]), manifestErr(m, false), manifestErr(m, true)} {
			wantKind(t, err, oci.Unavailable)
		}
		if n := asked(m.mirror, "/v2/"); n != 0 {
			t.Errorf("the mirror was asked %d times", n)
		}
	})
	t.Run("it vouched and took it back", func(t *testing.T) {
		t.Parallel()
		m := newMirrored(t, setup{private: private, policy: grants.Site{StaleIfError: time.Hour}}, false)
		if _, err := m.manifest(true); err != nil {
			t.Fatal(err)
		}
		m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/manifests/"}, Status: 403, Header: http.Header{"Docker-Distribution-Api-Version": {"registry/2.0"}}})
		wantKind(t, manifestErr(m, true), oci.Denied)
		m.registry.Down()
		if err := blobErr(m, m.img.Layers[0]); err == nil {
			t.Error("the blob was served")
		}
	})
}

// What the registry vouched for comes from the mirror, also while the registry is down. The
// mirror's delivery is no word of the registry.
func TestAMirrorDeliversWhatThePrivateRegistryVouchedFor(t *testing.T) {
	t.Parallel()
	m := newMirrored(t, setup{private: func(string) bool { return true }, policy: grants.Site{StaleIfError: time.Hour}}, false)
	if found, err := m.manifest(true); err != nil || found.Digest != m.img.Manifest {
		t.Fatal(err)
	}
	m.registry.Down()
	m.mustPull(m.ref(m.img.Layers[0]), m.layer, oci.Miss)
	if n := asked(m.mirror, m.img.Layers[0].String()); n == 0 {
		t.Error("it did not come from the mirror")
	}
	other := m.ref(m.img.Layers[0])
	other.Repository = "team/other"
	if _, err := m.Blob(t.Context(), other); err == nil {
		t.Error("it was served for a repository that the registry did not vouch for")
	}
}

// blobErr pulls a blob and returns the error.
func blobErr(m *mirrored, d digest.Digest) error {
	a, err := m.Blob(context.Background(), m.ref(d))
	if err == nil {
		err = a.Close()
	}
	return err
}

// manifestErr gets the manifest and returns the error.
func manifestErr(m *mirrored, tag bool) error {
	_, err := m.manifest(tag)
	return err
}

// While little is left of a registry's limit, what is known of a tag is believed, and what is
// not known is asked for.
func TestTagsAreBelievedWhileTheLimitIsLow(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy grants.Site
		asks   int // how often the registry is asked in three pulls
	}{
		"low":                           {grants.Site{Spare: true, StaleIfError: time.Hour}, 1},
		"enough":                        {grants.Site{StaleIfError: time.Hour}, 3},
		"low, and stale is not allowed": {grants.Site{Spare: true}, 3},
		"low, and tags are believed":    {grants.Site{Spare: true, TagTTL: time.Hour}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{policy: test.policy})
			img := r.registry.PutImage(repo, "v1", random(1, 100))
			r.registry.PutImage(repo, "v2", random(2, 100))
			for range 3 {
				found, err := r.Manifest(t.Context(), r.tag("v1"), nil, false)
				if err != nil || found.Digest != img.Manifest || found.Stale != nil {
					t.Fatalf("got %+v, %v", found, err)
				}
				_ = found.Close()
			}
			if n := r.registry.Count("HEAD", "/manifests/v1"); n != test.asks {
				t.Errorf("the registry was asked %d times, want %d", n, test.asks)
			}
			if _, err := r.Manifest(t.Context(), r.tag("v2"), nil, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// A range can't be checked: it comes from the registry, or by the whole blob.
func TestRangesDoNotComeFromMirrorsThatAreNotTrusted(t *testing.T) {
	t.Parallel()
	m := newMirrored(t, setup{}, false)
	content := random(5, 3*mib)
	d := m.registry.PutBlob(repo, content)
	m.mirror.PutBlob(repo, content)
	m.mirror.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET", PathPart: d.String()}, Corrupt: true, CorruptAt: 10})
	a, err := m.Part(t.Context(), m.ref(d), func(int64) ([]oci.Span, int64) { return []oci.Span{{Offset: 5, Length: 20}}, 0 })
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := a.Send(t.Context(), &got, 5, 20); err != nil || !bytes.Equal(got.Bytes(), content[5:25]) {
		t.Errorf("got %x, %v", got.Bytes(), err)
	}
	_ = a.Close()
	if ranges := m.ranges(d); !slices.Contains(ranges, "bytes=5-24") && len(ranges) == 0 {
		t.Errorf("the registry was asked for %q", ranges)
	}
}
