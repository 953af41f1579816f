package cluster

import (
	"context"
	"errors"
	"testing"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A giver is a Holder that has everything.
type giver struct{ mesh.Holder }

// Blob implements mesh.Holder.
func (giver) Blob(context.Context, oci.Ref, mesh.Terms, string) (*mesh.Given, error) {
	return &mesh.Given{}, nil
}

// Manifest implements mesh.Holder.
func (giver) Manifest(context.Context, oci.Ref, mesh.Terms) (*oci.Found, error) {
	return &oci.Found{}, nil
}

// A node gets nothing for others before it has met them; what it holds it gives at once.
func TestNewcomerMeetsTheOthersFirst(t *testing.T) {
	t.Parallel()
	met := make(chan struct{})
	n := newcomer{giver{}, met}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	ask := func(ctx context.Context, held bool) (errs [2]error) {
		_, errs[0] = n.Blob(ctx, oci.Ref{}, mesh.Terms{Held: held}, "b")
		_, errs[1] = n.Manifest(ctx, oci.Ref{}, mesh.Terms{Held: held})
		return errs
	}
	for _, err := range ask(now, false) {
		if !errors.Is(err, errUnmet) {
			t.Errorf("not met: %v", err)
		}
	}
	for _, err := range ask(now, true) {
		if err != nil {
			t.Errorf("held: %v", err)
		}
	}
	close(met)
	for _, err := range ask(t.Context(), false) {
		if err != nil {
			t.Errorf("met: %v", err)
		}
	}
}
