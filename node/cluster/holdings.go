package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"oci-proxy/node/membership"
	"oci-proxy/transfer/holdings"
	"oci-proxy/transfer/peer"
)

const (
	// holdingsTime bounds the telling of all that a member holds. The first time it may read
	// many manifests.
	holdingsTime = 60 * time.Second
	// holdingsWidth is how many members tell it at a time: it is large.
	holdingsWidth = 4
	// orderTime bounds what a member does on one order.
	orderTime = 60 * time.Second
)

// A Keeper is this node's.
type Keeper interface {
	peer.Keeper
	// Inventory tells what this node holds.
	Inventory(ctx context.Context) (*holdings.Inventory, error)
}

// Held is what one member holds.
type Held struct {
	ID, Name  string // no ID: this node
	Inventory *holdings.Inventory
	Err       error // why it is not known
}

// Holdings asks all members what they hold. This node is the first.
func Holdings(ctx context.Context, c *Cluster) []Held {
	own := Held{Name: c.cfg.Name}
	own.Inventory, own.Err = c.keeper.Inventory(ctx)
	out := []Held{own}
	if c.network == nil {
		return out
	}
	said := fanFor(ctx, c.network.members.View(), limits{holdingsTime, holdingsWidth}, func(ctx context.Context, m *membership.Member) (*holdings.Inventory, error) {
		text, err := peer.Holdings(ctx, c.network.client, m.ID, holdingsTime)
		if err != nil {
			return nil, err
		}
		v, err := holdings.Decode(text)
		if err != nil {
			return nil, fmt.Errorf("reading what %s holds: %w", m.Name, err)
		}
		return v, nil
	})
	for _, one := range said {
		out = append(out, Held{one.member.ID, one.member.Name, one.value, one.err})
	}
	return out
}

// Order makes a member do what an operator wants; without an id, this node. The answer is
// the Keeper's, as JSON.
func Order(ctx context.Context, c *Cluster, id string, order any) (json.RawMessage, error) {
	if id != "" {
		if c.network == nil {
			return nil, errors.New("there are no other members")
		}
		return peer.Order(ctx, c.network.client, id, order, orderTime)
	}
	text, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	done, err := c.keeper.Obey(ctx, text)
	if err != nil {
		return nil, err
	}
	return json.Marshal(done)
}

// Reachable lists the members, this node first, and why one can't be asked. None has an
// Inventory.
func Reachable(c *Cluster) []Held {
	out := []Held{{Name: c.cfg.Name}}
	if c.network == nil {
		return out
	}
	v := c.network.members.View()
	for i := range v.Members {
		m := &v.Members[i]
		if m.ID == v.Self.ID {
			continue
		}
		one := Held{ID: m.ID, Name: m.Name}
		if !m.Alive() {
			one.Err = errDown
		}
		out = append(out, one)
	}
	return out
}
