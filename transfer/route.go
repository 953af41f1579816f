package transfer

import (
	"context"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"slices"
)

// route lists who is to get what key names, nil standing for this node.
func (f *Fetcher) route(registry, key string) []mesh.Peer {
	if f.cfg.Mesh == nil {
		return []mesh.Peer{nil}
	}
	return f.cfg.Mesh.Route(registry, key)
}

// alone reports whether nobody but this node is on the route.
func alone(route []mesh.Peer) bool { return len(route) == 1 && route[0] == nil }

// along asks those on the route of key, one after the other, until one has an
// answer: ask asks another node, own is this node's turn. What a peer says for
// the registry is an answer too; only a failure that may be the peer's own way
// out is tried at one more, so that a sick registry is not asked by all.
func along[T any](ctx context.Context, f *Fetcher, ref oci.Ref, key string, own func(context.Context) (T, error), ask func(context.Context, mesh.Peer) (T, error)) (v T, err error) {
	refused := 0
	for _, p := range f.route(ref.Registry, key) {
		if p == nil {
			return own(ctx)
		}
		v, last := tend(ctx, f, p, ref, ask)
		switch e, spoken := oci.AsError(last); {
		case last == nil:
			return v, nil
		case ctx.Err() != nil:
			return v, context.Cause(ctx)
		case spoken && !e.OtherNodeMayHelp():
			return v, last
		case spoken:
			if refused++; refused > 1 {
				return v, last
			}
		}
		f.passedOver(ref, p, last)
		err = last
	}
	return v, oci.UnansweredError(ref, err)
}

// direct asks the registry for what is not kept: this node does if it may, else
// one that may.
func direct[T any](ctx context.Context, f *Fetcher, ref oci.Ref, own func(context.Context) (T, error), ask func(context.Context, mesh.Peer) (T, error)) (T, error) {
	if slices.Contains(f.route(ref.Registry, ref.Registry), nil) {
		return own(ctx)
	}
	return along(ctx, f, ref, ref.Repository, own, ask)
}

// passedOver says in the log that a member could not help.
func (f *Fetcher) passedOver(ref oci.Ref, p mesh.Peer, err error) {
	f.cfg.Log.Info("peer passed over", "peer", p.Name(), "registry", ref.Registry, "image", ref.Repository, "tag", ref.Tag, "digest", ref.Digest.String(), "error", err)
}
