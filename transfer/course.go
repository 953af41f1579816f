package transfer

import (
	"context"
	"io"
	"iter"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"time"
)

// A source is where a flight gets bytes from.
type source struct {
	open       func(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error)
	peer       mesh.Peer // nil: the registry, or another flight of this node
	mesh.Terms           // of the peer
	here       bool      // another flight of this node: its bytes are counted already
}

// way says where the stream that the source opened comes from.
func (src source) way(s *oci.Stream) *oci.Provenance {
	w := &oci.Provenance{Host: s.Host, Via: s.Via, At: s.At}
	if s.Hit {
		w.Origin = oci.PeerHit
	}
	return w
}

// fromPeer is another node as a source.
func fromPeer(p mesh.Peer, terms mesh.Terms) source {
	return source{peer: p, Terms: terms, open: func(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
		return p.Open(ctx, ref, offset, terms)
	}}
}

// fromRegistry is the registry as a source.
func (f *Fetcher) fromRegistry() source {
	return source{open: func(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
		if f.cfg.Policy(ref.Registry).Offline {
			return nil, oci.OfflineError(ref)
		}
		return f.cfg.Upstream.Open(ctx, ref, offset)
	}}
}

// rounds is how often a flight that may not ask the registry itself goes along
// its route: nodes restart.
const rounds = 3

// course lists the flight's sources, each only when the one before has failed:
// the nodes on the blob's route up to this one, then what this node does when
// it acts.
func (f *Fetcher) course(fl *flight) iter.Seq[source] {
	return func(yield func(source) bool) {
		if fl.key.acts {
			f.act(fl, yield)
			return
		}
		for round := range rounds {
			for _, p := range f.without(fl.ref, f.route(fl.ref.Registry, fl.ref.Digest.String())) {
				if p == nil {
					f.act(fl, yield)
					return
				}
				if !yield(fromPeer(p, mesh.Terms{})) {
					return
				}
			}
			if sleep(f.ctx, time.Duration(1+round)*250*time.Millisecond) != nil {
				return
			}
		}
	}
}

// act lists the sources of a flight that acts: nodes that have the blob or are
// getting it, then the registry.
func (f *Fetcher) act(fl *flight, yield func(source) bool) {
	if other := f.promote(fl); other != nil && !yield(f.fromFlight(other)) {
		return
	}
	nodes, terms := f.shown(fl.ref, true, f.peek(f.ctx, fl.ref, f.without(fl.ref, f.peekers(fl.key.content)))...)
	for _, p := range nodes {
		if !yield(fromPeer(p, terms)) {
			return
		}
	}
	if p := f.decide(fl, false); p != nil {
		nodes, terms := f.shown(fl.ref, true, p)
		for _, p := range nodes {
			if !yield(fromPeer(p, terms)) {
				return
			}
		}
		f.decide(fl, true)
	}
	yield(f.fromRegistry())
}

// shown returns those of the nodes whose content may be shown for ref: all, or
// none if a private registry does not vouch for it, which is asked once at most.
// It is left to the registry to say why. The terms are those to ask them by.
func (f *Fetcher) shown(ref oci.Ref, blob bool, nodes ...mesh.Peer) ([]mesh.Peer, mesh.Terms) {
	terms := mesh.Terms{Held: true, Vouched: f.cfg.Policy(ref.Registry).Private}
	if len(nodes) == 0 || f.vouched(ref) {
		return nodes, terms
	}
	last, known := f.word(ref)
	if ok, err := f.askVouch(f.ctx, ref, blob, last, known); !ok || err != nil {
		return nil, terms
	}
	return nodes, terms
}

// fromFlight is another flight of this node as a source.
func (f *Fetcher) fromFlight(other *flight) source {
	return source{here: true, open: func(ctx context.Context, _ oci.Ref, offset int64) (*oci.Stream, error) {
		b, err := other.in.Follow(ctx)
		if err != nil {
			return nil, err
		}
		r, w := io.Pipe()
		go func() {
			_, err := b.Send(ctx, w, offset, -1)
			_ = w.CloseWithError(err) // a pipe's never fails; nil ends it
			_ = b.Close()             // only read
		}()
		way := other.way()
		return &oci.Stream{Body: r, Offset: offset, Size: b.Size(), Host: way.Host, Via: way.Via, At: way.At, Hit: way.Origin == oci.PeerHit}, nil
	}}
}
