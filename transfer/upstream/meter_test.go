package upstream

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// A noted Meter notes what it hears, and how often.
type noted struct {
	mu  sync.Mutex
	all map[string]int
}

func (n *noted) note(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[string]int{}
	}
	n.all[what]++
}

func (n *noted) Asked(kind string, status int) { n.note(fmt.Sprint(kind, " ", status)) }
func (n *noted) Retried()                      { n.note("retried") }
func (n *noted) Token()                        { n.note("token") }
func (n *noted) Waited(time.Duration)          { n.note("waited") }
func (n *noted) Began(time.Duration)           { n.note("began") }
func (n *noted) Ended(time.Duration)           { n.note("ended") }

// wants fails the test unless all that was heard since the last call is this.
func (n *noted) wants(t *testing.T, what string, want map[string]int) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !maps.Equal(n.all, want) {
		t.Errorf("%s: the meter heard %v, want %v", what, n.all, want)
	}
	n.all = nil
}

// Each request is counted by what it asks for, wherever it leads, and so are its tries and
// tokens.
func TestRequestsAreMetered(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{}), upstreamtest.Redirect())
	img := reg.PutImage("org/app", "v1", []byte("a layer"))
	m := new(noted)
	c := newClient(t, Registry{Host: reg.Host(), Configured: true, Insecure: true, FollowRedirects: true, Meter: m})
	if _, err := c.Greet(t.Context(), reg.Host()); err != nil { // learns that it speaks plain HTTP
		t.Fatal(err)
	}
	m.wants(t, "a greeting", map[string]int{"ping 0": 1, "ping 401": 1, "token 200": 1, "token": 1, "ping 200": 1})
	ref := oci.Ref{Registry: reg.Host(), Repository: "org/app", Digest: img.Layers[0]}
	s, err := c.Open(t.Context(), ref, 0)
	if err != nil {
		t.Fatal(err)
	}
	m.wants(t, "a blob that is on its way", map[string]int{"waited": 1, "blob 401": 1, "token 200": 1, "token": 1, "blob 307": 1, "blob 200": 1, "began": 1})
	if _, err := io.Copy(io.Discard, s.Body); err != nil {
		t.Fatal(err)
	}
	if err := s.Body.Close(); err != nil {
		t.Fatal(err)
	}
	m.wants(t, "a blob that has come", map[string]int{"ended": 1})
	for kind, ref := range map[string]oci.Ref{
		"tag":      {Registry: reg.Host(), Repository: "org/app", Tag: "v1"},
		"manifest": {Registry: reg.Host(), Repository: "org/app", Digest: img.Manifest},
	} {
		reg.Fault(upstreamtest.Fault{Times: 1, Status: http.StatusInternalServerError})
		if _, err := c.Manifest(t.Context(), ref, oci.ManifestTypes); err != nil {
			t.Fatal(err)
		}
		m.wants(t, kind, map[string]int{"waited": 2, kind + " 500": 1, "retried": 1, kind + " 200": 1, "began": 2, "ended": 2})
	}
	reg.Down()
	_, err = c.Manifest(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "org/app", Tag: "v1"}, oci.ManifestTypes)
	if m.note("-"); err == nil || m.all["tag 0"] < 1 || m.all["began"] > 0 || m.all["ended"] < 1 {
		t.Errorf("an outage: the meter heard %v, %v", m.all, err)
	}
}

// What is asked for has one of few kinds, whatever clients name.
func TestKindsAreFew(t *testing.T) {
	t.Parallel()
	few := []string{"blob", "manifest", "tag", "tags", "referrers", "ping", "token"}
	for kind, a := range map[string]ask{
		"blob": {path: "blobs/" + helloDigest}, "manifest": {path: "manifests/" + helloDigest}, "tag": {path: "manifests/v1"},
		"tags": {path: "tags/list"}, "referrers": {path: "referrers/" + helloDigest}, "ping": {}, "token": {token: true},
	} {
		if got := a.kind(); got != kind || !slices.Contains(few, got) {
			t.Errorf("%+v is a %s, want %s", a, got, kind)
		}
	}
}
