package mesh

import (
	"context"
	"slices"
	"time"

	"oci-proxy/transfer/oci"
)

// otherWays is for how long the nodes on a route are asked, one after the other, while
// none of them has a connection to the registry. Each may take a second or two to say
// so; a client whose tag is cached waits 5 s at most.
const otherWays = 3250 * time.Millisecond

// Along asks the nodes on the route of key, one after the other, until one has an
// answer. own is this node's turn, ask asks another node.
//
// What a peer says for the registry is an answer too. A failure that may be due to the
// peer's own way out is tried at one more node, so that a sick registry is not asked by
// all. A node that has no connection to the registry, be it this one or another, has
// not asked it; then comes this node's turn, and while there is time the others'.
func Along[T any](ctx context.Context, m *Mesh, ref oci.Ref, key string, own func(context.Context) (T, error), ask func(context.Context, Peer) (T, error)) (v T, err error) {
	began, failures := time.Now(), 0
	for route := m.Route(ref.Registry, key); len(route) > 0; {
		p := route[0]
		route = route[1:]
		unreached := isUnreached(err)
		switch {
		case p == nil:
			if v, err = own(ctx); !isUnreached(err) || ctx.Err() != nil {
				return v, err
			}
			continue
		case unreached && time.Since(began) > otherWays:
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
		case spoken && e.Unreached:
			route = selfFirst(route)
		case spoken:
			if failures++; failures > 1 {
				return v, last
			}
		}
		m.PassOver(ref, p, last)
		if spoken || !unreached {
			err = last
		}
	}
	return v, oci.UnansweredError(ref, err)
}

// isUnreached reports whether err says that no connection came about.
func isUnreached(err error) bool {
	e, ok := oci.AsError(err)
	return ok && e.Unreached
}

// selfFirst returns the route with this node, if it is on it, as the first.
func selfFirst(route []Peer) []Peer {
	i := slices.Index(route, nil)
	if i < 1 {
		return route
	}
	return slices.Concat([]Peer{nil}, route[:i], route[i+1:])
}

// Direct asks the registry for what no node keeps: this node does so if it may and
// there is a way, otherwise a node that may.
func Direct[T any](ctx context.Context, m *Mesh, ref oci.Ref, own func(context.Context) (T, error), ask func(context.Context, Peer) (T, error)) (T, error) {
	if slices.Contains(m.Route(ref.Registry, ref.Registry), nil) {
		v, err := own(ctx)
		if !isUnreached(err) || ctx.Err() != nil {
			return v, err
		}
	}
	return Along(ctx, m, ref, ref.Repository, own, ask)
}
