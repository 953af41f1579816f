package peer

import (
	"context"
	"net/http"
	"time"

	"oci-proxy/transfer/oci"
)

// longestPause is the longest that one member may have others wait. What a registry really
// says counts when this node asks it.
const longestPause = time.Hour

// Pause tells the member of that id that a registry asks to be left alone for that time, in
// whole seconds. It takes at most 2 s. A member of an earlier version does not know the
// request, which is an error like any other.
func (c *Client) Pause(ctx context.Context, id, registry string, d time.Duration) error {
	_, err := c.small(ctx, id, ask{
		method: http.MethodPost, path: root + "pauses", query: query{Ref: oci.Ref{Registry: registry}, pause: d}, word: true,
	}, 0, c.times.progress)
	return err
}
