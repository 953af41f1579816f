package peer

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// A node is not at fault for what a registry or a client sends. Otherwise anybody could
// make nodes quarantine each other.
func TestStrangersPutNoBlameOnNodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	odd := "application/" + strings.Repeat("x", 300)
	d := r.registry.PutManifest(repo, "v1", odd, []byte(`{"schemaVersion":2}`))
	tag := oci.Ref{Registry: r.registry.Host(), Repository: repo, Tag: "v1"}
	long := oci.Query("last=" + strings.Repeat("y", maxQuery))
	for range 2 * strikes {
		m, err := r.b.Manifest(t.Context(), r.ref(d), mesh.Terms{})
		if err != nil || oci.ShownType(m.MediaType) != "application/json" {
			t.Fatalf("%+v, %v", m, err)
		}
		m, err = r.b.Tag(t.Context(), tag, nil)
		if err != nil || oci.ShownType(m.MediaType) != "application/json" {
			t.Fatalf("%+v, %v", m, err)
		}
		_, _, err = r.b.List(t.Context(), oci.Question{Ref: tag.Repo(), Query: long}, false, new(bytes.Buffer))
		wantError(t, err, oci.Invalid)
	}
	if !r.Healthy("b") {
		t.Error("the node is quarantined")
	}
}

// A node is not at fault if the registry breaks off a blob, however often.
func TestARegistrysCutsPutNoBlameOnNodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for seed := range uint64(2 * strikes) {
		r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET"}, CutAfter: mib, Times: 1})
		r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET"}, Status: http.StatusRequestedRangeNotSatisfiable, Times: 2}) // for the rest, and for the whole
		_, _, err := pull(t.Context(), r.b, r.ref(r.registry.PutRandomBlob(repo, seed, 2*mib)), 0, false)
		wantPeerError(t, err, "broke off")
	}
	if !r.Healthy("b") {
		t.Error("the node is quarantined")
	}
}

// A node that breaks off a blob it holds is at fault.
func TestANodesOwnCutsAreItsFault(t *testing.T) {
	t.Parallel()
	c, b := liar(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerMark, version)
		if strings.HasPrefix(r.URL.Path, root+"progress/") {
			fmt.Fprint(w, `{"held":true,"offset":1000}`)
			return
		}
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, "the beginning")
	})
	for range strikes {
		s, err := b.Open(t.Context(), somewhere, 0, mesh.Terms{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(s.Body)
		wantPeerError(t, err, "broke off")
		_ = s.Body.Close()
	}
	if c.Healthy("b") {
		t.Error("the node is not quarantined")
	}
}
