package node

import (
	"net/http"

	"oci-proxy/node/reply"
)

// looped refuses a request that this node, or another member of its cluster, has sent
// itself: the registry's name, a redirect or a token server's realm leads back here.
// Otherwise each turn would send the next one. It reports whether it did.
func (n *Node) looped(w http.ResponseWriter, r *http.Request) bool {
	if !n.cluster.Marks().Passed(r.Header.Values("Via")) {
		return false
	}
	const reason = "the request comes from this proxy itself: the registry that it is for has a name that leads back here"
	reply.Fail(w, http.StatusLoopDetected, reply.Error{Code: "UNAVAILABLE", Message: reason, Detail: &reply.Detail{Reason: reason}})
	return true
}
