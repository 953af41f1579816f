package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// bothWays runs a test over plain HTTP and over TLS.
func bothWays(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Parallel()
	for name, tls := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newRig(t, setup{tls: tls}))
		})
	}
}

func TestBlob(t *testing.T) {
	bothWays(t, func(t *testing.T, r *rig) {
		content := random(1, 3*mib+5)
		ref := r.ref(r.registry.PutBlob(repo, content))
		b, s, err := pull(t.Context(), r.b, ref, 0, false)
		if err != nil || !bytes.Equal(b, content) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if s.Offset != 0 || s.Size != int64(len(content)) || s.Hit || s.Host != "node-b" || !strings.HasPrefix(s.Via, "node-b; fwd=uri-miss") {
			t.Errorf("a miss: %+v", s)
		}
		settle(t, r, ref)
		for _, off := range []int64{0, 1, mib, 3*mib + 4} {
			b, s, err := pull(t.Context(), r.b, ref, off, true)
			if err != nil || !bytes.Equal(b, content[off:]) {
				t.Errorf("from %d on: %d bytes, %v", off, len(b), err)
			}
			if s.Offset != off || s.Size != int64(len(content)) || !s.Hit || s.Via != "node-b; hit" {
				t.Errorf("from %d on: %+v", off, s)
			}
		}
		if b, s, err := pull(t.Context(), r.b, ref, int64(len(content)), false); err != nil || len(b) != 0 || s.Offset != s.Size {
			t.Errorf("from its end on: %d bytes, %+v, %v", len(b), s, err)
		}
		_, _, err = pull(t.Context(), r.b, ref, int64(len(content))+1, false)
		wantPeerError(t, err, "does not answer")
	})
}

// settle waits until b holds the blob.
func settle(t testing.TB, r *rig, ref oci.Ref) {
	t.Helper()
	for {
		a, err := r.fetcher.Blob(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		hit := a.Origin == oci.Hit
		_, err = a.Send(t.Context(), io.Discard, 0, -1)
		if err := errors.Join(err, a.Close()); err != nil {
			t.Fatal(err)
		}
		if hit {
			return
		}
	}
}

func TestBlobOfUntoldSize(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	content := random(2, mib)
	r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/blobs/"}, NoLength: true})
	ref := r.ref(r.registry.PutBlob(repo, content))
	b, s, err := pull(t.Context(), r.b, ref, 0, false)
	if err != nil || !bytes.Equal(b, content) || s.Size >= 0 && s.Size != mib {
		t.Errorf("%d bytes, %+v, %v", len(b), s, err)
	}
}

func TestEmptyBlob(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	b, s, err := pull(t.Context(), r.b, r.ref(r.registry.PutBlob(repo, nil)), 0, false)
	if err != nil || len(b) != 0 || s.Size != 0 {
		t.Errorf("%d bytes, %+v, %v", len(b), s, err)
	}
}

func TestRedirectIsHandedOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{passOn: true, options: []upstreamtest.Option{upstreamtest.Redirect()}})
	ref := r.ref(r.registry.PutBlob(repo, []byte("hello")))
	s, err := r.b.Open(t.Context(), ref, 0, mesh.Terms{})
	if err != nil || s.Body != nil || !strings.HasPrefix(s.Redirect, "http://"+r.registry.CDNHost()+"/") {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestStat(t *testing.T) {
	bothWays(t, func(t *testing.T, r *rig) {
		ref := r.ref(r.registry.PutBlob(repo, random(1, 70*kib)))
		size, way, err := r.b.Stat(t.Context(), ref)
		if err != nil || size != 70*kib || way.Origin != oci.Miss || way.Host != "node-b" {
			t.Errorf("%d bytes, %+v, %v", size, way, err)
		}
		_, _, err = r.b.Stat(t.Context(), r.ref(digest.FromString("nowhere")))
		wantError(t, err, oci.NotFound)
	})
}

func TestTagAndManifest(t *testing.T) {
	bothWays(t, func(t *testing.T, r *rig) {
		img := r.registry.PutImage(repo, "v1", []byte("layer"))
		ref := oci.Ref{Registry: r.registry.Host(), Repository: repo, Tag: "v1"}
		found, err := r.b.Tag(t.Context(), ref, []string{upstreamtest.TypeManifest, "no media type", "*/*"})
		if err != nil {
			t.Fatal(err)
		}
		if found.Digest != img.Manifest || found.MediaType != upstreamtest.TypeManifest || found.Size != int64(len(img.ManifestBytes)) || found.Bytes != nil || found.Host != "node-b" {
			t.Errorf("tag: %+v", found)
		}
		for _, from := range []oci.Origin{oci.Miss, oci.PeerHit} {
			m, err := r.b.Manifest(t.Context(), r.ref(img.Manifest), mesh.Terms{})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.Bytes, img.ManifestBytes) || m.MediaType != upstreamtest.TypeManifest || m.Digest != img.Manifest || m.Size != found.Size || m.Origin != from || m.Stored {
				t.Errorf("manifest: %+v, want %v", m.Provenance, from)
			}
		}
	})
}

func TestStaleTagSaysWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{upstream: &failing{err: &oci.Error{Kind: oci.Limited, Status: 429, Reason: "slow down", RetryAfter: time.Minute}}, site: grants.Site{StaleIfError: time.Hour}})
	h := http.Header{}
	stale := &oci.Error{Kind: oci.Limited, Registry: "there", Host: "there:444", Status: 429, Reason: "slow\ndown – ü", RetryAfter: 1500 * time.Millisecond, Err: errors.New("stays")}
	setProvenance(h, oci.Provenance{Origin: oci.Hit, Collapsed: true, Stale: stale}, "node-b", true)
	asked := time.Now()
	way, err := readProvenance(h, "node-b", "here", asked)
	want := oci.Provenance{
		At:     asked,
		Origin: oci.PeerHit, Collapsed: true, Host: "node-b", Via: "node-b; fwd=stale; fwd-status=429; detail=stale-if-error; collapsed",
		Stale: &oci.Error{Kind: oci.Limited, Registry: "here", Host: "there:444", Status: 429, Reason: "slow?down – ü", RetryAfter: 1500 * time.Millisecond, Relayed: true},
	}
	if err != nil || !reflect.DeepEqual(way, want) {
		t.Errorf("%+v, %v; want %+v", way, err, want)
	}
	_, err = r.b.Tag(t.Context(), oci.Ref{Registry: r.registry.Host(), Repository: repo, Tag: "v1"}, nil)
	wantError(t, err, oci.Limited)
}

func TestLists(t *testing.T) {
	bothWays(t, func(t *testing.T, r *rig) {
		var subject upstreamtest.Image
		for i := range 5 {
			subject = r.registry.PutImage(repo, fmt.Sprintf("v%d", i), []byte("layer"))
		}
		ref := oci.Ref{Registry: r.registry.Host(), Repository: repo}
		got, pages := "", 0
		for query := oci.Query("n=2&cursor=x&tag=y"); query != ""; pages++ {
			var body bytes.Buffer
			page, _, err := r.b.List(t.Context(), oci.Question{Ref: ref, Query: query}, false, &body)
			if err != nil {
				t.Fatal(err)
			}
			got, query = got+body.String(), page.Next
		}
		if pages != 3 || !strings.Contains(got, "v0") || !strings.Contains(got, "v4") {
			t.Errorf("%d pages: %s", pages, got)
		}
		d := r.registry.PutManifest(repo, "", upstreamtest.TypeManifest, fmt.Appendf(nil, `{"artifactType":"a/b","subject":{"digest":%q}}`, subject.Manifest))
		var body bytes.Buffer
		page, _, err := r.b.List(t.Context(), oci.Question{Ref: r.ref(subject.Manifest), Query: "artifactType=a%2Fb"}, false, &body)
		if err != nil || !strings.Contains(body.String(), d.String()) || page.MediaType != upstreamtest.TypeIndex || page.Next != "" || page.Filters != "artifactType" {
			t.Errorf("%+v, %v", page, err)
		}
	})
}

