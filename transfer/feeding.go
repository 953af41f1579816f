package transfer

import (
	"context"
	"errors"
	"io"
	"strings"

	"oci-proxy/transfer/feed"
	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A large blob spreads over the members as transfer/feed says. Here this node is the root, or
// feeds a member that a root sent here. Who may have the blob was decided before, as always.

// feeding says who is to send a blob that is open for a member.
func (h holder) feeding(q grants.Request, size int64, terms mesh.Terms, asker string) oci.Feeding {
	if !terms.Feed.Asks || terms.Held || size < feed.Least {
		return oci.Feeding{}
	}
	usable := func(id string) bool {
		p := h.f.mesh.Peer(id)
		return p != nil && len(h.f.mesh.Trusted(q.Ref, []mesh.Peer{p})) > 0
	}
	own, feeder, by := h.f.trees.Place(spreads(q), feed.Asker{
		ID: asker, Zone: terms.Feed.Zone, Not: strings.Fields(terms.Feed.Not), Here: terms.Feed.Here, Usable: usable,
	}, terms.Feed.Seat)
	return oci.Feeding{Seat: own, Feeder: feeder.ID, By: by}
}

// spreads names what spreads together: of a private registry, only a repository's blob may
// be had by way of a node that gets it.
func spreads(q grants.Request) string {
	if q.Private {
		return q.Registry + " " + q.Repository + " " + q.Digest.String()
	}
	return q.Registry + " " + q.Digest.String()
}

// Report implements mesh.Holder.
func (h holder) Report(ref oci.Ref, how mesh.Report, asker string) mesh.Progress {
	p := h.Progress(ref)
	leave, next := h.f.trees.Told(spreads(h.request(ref)), asker, how.Seat, how.Came, p.Offset)
	p.Leave, p.Next = leave, next.Milliseconds()
	return p
}

// errLeft: the flight that feeds a member has left its own feeder for a source outside the
// tree, which might be one that waits for the member.
var errLeft = errors.New("this node feeds the member no more")

// A serving is a blob that a flight with a seat feeds a member.
type serving struct {
	*Answer
	left <-chan struct{} // closed when the flight gives the seat up
}

// servingOf returns a as it is given to the member whose ticket t is.
func servingOf(t *flight.Ticket, a *Answer) mesh.Blob {
	if t.Left() == nil || a.flight == nil {
		return a
	}
	return serving{a, t.Left()}
}

// Send implements mesh.Blob.
func (s serving) Send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-s.left:
			end(errLeft)
		case <-ctx.Done():
		}
	}()
	return s.Answer.Send(ctx, w, off, n)
}
