package peer

import (
	"context"
	"errors"
	"strings"
	"testing"

	"oci-proxy/transfer/mesh"
)

// setupCertificates is a rig whose node answers questions about certificates with the asker and
// the length of the question.
func setupCertificates(secured bool) setup {
	return setup{tls: secured, certificates: func(_ context.Context, sender string, question []byte) (any, error) {
		return map[string]any{"sender": sender, "bytes": len(question)}, nil
	}}
}

// A member asks about certificates over TLS or loopback, with more than any other question may
// have.
func TestCertificates(t *testing.T) {
	t.Parallel()
	for _, secured := range []bool{true, false} {
		r := newRig(t, setupCertificates(secured))
		found, err := AskCertificates(t.Context(), r.Client, "b", []byte(strings.Repeat("q", maxVault)))
		if err != nil || string(found) != `{"bytes":65536,"sender":"a"}` {
			t.Errorf("TLS %v: found %s, %v", secured, found, err)
		}
		if _, err := AskCertificates(t.Context(), r.Client, "b", make([]byte, maxVault+1)); err == nil {
			t.Error("a question of any size is answered")
		}
		if !r.Healthy("b") {
			t.Error("it is quarantined")
		}
	}
}

// No key travels in the clear off this machine, and none comes from a node that keeps none. Other
// questions stay small.
func TestCertificatesAreGuarded(t *testing.T) {
	t.Parallel()
	r := newRig(t, setupCertificates(false))
	m, _ := r.members.get("b")
	m.Addr = "192.0.2.1:7947"
	r.members.put(m)
	_, err := AskCertificates(t.Context(), r.Client, "b", []byte("{}"))
	if p, ok := errors.AsType[*mesh.PeerError](err); !ok || !errors.Is(p.Err, errPlain) {
		t.Errorf("over plain HTTP: %v", err)
	}
	if _, err := newRig(t, setupCertificates(true)).Examine(t.Context(), "b", make([]byte, maxOffer+1)); err == nil {
		t.Error("another question of any size is answered")
	}
	none := newRig(t, setup{tls: true})
	for _, question := range []string{"{}", strings.Repeat("q", maxOffer+1)} {
		if found, err := AskCertificates(t.Context(), none.Client, "b", []byte(question)); err == nil {
			t.Errorf("a node that keeps none answers %s", found)
		}
	}
	for address, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "10.0.0.1:1": false, "localhost:1": false, "": false} {
		if local(address) != want {
			t.Errorf("%q: %v", address, !want)
		}
	}
}