func TestPeekAndProgress(t *testing.T) {
	bothWays(t, func(t *testing.T, r *rig) {
		ref := r.ref(r.registry.PutBlob(repo, random(1, mib)))
		if _, _, err := pull(t.Context(), r.b, ref, 0, false); err != nil {
			t.Fatal(err)
		}
		settle(t, r, ref)
		presence, err := r.b.Peek(t.Context(), ref)
		if want := r.fetcher.Holder().Presence(ref, "c"); err != nil || presence != want {
			t.Errorf("%v, %v; want %v", presence, err, want)
		}
		progress, err := r.b.Progress(t.Context(), ref)
		if want := r.fetcher.Holder().Progress(ref); err != nil || progress != want {
			t.Errorf("%v, %v; want %v", progress, err, want)
		}
		anywhere := ref
		anywhere.Repository = "" // as in an offer
		if _, err := r.b.Peek(t.Context(), anywhere); err != nil {
			t.Error(err)
		}
		if _, err := r.b.Progress(t.Context(), anywhere); err != nil {
			t.Error(err)
		}
	})
}

// Members of earlier versions, which know of no beginnings, take a member that has one for absent.
func TestABeginningIsToldBesideThePresence(t *testing.T) {
	t.Parallel()
	for want, name := range map[mesh.Presence]string{mesh.Begun: "absent", mesh.Absent: "absent", mesh.Held: "held"} {
		h := http.Header{}
		setPresence(h, want)
		if got, err := readPresence(h); got != want || err != nil || h.Get(headerPresence) != name {
			t.Errorf("%v, %v; want %v: %v", got, err, want, h)
		}
	}
}

