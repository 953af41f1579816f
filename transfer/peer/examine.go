package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// errNoExamination: this node answers none.
var errNoExamination = errors.New("this node can't be examined")

// Examine asks the member of that id about itself, or about its way to a registry: what
// the question means is for those who ask and answer. The answer is at most 1 MiB of
// JSON. ctx and 39 s bound it. A member of an earlier version does not know the request,
// which is an error like any other: a *mesh.PeerError.
func (c *Client) Examine(ctx context.Context, id string, question []byte) (json.RawMessage, error) {
	a, err := c.small(ctx, id, ask{method: http.MethodPost, path: root + "examinations", body: question}, maxJSON, c.times.call)
	if err != nil {
		return nil, err
	}
	if !json.Valid(a.body) {
		return nil, c.garbled(a.link, errors.New("what it found is not JSON"))
	}
	return bytes.TrimSpace(a.body), nil
}

// postExamination says what this node finds.
func (a *answers) postExamination(w *reply, c *call) error {
	if a.cfg.Examine == nil {
		return errNoExamination
	}
	ctx, cancel := context.WithTimeout(c.Context(), examineTime)
	defer cancel()
	found, err := a.cfg.Examine(ctx, c.body)
	if err != nil {
		return fmt.Errorf("examining this node: %w", err)
	}
	return sendJSON(w, found)
}
