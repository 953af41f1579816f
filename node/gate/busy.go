package gate

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"oci-proxy/node/reply"
)

const (
	// busyRetry is when a client that was refused may come again.
	busyRetry = 10 * time.Second
	// busyDelay is how long the answer to a client that would come again at once
	// is held back.
	busyDelay = 2 * time.Second
)

// RefuseBusy answers a pull that got no turn (ErrBusy), in the way that the
// client handles best. docker ends a pull at 429 and tries again after 503. For
// containerd and clients built on containers/image it is the other way round, but
// they try again at once, so their answer is held back for a moment.
func (g *Gate) RefuseBusy(w http.ResponseWriter, r *http.Request) {
	status, code := http.StatusServiceUnavailable, "UNAVAILABLE"
	if retriesAt429(r.UserAgent()) {
		status, code = http.StatusTooManyRequests, "TOOMANYREQUESTS"
		g.access.throttle.delay(r.Context(), busyDelay)
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(busyRetry.Seconds())))
	reply.Fail(w, status, reply.Error{Code: code, Message: ErrBusy.Error(), Detail: &reply.Detail{Reason: ErrBusy.Error(), RetryAfter: busyRetry.Seconds()}})
}

// retriesAt429 tells clients by how their User-Agent begins.
func retriesAt429(agent string) bool {
	agent = strings.ToLower(agent)
	return slices.ContainsFunc([]string{"containerd/", "containers/", "skopeo/", "podman/", "libpod/", "buildah/", "cri-o/"}, func(name string) bool {
		return strings.HasPrefix(agent, name)
	})
}
