package transfer_test

import (
	"context"
	"io"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

var _ mesh.Relayer = (*fakePeer)(nil)

// Relay implements mesh.Relayer.
func (p *fakePeer) Relay() oci.Upstream { return lent{p} }

// lent is a node's way out as another node sees it.
type lent struct{ *fakePeer }

// by asks by the node's way out, if it lends one.
func by[T any](ctx context.Context, l lent, ask func(oci.Upstream) (T, error)) (v T, err error) {
	if err := l.reach(ctx); err != nil {
		return v, err
	}
	if l.node.out == nil {
		return v, &mesh.PeerError{Peer: l.Name(), Err: errDead}
	}
	return ask(l.node.out)
}

func (l lent) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	return l.via(by(ctx, l, func(up oci.Upstream) (*oci.Stream, error) { return up.Open(ctx, ref, offset) }))(ctx)
}

// via gives a stream the faults of the node.
func (l lent) via(s *oci.Stream, err error) func(context.Context) (*oci.Stream, error) {
	return func(ctx context.Context) (*oci.Stream, error) {
		if err != nil || s.Body == nil {
			return s, err
		}
		s.Relay = l.Name()
		if f := l.node.fails.Load(); f != nil {
			from := s.Body
			r, w := io.Pipe()
			context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
			go func() {
				_, err := io.Copy(&faulty{w: w, f: f, node: l.node, ctx: ctx}, from)
				_ = w.CloseWithError(err)
				_ = from.Close()
			}()
			s.Body = r
		}
		return s, nil
	}
}

func (l lent) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	return l.via(by(ctx, l, func(up oci.Upstream) (*oci.Stream, error) { return up.Range(ctx, ref, span) }))(ctx)
}

func (l lent) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	return by(ctx, l, func(up oci.Upstream) (oci.Descriptor, error) { return up.Stat(ctx, ref, blob, accept) })
}

func (l lent) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	return by(ctx, l, func(up oci.Upstream) (oci.Manifest, error) { return up.Manifest(ctx, ref, accept) })
}

func (l lent) Tags(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return by(ctx, l, func(up oci.Upstream) (*oci.Page, error) { return up.Tags(ctx, ref, query, to) })
}

func (l lent) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return by(ctx, l, func(up oci.Upstream) (*oci.Page, error) { return up.Referrers(ctx, ref, query, to) })
}
