package mesh

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"oci-proxy/transfer/oci"
)

func TestPeersPassedOverAreCountedByReason(t *testing.T) {
	t.Parallel()
	peer := func(err error) error { return &PeerError{Peer: "b", Err: err} }
	for want, err := range map[string]error{
		"failed":   peer(errors.New("connection refused")),
		"hangs":    peer(ErrHangs),
		"slow":     peer(ErrCrawls),
		"lies":     peer(ErrLies),
		"busy":     &PeerError{Peer: "b", Busy: true},
		"lacks":    oci.NotHeldError(oci.Ref{}),
		"registry": &oci.Error{Kind: oci.Timeout},
		"no_way":   &oci.Error{Kind: oci.Unavailable, Unreached: true},
	} {
		registries := 0
		m := New(Config{Log: slog.New(slog.DiscardHandler), Passed: func(string) { registries++ }})
		m.PassOver(t.Context(), oci.Ref{}, &member{id: "b"}, err)
		got := m.Passed()
		if got[want] != 1 || registries != 1 || len(got) != int(reasons) {
			t.Errorf("%v: %v, want %s", err, got, want)
		}
	}
	if got := reasonOf(peer(ErrDrips)); got != forSlow {
		t.Errorf("a peer that drips is passed over because it %s", reasonNames[got])
	}
	if got := reasonOf(context.Canceled); got != forFailed {
		t.Errorf("any other error is %s", reasonNames[got])
	}
}
