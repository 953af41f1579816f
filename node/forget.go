package node

import (
	"encoding/json"
	"errors"
	"net/http"

	"oci-proxy/node/cluster"
	"oci-proxy/node/reply"
)

// maxForget bounds what is read of a request to forget a member, in bytes.
const maxForget = 1 << 10

// forget answers POST /_/forget, {"name": NAME}: the cluster no longer lists a member
// that died. The answer is a line of JSON.
func (n *Node) forget(w http.ResponseWriter, r *http.Request) {
	if !typed(w, r, "application/json") {
		return
	}
	var ask struct {
		Name string `json:"name"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxForget)).Decode(&ask); err != nil || ask.Name == "" {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: `the body must be {"name": "the name or id of a member that died"}`})
		return
	}
	count, err := n.cluster.Forget(ask.Name)
	if err != nil {
		status := http.StatusConflict
		if errors.Is(err, cluster.ErrNoSuchMember) {
			status = http.StatusNotFound
		}
		reply.Fail(w, status, reply.Error{Code: "UNSUPPORTED", Message: err.Error()})
		return
	}
	n.log.InfoContext(r.Context(), "member forgotten", "peer", ask.Name, "members", count, "client", n.gate.Address(r).String())
	line, err := json.Marshal(struct {
		Forgotten string `json:"forgotten"`
		Members   int    `json:"members"`
	}{ask.Name, count})
	if err != nil { // texts and numbers always encode
		line = []byte("{}")
	}
	w.Header().Set("Cache-Control", "no-store")
	reply.Body(w, "application/x-ndjson", append(line, '\n'))
}
