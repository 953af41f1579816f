package gate

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"oci-proxy/node/reply"
)

// RefuseBusy answers a pull that got no turn, here or at its registry, in the way
// that the client handles best. docker ends a pull at 429 and tries again after 503.
// For containerd and clients built on containers/image it is the other way round, but
// they try again at once, so their answer is held back for a moment.
func (g *Gate) RefuseBusy(w http.ResponseWriter, r *http.Request, message string, d *reply.Detail) {
	g.access().refuseBusy(w, r, message, d)
}

// refuseBusy is RefuseBusy.
func (a *access) refuseBusy(w http.ResponseWriter, r *http.Request, message string, d *reply.Detail) {
	status, code := http.StatusServiceUnavailable, "UNAVAILABLE"
	if retriesAt429(r.UserAgent()) {
		status, code = http.StatusTooManyRequests, "TOOMANYREQUESTS"
		a.throttle.delay(r.Context(), busyDelay)
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(busyRetry.Seconds())))
	d.RetryAfter = busyRetry.Seconds()
	reply.Fail(w, status, reply.Error{Code: code, Message: message, Detail: d})
}

// retriesAt429 tells clients by how their User-Agent begins.
func retriesAt429(agent string) bool {
	agent = strings.ToLower(agent)
	return slices.ContainsFunc([]string{"containerd/", "containers/", "skopeo/", "podman/", "libpod/", "buildah/", "cri-o/"}, func(name string) bool {
		return strings.HasPrefix(agent, name)
	})
}
