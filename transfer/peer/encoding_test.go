package peer

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

func FuzzDecodeError(f *testing.F) {
	f.Add(encodeError(&oci.Error{Kind: oci.Denied, Registry: "r", Host: "h", By: oci.TokenServer, Status: 403, Reason: "no", RetryAfter: 5}))
	f.Add(`{"kind":"denied","status":403}`)
	f.Add(`{"kind":"not found","by":"registry","status":404,"ago":5,"instead":{"kind":"limited","status":429}}`)
	f.Add(`{"kind":"not found","by":"a newer party","status":404}`)
	f.Add(`{"kind":"limited","retry_after":1e300,"status":-1}`)
	f.Add(`{"kind":"timeout","reason":"\u0000\u202e<\ud800"}`)
	f.Fuzz(func(t *testing.T, s string) {
		e, err := decodeError(s, "here")
		if err != nil {
			return
		}
		if e.Registry != "here" || len(e.Reason) > maxReason || len(e.Host) > maxWord || e.RetryAfter < 0 || e.Kind.String() == "" {
			t.Errorf("%q: %+v", s, e)
		}
		line := encodeError(e)
		if strings.ContainsAny(line, "\r\n\x00") || len(line) > maxHeader/2 {
			t.Errorf("%q can't stand in a header", line)
		}
		again, err := decodeError(line, "here")
		if err != nil || again.Kind != e.Kind || again.Reason != e.Reason || again.Host != e.Host || again.By != e.By || again.Status != e.Status || again.Told.IsZero() != e.Told.IsZero() {
			t.Errorf("%+v came back as %+v, %v", e, again, err)
		}
	})
}

// names leaves each name as it is written.
var names = oci.Names{Canonical: func(s string) string { return s }, Known: func(string) bool { return false }}

func FuzzParseQuery(f *testing.F) {
	f.Add("registry=ghcr.io&repository=org%2Fapp&tag=v1&accept=a/b&held=1&vouched=1&n=5")
	f.Add("registry=a:0&digest=sha256:00")
	f.Add("registry=a:0&repository=nowhere&lost=org%2Fapp&blob=1&tag=v1")
	f.Add("registry=localhost:5000&repository=a__b/c.d-e&digest=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824&%")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			return
		}
		if !q.WellFormed() || q.Registry == "" || len(q.accept) > maxAccept {
			t.Errorf("%q: %+v", raw, q)
		}
		if q.Repository != "" {
			// Peers may ask for everything that clients may ask for.
			if _, err := oci.ParsePath("/v2/"+q.Repository+"/tags/list", q.Registry, names); err != nil {
				t.Errorf("%q: %v", raw, err)
			}
		}
		q.inList = q.Digest != ""
		again, err := parseQuery(q.encode())
		if err != nil || again.Ref != q.Ref || again.Terms != q.Terms || again.lost != q.lost || again.blob != q.blob || again.peek != q.peek || again.list != q.list {
			t.Errorf("%q: %+v came back as %+v, %v", raw, q, again, err)
		}
	})
}

// FuzzNames checks that peers may ask for everything that clients may ask for.
func FuzzNames(f *testing.F) {
	f.Add("team/app", "ghcr.io")
	f.Add("a--b/c__d", "localhost:5000")
	f.Fuzz(func(t *testing.T, repository, registry string) {
		req, err := oci.ParsePath("/v2/"+repository+"/tags/list", registry, names)
		if err != nil || registry == "" {
			return
		}
		if !req.WellFormed() {
			t.Errorf("clients may ask for %q of %q, and peers may not", req.Repository, req.Registry)
		}
	})
}

