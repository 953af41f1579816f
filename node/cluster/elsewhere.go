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

// heldElsewhere reports whether another member that stays holds the blob of ref's
// registry and digest. Those that are to keep it are asked first.
func (r *router) heldElsewhere(ctx context.Context, ref oci.Ref) bool {
	near, far := r.stayers(ref.Digest.String())
	return anyHolds(ctx, near, ref) || anyHolds(ctx, far, ref)
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

// anyHolds asks all of the peers at once whether they hold the blob, until one does. One
// that does not answer does not count.
func anyHolds(ctx context.Context, peers []mesh.Peer, ref oci.Ref) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan bool, len(peers))
	for _, p := range peers {
		go func() {
			at, err := p.Progress(ctx, ref)
			answers <- err == nil && at.Held
		}()
	}
	for range peers {
		if <-answers {
			return true
		}
	}
	return false
}
