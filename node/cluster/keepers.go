package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"oci-proxy/node/membership"
	"oci-proxy/transfer/peer"
)

// keptBy makes the order of keepers its own: see rank.
const keptBy = "tls.acme"

// Keepers are the members that keep certificates for the clients' port, as this node sees them
// now. They are those of `tls.acme`, and of a version that knows it.
type Keepers struct{ network *network }

// KeepersOf returns the keepers of a cluster, nil for a node on its own.
func KeepersOf(c *Cluster) *Keepers {
	if c.network == nil {
		return nil
	}
	return &Keepers{c.network}
}

// Self is this node's id.
func (k *Keepers) Self() string { return k.network.self().ID }

// Keeper is the id of the one that has the last word, "" if there is none: the first in an
// order of ids that all members know. All name the same one once they agree on who is there.
func (k *Keepers) Keeper() string {
	ids := k.up()
	if len(ids) == 0 {
		return ""
	}
	return slices.MinFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a, keptBy), rank(b, keptBy)), cmp.Compare(a, b))
	})
}

// Others are the ids of those that are up, but this node.
func (k *Keepers) Others() []string {
	self := k.Self()
	return slices.DeleteFunc(k.up(), func(id string) bool { return id == self })
}

// up lists the ids of those that are up.
func (k *Keepers) up() (ids []string) {
	for _, m := range k.network.members.View().Members {
		if m.Certificates && m.Up && m.State == membership.Active {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// Ask asks one of them, as peer.AskCertificates.
func (k *Keepers) Ask(ctx context.Context, id string, question []byte) (json.RawMessage, error) {
	return peer.AskCertificates(ctx, k.network.client, id, question)
}
