package mesh

import (
	"context"
	"slices"

	"oci-proxy/transfer/oci"
)

// Along asks the nodes on the route of key, one after the other, until one has an
// answer. own is this node's turn, ask asks another node.
//
// What a peer says for the registry is an answer too. A failure that may be due to the
// peer's own way out is tried at one more node, so that a sick registry is not asked by
// all. A node whose request reached the registry by no way, its own or another's, leaves it
// to this node, if that is on the route: it may know another.
func Along[T any](ctx context.Context, m *Mesh, ref oci.Ref, key string, own func(context.Context) (T, error), ask func(context.Context, Peer) (T, error)) (v T, err error) {
	failures, route := 0, m.Route(ref.Registry, key)
	for _, p := range route {
		if p == nil {
			return own(ctx)
		}
		v, last := Tend(ctx, m, p, ref, ask)
		e, spoken := oci.AsError(last)
		switch {
		case last == nil:
			return v, nil
		case ctx.Err() != nil:
			return v, context.Cause(ctx)
		case spoken && !e.OtherNodeMayHelp():
			return v, last
		case spoken && e.Unreached && slices.Contains(route, nil):
			m.PassOver(ctx, ref, p, last)
			return own(ctx)
		case spoken:
			if failures++; failures > 1 {
				return v, last
			}
		}
		m.PassOver(ctx, ref, p, last)
		err = last
	}
	return v, oci.UnansweredError(ref, err)
}

// Direct asks the registry for what no node keeps: this node does so if it may, otherwise a
// node that may.
func Direct[T any](ctx context.Context, m *Mesh, ref oci.Ref, own func(context.Context) (T, error), ask func(context.Context, Peer) (T, error)) (T, error) {
	if slices.Contains(m.Route(ref.Registry, ref.Registry), nil) {
		return own(ctx)
	}
	return Along(ctx, m, ref, ref.Repository, own, ask)
}
