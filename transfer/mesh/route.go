package mesh

import (
	"context"
	"slices"

	"oci-proxy/transfer/oci"
)

// Along asks the nodes on the route of key, one after the other, until one has an
// answer. own is this node's turn, ask asks another node.
//
// What a peer says for the registry is an answer too. Only a failure that may be
// due to a node's own way out is tried at one more node, so that a sick registry is
// not asked by all. This node knows of itself whether it was the way out: then there
// was no connection.
func Along[T any](ctx context.Context, m *Mesh, ref oci.Ref, key string, own func(context.Context) (T, error), ask func(context.Context, Peer) (T, error)) (v T, err error) {
	failures := 0
	for _, p := range m.Route(ref.Registry, key) {
		if p == nil {
			v, last := own(ctx)
			e, spoken := oci.AsError(last)
			if failures++; !spoken || !e.Unreached || ctx.Err() != nil || failures > 1 {
				return v, last
			}
			err = last
			continue
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
		case spoken:
			if failures++; failures > 1 {
				return v, last
			}
		}
		m.PassOver(ref, p, last)
		if _, told := oci.AsError(err); spoken || !told {
			err = last
		}
	}
	return v, oci.UnansweredError(ref, err)
}

// Direct asks the registry for what no node keeps: this node does so if it may and
// there is a way, otherwise a node that may.
func Direct[T any](ctx context.Context, m *Mesh, ref oci.Ref, own func(context.Context) (T, error), ask func(context.Context, Peer) (T, error)) (T, error) {
	if slices.Contains(m.Route(ref.Registry, ref.Registry), nil) {
		v, err := own(ctx)
		if e, spoken := oci.AsError(err); !spoken || !e.Unreached || ctx.Err() != nil {
			return v, err
		}
	}
	return Along(ctx, m, ref, ref.Repository, own, ask)
}
