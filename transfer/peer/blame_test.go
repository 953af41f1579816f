package peer

import (
	"net/url"
	"strings"
	"testing"

	"oci-proxy/transfer"
)

// What a registry or a client makes up is no fault of the node that passes it
// on: else anybody could make the nodes pass each other over.
func TestStrangersPutNoBlameOnNodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	odd := "application/" + strings.Repeat("x", 300)
	d := r.registry.PutManifest(repo, "v1", odd, []byte(`{"schemaVersion":2}`))
	tag := transfer.Ref{Registry: r.registry.Host(), Repository: repo, Tag: "v1"}
	long := url.Values{"last": {strings.Repeat("y", maxQuery)}}
	for range 2 * strikes {
		_, err := r.b.Manifest(t.Context(), r.ref(d), transfer.Terms{})
		wantError(t, err, transfer.Corrupt)
		_, err = r.b.Tag(t.Context(), tag, nil)
		wantError(t, err, transfer.Corrupt)
		_, err = r.b.Tags(t.Context(), tag, long)
		wantError(t, err, transfer.Invalid)
	}
	if !r.Healthy("b") {
		t.Error("the node is passed over")
	}
}
