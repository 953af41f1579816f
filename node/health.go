package node

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
)

// health answers /_/health: the process is alive, and says what is broken.
func (n *Node) health(w http.ResponseWriter, _ *http.Request) {
	state := struct {
		Status  string   `json:"status"`
		Reasons []string `json:"reasons,omitempty"`
	}{Status: "healthy", Reasons: n.broken()}
	if len(state.Reasons) > 0 {
		state.Status = "degraded"
	}
	body, err := json.Marshal(state)
	if err != nil {
		body = []byte(`{"status":"degraded"}`) // strings: can't be
	}
	w.Header().Set("Cache-Control", "no-store")
	writeBody(w, "application/json", body)
}

// broken says what keeps the node from working as it should.
func (n *Node) broken() []string {
	var out []string
	for _, dir := range slices.Sorted(maps.Keys(n.stores)) {
		if err := n.stores[dir].Health(); err != nil {
			out = append(out, "cache_dir "+dir+": "+err.Error())
		}
	}
	if n.cert != nil {
		out = appendError(out, n.cert.name, n.cert.health())
	}
	if users := n.access.logins.users; users != nil {
		out = appendError(out, users.name, users.health())
	}
	if n.cluster != nil {
		if err := n.cluster.members.Health(); err != nil {
			out = append(out, "cluster: "+err.Error())
		}
	}
	return out
}

func appendError(out []string, name string, err error) []string {
	if err == nil {
		return out
	}
	return append(out, name+": "+err.Error())
}

// readiness answers /_/ready: whether the node should get traffic.
func (n *Node) readiness(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if !n.ready.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	writeBody(w, "application/json", []byte(`{"status":"ready"}`))
}
