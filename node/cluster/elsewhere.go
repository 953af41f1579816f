package cluster

import (
	"context"

	"oci-proxy/ring"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// askAll is up to how many members all are asked who holds a blob. In a larger cluster
// those are that said so, that own it or did so before.
const askAll = 32

// heldElsewhere returns the id of another member that stays and holds the blob of ref's
// registry and digest, "" if none does. Those that are to keep it are asked first.
func (r *router) heldElsewhere(ctx context.Context, ref oci.Ref) (id string) {
	near, far := r.stayers(ref.Digest.String())
	if id = whoHolds(ctx, near, ref); id == "" {
		id = whoHolds(ctx, far, ref)
	}
	return id
}

// stayers lists the other members that are up: near are the owners of what key names and
// those that said that they hold it, far are others that may hold it.
func (r *router) stayers(key string) (near, far []mesh.Peer) {
	v := r.view()
	owners, n := v.Ring.Owners(key)
	is := map[string]bool{}
	for _, o := range owners[:n] {
		is[o.ID] = true
	}
	for _, id := range r.directories.of(v, key).names {
		is[id] = true
	}
	for i := range v.Members {
		one := &v.Members[i]
		switch {
		case !one.Up || one.ID == v.Self.ID || !r.client.Healthy(one.ID):
		case is[one.ID]:
			near = append(near, r.client.Peer(one.ID))
		case len(v.Members) <= askAll || formerly(v.Former, key, one.ID):
			far = append(far, r.client.Peer(one.ID))
		}
	}
	return near, far
}

// formerly reports whether the member owned what key names in one of the rings.
func formerly(rings []*ring.Ring, key, id string) bool {
	for _, r := range rings {
		if r.Owner(key).ID == id {
			return true
		}
	}
	return false
}

// whoHolds asks all of the peers at once whether they hold the blob, until one does, and
// returns that one's id. One that does not answer, or is about to leave, does not count.
func whoHolds(ctx context.Context, peers []mesh.Peer, ref oci.Ref) (id string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan string, len(peers))
	for _, p := range peers {
		go func() {
			if at, err := p.Progress(ctx, ref); err == nil && at.Held && !at.Leaves {
				answers <- p.ID()
			} else {
				answers <- ""
			}
		}()
	}
	for range peers {
		if id = <-answers; id != "" {
			return id
		}
	}
	return ""
}
