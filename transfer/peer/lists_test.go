package peer

import (
	"bytes"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// What a node keeps of lists it tells and gives to members, without asking the registry.
func TestKeptLists(t *testing.T) {
	bothWays(t, func(t *testing.T, _ *rig) {
		r := newRig(t, setup{site: grants.Site{StaleIfError: time.Hour}})
		img := r.registry.PutImage(repo, "v1", random(1, 10))
		tags := oci.Question{Ref: oci.Ref{Registry: r.registry.Host(), Repository: repo}, Query: "n=5&last=a"}
		referrers := oci.Question{Ref: r.ref(img.Manifest)}
		missing := oci.Question{Ref: oci.Ref{Registry: r.registry.Host(), Repository: repo, Tag: "v2"}, Accept: oci.Acceptable(nil)}
		for _, q := range []oci.Question{tags, referrers, missing} {
			_, err := r.b.LastWord(t.Context(), q)
			wantError(t, err, oci.NotFound)
		}
		first, asked := map[string]string{}, time.Now()
		for _, q := range []oci.Question{tags, referrers} {
			var body bytes.Buffer
			_, way, err := r.b.List(t.Context(), q, false, &body)
			if err != nil || way.Host != "node-b" || way.Origin != oci.Miss || way.Via == "" || way.Stale != nil {
				t.Fatalf("%+v, %v", way, err)
			}
			first[q.What()] = body.String()
		}
		if _, err := r.b.Tag(t.Context(), missing.Ref, nil); oci.KindOf(err) != oci.NotFound {
			t.Fatal(err)
		}
		r.registry.Down()
		for _, q := range []oci.Question{tags, referrers} {
			word, err := r.b.LastWord(t.Context(), q)
			if err != nil || word.No != nil || word.Sum != bodySum([]byte(first[q.What()])) || word.At.Before(asked.Add(-time.Second)) || word.At.After(time.Now()) {
				t.Errorf("%s: %+v, %v", q.What(), word, err)
			}
			var body bytes.Buffer
			_, way, err := r.b.List(t.Context(), q, true, &body)
			if err != nil || body.String() != first[q.What()] || way.Origin != oci.PeerHit || way.At.Before(asked.Add(-time.Second)) || way.At.After(time.Now()) {
				t.Errorf("%s: %s, %+v, %v", q.What(), &body, way, err)
			}
		}
		word, err := r.b.LastWord(t.Context(), missing)
		if err != nil || word.No == nil || word.No.Kind != oci.NotFound || word.No.Status != http.StatusNotFound || !word.No.Authoritative() {
			t.Errorf("a missing tag: %+v, %v", word, err)
		}
		_, _, err = r.b.List(t.Context(), oci.Question{Ref: tags.Ref}, true, new(bytes.Buffer))
		wantError(t, err, oci.NotFound)
	})
}

// That a page can't be put anywhere is no fault of the peer.
func TestASinkThatFailsPutsNoBlameOnTheNode(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.registry.PutImage(repo, "v1", random(1, 10))
	full := errors.New("no room")
	for range 2 * strikes {
		_, _, err := r.b.List(t.Context(), oci.Question{Ref: oci.Ref{Registry: r.registry.Host(), Repository: repo}}, false, failingSink{full})
		if !errors.Is(err, full) {
			t.Fatal(err)
		}
	}
	if !r.Healthy("b") {
		t.Error("the node is quarantined")
	}
}

// A failingSink takes nothing.
type failingSink struct{ err error }

func (s failingSink) Write([]byte) (int, error) { return 0, s.err }
func (failingSink) Reset()                      {}

// A kept answer comes with its age, and with how the registry fails now.
func TestKeptAnswersComeAsSuch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // no time passes on the way
		now := &oci.Error{Kind: oci.Limited, Registry: "x", By: oci.Registry, Status: 429, Reason: "slow down"}
		told := time.Now().Add(-time.Hour)
		sent := &oci.Error{Kind: oci.NotFound, Registry: "x", By: oci.Registry, Status: 404, Reason: "not found", Told: told, Err: now}
		got, err := decodeError(encodeError(sent), "reg.example.com")
		if err != nil || got.Kind != oci.NotFound || got.Told.After(told) || got.Told.Before(told.Add(-time.Minute)) {
			t.Fatalf("%+v, %v", got, err)
		}
		if e, ok := oci.AsError(got.Err); !ok || e.Kind != oci.Limited || e.Status != 429 || e.Registry != "reg.example.com" || !e.Relayed {
			t.Errorf("%+v", got.Err)
		}
		for _, lie := range []string{`{"kind":"not found","ago":-1,"instead":{"kind":"limited"}}`, `{"kind":"not found","ago":1,"instead":{"kind":"wonderful"}}`} {
			if e, err := decodeError(lie, "x"); err == nil {
				t.Errorf("%s becomes %+v", lie, e)
			}
		}
		if e, err := decodeError(`{"kind":"not found","ago":1}`, "x"); err != nil || !e.Told.IsZero() {
			t.Errorf("an age without a failure: %+v, %v", e, err)
		}
	})
}
