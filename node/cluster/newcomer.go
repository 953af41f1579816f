package cluster

import (
	"context"
	"errors"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// errUnmet says that a member asked this node before this one had met the others.
var errUnmet = errors.New("this node has just started and has not met the other members yet")

// A newcomer is a Holder that is asked by members as soon as they know of it, a moment before
// it knows of them. It would get from a registry what they have. So it meets them first.
type newcomer struct {
	mesh.Holder
	met <-chan struct{} // closed when it has, or has looked for MeetTime
}

// meeting lets the node meet the others, in the background, before holder is asked for what it
// does not hold.
func meeting(c *Cluster, holder mesh.Holder) mesh.Holder {
	met := make(chan struct{})
	if !c.reports.life.Go(func() {
		defer close(met)
		ctx, cancel := context.WithTimeout(c.reports.life.Context(), MeetTime)
		defer cancel()
		c.network.members.AwaitOthers(ctx)
	}) {
		close(met)
	}
	return newcomer{holder, met}
}

// await waits until the node has met the others.
func (n newcomer) await(ctx context.Context) error {
	select {
	case <-n.met:
		return nil
	case <-ctx.Done():
		return errUnmet
	}
}

// Blob implements mesh.Holder.
func (n newcomer) Blob(ctx context.Context, ref oci.Ref, terms mesh.Terms, asker string) (*mesh.Given, error) {
	if !terms.Held {
		if err := n.await(ctx); err != nil {
			return nil, err
		}
	}
	return n.Holder.Blob(ctx, ref, terms, asker)
}

// Manifest implements mesh.Holder.
func (n newcomer) Manifest(ctx context.Context, ref oci.Ref, terms mesh.Terms) (*oci.Found, error) {
	if !terms.Held {
		if err := n.await(ctx); err != nil {
			return nil, err
		}
	}
	return n.Holder.Manifest(ctx, ref, terms)
}