func TestWhoAnsweredIsSent(t *testing.T) {
	t.Parallel()
	for by := oci.Nobody; by <= oci.Middlebox; by++ {
		got, err := decodeError(encodeError(&oci.Error{Kind: oci.Denied, By: by, Status: 403}), "here")
		if err != nil || got.By != by {
			t.Errorf("%v came as %+v, %v", by, got, err)
		}
	}
	for sent, want := range map[string]oci.Party{
		`{"kind":"denied","status":401}`:                               oci.Registry, // as an older member sends it
		`{"kind":"denied","status":403}`:                               oci.Registry,
		`{"kind":"not found","status":404}`:                            oci.Registry,
		`{"kind":"not found"}`:                                         oci.Nobody,
		`{"kind":"limited","status":429}`:                              oci.Nobody,
		`{"kind":"unavailable","status":503}`:                          oci.Nobody,
		`{"kind":"denied","status":403,"by":"nobody"}`:                 oci.Nobody,
		`{"kind":"denied","status":403,"by":"storage"}`:                oci.Storage,
		`{"kind":"denied","status":403,"by":"a newer member's party"}`: oci.Nobody,
	} {
		if got, err := decodeError(sent, "here"); err != nil || got.By != want {
			t.Errorf("%s: by %v, %v; want %v", sent, got.By, err, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{"0.05": "50ms", "0": "10ms", "5": "200ms", "NaN": "200ms", "-1": "200ms", "": "200ms", "1e400": "200ms"} {
		if got := retryAfter(s); got.String() != want {
			t.Errorf("%q: %v, want %s", s, got, want)
		}
	}
}

func TestProgressIsSentAsOlderMembersReadIt(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(mesh.Progress{Held: true, Offset: 1, Streams: 2})
	if err != nil || string(b) != `{"held":true,"offset":1,"streams":2}` {
		t.Errorf("%s, %v: another version would not understand it", b, err)
	}
}

// If the owner got a blob from a third node's shard, the registry was not asked.
func TestThirdNodesHitIsAPeersHit(t *testing.T) {
	t.Parallel()
	for from, want := range map[oci.Origin]oci.Origin{
		oci.Miss: oci.Miss, oci.Hit: oci.PeerHit, oci.PeerHit: oci.PeerHit,
	} {
		h := http.Header{}
		setProvenance(h, oci.Provenance{Origin: from}, "node-b", false)
		if way, err := readProvenance(h, "node-b", "here", time.Now()); err != nil || way.Origin != want {
			t.Errorf("%v at the peer is %v here, %v", from, way.Origin, err)
		}
	}
}

// A registry's answer does not become younger on its way from node to node.
func TestAges(t *testing.T) {
	t.Parallel()
	asked := time.Now()
	for _, at := range []time.Time{asked, asked.Add(-time.Hour), asked.Add(-24 * 365 * time.Hour)} {
		h := http.Header{}
		setProvenance(h, oci.Provenance{At: at}, "node-b", true)
		way, err := readProvenance(h, "node-b", "here", asked)
		if off := at.Sub(way.At); err != nil || off < 0 || off > time.Minute {
			t.Errorf("%v came as %v, %v", at, way.At, err)
		}
	}
	for s, ok := range map[string]bool{"": true, "0": true, "-1": false, "1e3": false, "3153600000001": false, "99999999999999999999": false} {
		way, err := readProvenance(http.Header{headerAge: {s}}, "node-b", "here", asked)
		if ok != (err == nil) || ok && !way.At.Equal(asked) {
			t.Errorf("an age of %q: %v, %v", s, way.At, err)
		}
	}
}

func TestAgesTravel(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{site: grants.Site{Private: true, TagTTL: time.Hour}})
	img := r.registry.PutImage(repo, "v1", []byte("a layer"))
	tag := oci.Ref{Registry: r.registry.Host(), Repository: repo, Tag: "v1"}
	ask := func() (ats [4]time.Time) {
		t.Helper()
		found, err := r.b.Tag(t.Context(), tag, nil)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := r.b.Manifest(t.Context(), r.ref(img.Manifest), mesh.Terms{})
		if err != nil {
			t.Fatal(err)
		}
		_, stream, err := pull(t.Context(), r.b, r.ref(img.Layers[0]), 0, false)
		if err != nil {
			t.Fatal(err)
		}
		_, way, err := r.b.Stat(t.Context(), r.ref(img.Layers[0]))
		if err != nil {
			t.Fatal(err)
		}
		return [4]time.Time{found.At, manifest.At, stream.At, way.At}
	}
	ask()
	known := time.Now()
	for i, at := range ask() {
		if !at.Before(known) {
			t.Errorf("answer %d counts from %v after the node knew it", i, at.Sub(known))
		}
	}
}