func TestWhatPeekAndProgressSay(t *testing.T) {
	t.Parallel()
	for want, name := range presences {
		_, b := liar(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(headerMark, version)
			w.Header().Set(headerPresence, name)
			if r.Method == http.MethodGet {
				fmt.Fprint(w, `{"offset":5,"streams":2,"more":1}`)
			}
		})
		if got, err := b.Peek(t.Context(), somewhere); got != want || err != nil {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
		if got, err := b.Progress(t.Context(), somewhere); err != nil || got != (mesh.Progress{Offset: 5, Streams: 2}) {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func TestOffer(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	var back mesh.Peer
	ended := make(chan string, 1)
	r := newRig(t, setup{peer: func(id string) (mesh.Peer, func()) {
		asked <- id
		return back, func() { ended <- id }
	}})
	ref := oci.Ref{Registry: r.registry.Host(), Digest: digest.FromString("x")}
	err := r.b.Offer(t.Context(), ref, "")
	wantPeerError(t, err, "it failed to answer")
	if id := <-asked; id != "a" {
		t.Errorf("it wanted to ask %s", id)
	}
	if id := <-ended; id != "a" {
		t.Errorf("it asks %s no more", id)
	}
	err = r.b.Offer(t.Context(), oci.Ref{Registry: r.registry.Host(), Digest: "sha256:no"}, "")
	wantPeerError(t, err, "it failed to answer")
	err = r.b.Offer(t.Context(), ref, strings.Repeat("x", maxOffer))
	wantPeerError(t, err, "too long")
	if len(asked) > 0 {
		t.Error("it tried to take a malformed offer")
	}
}

func TestOfferEndsWithItsSender(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	began, ended := make(chan struct{}), make(chan struct{})
	to := r.server.table["POST offers"]
	to.answer = func(_ *reply, c *call) error {
		close(began)
		<-c.Context().Done()
		close(ended)
		return c.Context().Err()
	}
	r.server.table["POST offers"] = to
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	err := r.b.Offer(ctx, oci.Ref{Registry: r.registry.Host(), Digest: digest.FromString("x")}, "")
	if wantPeerError(t, err, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
}

func TestStatsAndPing(t *testing.T) {
	bothWays(t, func(t *testing.T, r *rig) {
		got, err := r.Stats(t.Context(), "b")
		if err != nil || string(got) != `{"hits":7}` {
			t.Errorf("%s, %v", got, err)
		}
		l, err := r.links.to("b")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.ping(l); err != nil {
			t.Error(err)
		}
		if r.b.ID() != "b" || r.b.Name() != "node-b" || !r.Healthy("b") {
			t.Errorf("%s, %s, healthy %v", r.b.ID(), r.b.Name(), r.Healthy("b"))
		}
	})
}

func TestUnknownMembers(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	_, err := r.Stats(t.Context(), "z")
	if e, ok := errors.AsType[*mesh.PeerError](err); !ok || e.Peer != "z" || !errors.Is(err, errUnknown) {
		t.Errorf("%v", err)
	}
	r.Peer("z").Fault(errLate)
	if r.Healthy("z") {
		t.Error("an unknown member counts as healthy")
	}
	if _, err := r.Stats(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	r.members.drop("b")
	if _, err := r.links.to("b"); !errors.Is(err, errUnknown) || len(linksOf(r.Client)) != 0 {
		t.Errorf("%v, %d links left", err, len(linksOf(r.Client)))
	}
	r.Close()
	r.members.put(Member{ID: "b", Addr: r.addr, Nonce: nonceB})
	if _, err := r.Stats(t.Context(), "b"); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestGoneMembersAreForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for _, id := range []string{"c", "d", "b"} {
		r.members.put(Member{ID: id, Addr: r.addr, Nonce: nonceB})
		if _, err := r.Stats(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		r.members.drop("c")
	}
	if n := len(linksOf(r.Client)); n != 2 {
		t.Errorf("%d links, want those to b and d", n)
	}
}

// When a member tells of a refusal, the grants of that repository end at once.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{site: grants.Site{Private: true, StaleIfError: time.Hour}})
	img := r.registry.PutImage(repo, "v1", []byte("a layer"))
	manifest := func() error {
		_, err := r.b.Manifest(t.Context(), r.ref(img.Manifest), mesh.Terms{})
		return err
	}
	if err := manifest(); err != nil {
		t.Fatal(err)
	}
	r.registry.Down()
	if err := manifest(); err != nil {
		t.Fatalf("vouched for: %v", err)
	}
	if err := r.b.Refused(t.Context(), r.ref(img.Manifest)); err != nil {
		t.Fatal(err)
	}
	wantError(t, manifest(), oci.Unavailable)
}

// When a member tells of a loss, the grant of that digest, as that kind, or of that tag
// ends.
func TestLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{site: grants.Site{Private: true, StaleIfError: time.Hour}})
	img := r.registry.PutImage(repo, "v1", []byte("a layer"))
	tag := oci.Ref{Registry: r.registry.Host(), Repository: repo, Tag: "v1"}
	manifest := func() error {
		_, err := r.b.Manifest(t.Context(), r.ref(img.Manifest), mesh.Terms{})
		return err
	}
	means := func() error {
		_, err := r.b.Tag(t.Context(), tag, nil)
		return err
	}
	if err := errors.Join(manifest(), means()); err != nil {
		t.Fatal(err)
	}
	r.registry.Down()
	if err := errors.Join(r.b.Lost(t.Context(), r.ref(img.Manifest), oci.BlobResource), manifest(), means()); err != nil {
		t.Errorf("it is no blob: %v", err)
	}
	if err := r.b.Lost(t.Context(), tag, oci.ManifestResource); err != nil {
		t.Error(err)
	}
	wantError(t, means(), oci.Unavailable)
	if err := errors.Join(manifest(), r.b.Lost(t.Context(), r.ref(img.Manifest), oci.ManifestResource)); err != nil {
		t.Error(err)
	}
	wantError(t, manifest(), oci.Unavailable)
}

// Members of earlier versions ignore parameters that they do not know. They take a loss
// for the refusal of a repository that no member has.
func TestALossSaysNothingToEarlierVersions(t *testing.T) {
	t.Parallel()
	ref := oci.Ref{Registry: "reg.example", Repository: repo, Digest: digest.FromString("x")}
	v, err := url.ParseQuery(query{Ref: ref, inList: true, lost: true, blob: true}.encode())
	if err != nil || v.Get("repository") == repo || v.Get("registry") != ref.Registry {
		t.Errorf("%v, %v", v, err)
	}
	v.Del("lost")
	if q, err := parseQuery(v.Encode()); err != nil || !repository(q) {
		t.Errorf("they can't read it: %v", err)
	}
}
