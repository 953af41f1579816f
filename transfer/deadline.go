package transfer

import (
	"context"
	"time"

	"oci-proxy/transfer/oci"
)

// How long things may take. Each has to end before the next, so that what fails says
// why; TestDeadlinesAreInOrder states the order.
const (
	// stall is how long a download may stand still before it is tried again.
	stall = 20 * time.Second
	// sizeWithin is how long a client that asks for a range waits to hear the blob's size. A
	// registry that is slow to tell it is asked for the whole, and time is left for that.
	sizeWithin = 5 * time.Second
	// answerWithin is how long a client waits until its answer begins, or it is told why
	// not: some answers take two requests. Upstream has a second less for one request
	// (upstream.Within), since what it says about a failure says more.
	answerWithin = 39 * time.Second
	// promised is what the documents promise to clients.
	promised = 40 * time.Second
)

// inTime bounds the wait for ref's answer.
func inTime(ctx context.Context, ref oci.Ref) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, answerWithin, oci.LateError(ref, nil))
}
