// Package keeper does in this node's shards what an operator wants of all members: it
// tells what they hold, forgets images, pins content and verifies what is held.
//
// The node that an operator asked gives each member, itself included, an [Order]; members
// are sent it over the peers' protocol. The orders are small, so one task may take many:
// purge.go, pins.go and verify.go say what each does.
package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/holdings"
	"oci-proxy/transfer/wait"
)

// An Order is what one node is to do: exactly one of its fields is set.
type Order struct {
	Purge  *Purge  `json:"purge,omitempty"`
	Pin    *Pin    `json:"pin,omitempty"`
	Unpin  *Unpin  `json:"unpin,omitempty"`
	Verify *Verify `json:"verify,omitempty"`
}

// An Answer is what came of an Order.
type Answer struct {
	Error    string    `json:"error,omitempty"`
	Blobs    int       `json:"blobs,omitempty"` // of a purge: how many went
	Bytes    int64     `json:"bytes,omitempty"` // and how large they were
	Had      bool      `json:"had,omitempty"`   // of an unpin: it was pinned here
	Progress *Progress `json:"progress,omitempty"`
}

// Shards are where a node's content lies.
type Shards interface {
	// Shards lists them.
	Shards() []*grants.Shard
	// Shard returns that of a registry.
	Shard(registry string) *grants.Shard
}

// A Keeper does what operators want. Close it.
type Keeper struct {
	shards Shards
	log    *slog.Logger
	life   *wait.Life

	mu   sync.Mutex // guards the fields below; never held during I/O
	run  *run       // the last verification, nil for none
	last pinning    // the last one that began
}

// New returns a Keeper of shards.
func New(shards Shards, log *slog.Logger) *Keeper {
	return &Keeper{shards: shards, log: log, life: wait.NewLife()}
}

// Close ends what the keeper has under way.
func (k *Keeper) Close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	k.life.Close(now)
}

// Inventory tells what this node holds.
func (k *Keeper) Inventory(ctx context.Context) (*holdings.Inventory, error) {
	return holdings.Collect(ctx, k.shards.Shards())
}

// Holdings implements peer.Keeper.
func (k *Keeper) Holdings(ctx context.Context) ([]byte, error) {
	v, err := k.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	return v.Encode(), nil
}

// errOrder: an order says nothing, or more than one thing.
var errOrder = errors.New("the order can't be understood: the members run different versions")

// Obey implements peer.Keeper. What can't be done is told in the Answer.
func (k *Keeper) Obey(ctx context.Context, text json.RawMessage) (any, error) {
	var o Order
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, fmt.Errorf("reading an order: %w", err)
	}
	return k.Do(ctx, o), nil
}

// Do does what an order says.
func (k *Keeper) Do(ctx context.Context, o Order) Answer {
	switch {
	case o.Purge != nil:
		return k.purge(ctx, o.Purge)
	case o.Pin != nil:
		return k.pin(o.Pin)
	case o.Unpin != nil:
		return k.unpin(o.Unpin)
	case o.Verify != nil:
		return k.verify(o.Verify)
	default:
		return Answer{Error: errOrder.Error()}
	}
}
