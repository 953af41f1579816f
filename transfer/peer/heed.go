package peer

import (
	"errors"
	"fmt"
	"net/http"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// errRules: this node's access rules refuse what the sender asks for to the user that it
// asks for.
var errRules = errors.New("the access rules refuse it")

// heed lets requests through that this node's access rules allow to the user whom the
// sender asks for. A request without a repository is no user's: it takes what was offered.
// Otherwise the node answers as if it held nothing and could ask nobody; absent is that
// answer, nil for the usual one.
func (a *answers) heed(answer, absent func(*reply, *call) error) func(*reply, *call) error {
	return func(w *reply, c *call) error {
		if a.cfg.Refuses == nil || c.Repository == "" {
			return answer(w, c)
		}
		why := a.cfg.Refuses(c.user, c.Ref)
		switch {
		case why == nil:
			return answer(w, c)
		case absent != nil && (c.Held || c.Method == http.MethodGet):
			return absent(w, c)
		case c.Held:
			return oci.NotHeldError(c.Ref)
		default:
			return fmt.Errorf("%w: %w", errRules, why)
		}
	}
}

// noPresence answers a peek as a node does that does not have the blob.
func (a *answers) noPresence(w *reply, _ *call) error {
	w.Header().Set(headerPresence, presences[mesh.Absent])
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// noProgress shows that the node lives.
func (a *answers) noProgress(w *reply, _ *call) error { return sendJSON(w, mesh.Progress{}) }
