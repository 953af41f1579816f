package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// A Keeper tells what this node holds, and does what an operator asked another member for.
// Members are trusted: the one that was asked has seen who asks.
type Keeper interface {
	// Holdings tells what this node holds, as text of at most 128 MiB.
	Holdings(ctx context.Context) ([]byte, error)
	// Obey does what an operator wants. order is at most 4 KiB of JSON, the answer at most
	// 1 MiB.
	Obey(ctx context.Context, order json.RawMessage) (any, error)
}

var (
	errNoKeeper = errors.New("this node tells nobody what it holds")
	errHoldings = errors.New("it holds more than can be told")
)

// getHoldings tells what this node holds.
func (a *answers) getHoldings(w *reply, c *call) error {
	if a.cfg.Keeper == nil {
		return errNoKeeper
	}
	text, err := a.cfg.Keeper.Holdings(c.Context())
	if err == nil && len(text) > maxHoldings {
		err = errHoldings
	}
	if err != nil {
		return fmt.Errorf("telling what this node holds: %w", err)
	}
	return send(w, "text/plain", text)
}

// postOrder does what an operator asked the sender for.
func (a *answers) postOrder(w *reply, c *call) error {
	if a.cfg.Keeper == nil {
		return errNoKeeper
	}
	done, err := a.cfg.Keeper.Obey(c.Context(), c.body)
	if err != nil {
		return fmt.Errorf("doing what an operator wants: %w", err)
	}
	return sendJSON(w, done)
}

// Holdings asks a member what it holds, within most. Errors are *mesh.PeerError.
func Holdings(ctx context.Context, c *Client, id string, most time.Duration) ([]byte, error) {
	a, err := c.small(ctx, id, ask{method: http.MethodGet, path: root + "holdings", bulk: true, word: true}, maxHoldings, most)
	if err != nil {
		return nil, err
	}
	return a.body, nil
}

// MaxOrder bounds an order to a member, in bytes of JSON.
const MaxOrder = maxOffer

// Order asks a member to do what an operator wants, within most. order becomes at most
// MaxOrder bytes of JSON. Errors are *mesh.PeerError; a member of an earlier version, which
// knows no orders, has failed too.
func Order(ctx context.Context, c *Client, id string, order any, most time.Duration) (json.RawMessage, error) {
	b, err := json.Marshal(order)
	if err != nil || len(b) > MaxOrder {
		return nil, c.fails(id, errors.New("the order is too long"))
	}
	a, err := c.small(ctx, id, ask{method: http.MethodPost, path: root + "orders", body: b}, maxJSON, most)
	if err != nil {
		return nil, err
	}
	if !json.Valid(a.body) {
		return nil, c.garbled(a.link, errors.New("its answer to an order is not JSON"))
	}
	return a.body, nil
}
