package flight

import (
	"context"
	"io"
	"iter"
	"slices"
	"time"

	"oci-proxy/transfer/count"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A source is where a flight gets bytes from: the registry, another node, or
// another flight of this node.
type source struct {
	open  func(ctx context.Context, offset int64) (*oci.Stream, error)
	peer  mesh.Peer  // nil: the registry, or a flight of this node
	terms mesh.Terms // of the peer
	fed   bool       // the peer was named by the one on the route
	here  bool       // a flight of this node, whose bytes are counted already
}

// provenance says where the stream comes from that the source opened.
func (src source) provenance(s *oci.Stream) *oci.Provenance {
	p := &oci.Provenance{Host: s.Host, Via: s.Via, At: s.At}
	if s.Hit {
		p.Origin = oci.PeerHit
	}
	return p
}

// counted counts what is read from the source. What comes by way of another node is counted
// there as the registry's.
func (src source) counted(c *count.Counters, r io.Reader, s *oci.Stream) io.Reader {
	switch {
	case src.here:
		return r
	case s.Archived:
		return count.Reader(r, &c.FromArchiveBytes)
	case src.peer != nil || s.Relay != "":
		return count.Reader(r, &c.FromPeersBytes)
	default:
		return count.Reader(r, &c.FromUpstreamBytes)
	}
}

// fromPeer returns another node as a source.
func (f *filler) fromPeer(p mesh.Peer, terms mesh.Terms) source {
	return source{peer: p, terms: terms, open: func(ctx context.Context, offset int64) (*oci.Stream, error) {
		return p.Open(ctx, f.request.Ref, offset, terms)
	}}
}

// fromRegistry returns the registry as a source.
func (f *filler) fromRegistry() source {
	return source{open: func(ctx context.Context, offset int64) (*oci.Stream, error) {
		ctx = f.cfg().Grants.WithMirrors(ctx, f.request, oci.BlobResource)
		if f.request.Offline {
			return f.cfg().Archive.OpenKept(ctx, f.request.Ref, offset)
		}
		return f.cfg().Upstream.Open(ctx, f.request.Ref, offset)
	}}
}

// fromFlight returns another flight of this node as a source.
func fromFlight(other *Flight) source {
	return source{here: true, open: func(ctx context.Context, offset int64) (*oci.Stream, error) {
		b, err := other.ingest.Follow(ctx)
		if err != nil {
			return nil, err
		}
		r, w := io.Pipe()
		go func() {
			_, err := b.Send(ctx, w, offset, -1)
			_ = w.CloseWithError(err) // it never fails; nil ends the pipe
			_ = b.Close()             // only read
		}()
		from := other.Provenance()
		return &oci.Stream{Body: r, Offset: offset, Size: b.Size(), Host: from.Host, Via: from.Via, At: from.At, Hit: from.Origin == oci.PeerHit}, nil
	}}
}

// rounds is how often a flight goes along its route if this node may not ask the
// registry itself: the nodes there may be restarting.
const rounds = 3

// sources lists the flight's sources; each is used only when the one before has
// failed. First come the nodes on the blob's route up to this one, then what this
// node does when it leads.
func (f *filler) sources() iter.Seq[source] {
	return func(yield func(source) bool) {
		// It may be that nobody can get it anew, so any member that holds it will do.
		if m := f.cfg().Mesh; f.request.Offline && !f.holders(m.Held(f.ctx(), f.request.Ref, f.trusted(m.Members())), yield) {
			return
		}
		if f.key.leads {
			f.lead(yield)
			return
		}
		for round := range rounds {
			for _, p := range f.trusted(f.cfg().Mesh.Route(f.key.Registry, f.key.Digest.String())) {
				if p == nil {
					f.lead(yield)
					return
				}
				if !fed(f, p, yield) {
					return
				}
			}
			if wait.For(f.ctx(), time.Duration(1+round)*250*time.Millisecond) != nil {
				return
			}
		}
	}
}

// lead lists the sources of a flight that leads: nodes that have the blob or are
// getting it, those that have its first bytes, then the registry.
func (f *filler) lead(yield func(source) bool) {
	if other := f.flights.promote(f.Flight); other != nil && !yield(fromFlight(other)) {
		return
	}
	f.ingest.Own()
	var begun []mesh.Peer
	note := func(p mesh.Peer, at mesh.Presence) {
		if at == mesh.Begun {
			begun = append(begun, p)
		} else {
			f.lack = append(f.lack, p.ID())
		}
	}
	if !f.holders(f.cfg().Mesh.PeekAt(f.ctx(), f.request.Ref, f.trusted(f.flights.Candidates(f.ctx(), f.key.Content)), note), yield) {
		return
	}
	if p := f.flights.settle(f.Flight, false); p != nil {
		if !f.holders(slices.Values([]mesh.Peer{p}), yield) {
			return
		}
		f.flights.settle(f.Flight, true)
	}
	if beginnings(f, begun, yield) {
		yield(f.fromRegistry())
	}
}

// anybody lists, when all sources have failed, the members that hold the blob: one may have been
// late, or this node reaches one that others do not. Those that told this flight that they lack
// it are not asked again.
func anybody(f *filler) iter.Seq[source] {
	return func(yield func(source) bool) {
		nodes := f.trusted(f.cfg().Mesh.Holders(f.ctx(), f.key.Content))
		nodes = slices.DeleteFunc(nodes, func(p mesh.Peer) bool { return slices.Contains(f.lack, p.ID()) })
		f.holders(f.cfg().Mesh.Held(f.ctx(), f.request.Ref, nodes), yield)
	}
}

// holders lists nodes that hold the blob, if what they hold may be shown for the
// flight's request. A private registry is asked about that once at most; if it does
// not vouch for the blob, it is left to the registry to say why.
func (f *filler) holders(nodes iter.Seq[mesh.Peer], yield func(source) bool) bool {
	shown := false
	for p := range nodes {
		if shown = shown || f.cfg().Grants.MayShow(f.ctx(), f.request, oci.BlobResource); !shown {
			return true
		}
		if !yield(f.fromPeer(p, mesh.Terms{Held: true, Vouched: f.request.Private})) {
			return false
		}
	}
	return true
}

// trusted leaves out nodes that took part in a download which came out wrong.
func (f *filler) trusted(nodes []mesh.Peer) []mesh.Peer {
	return f.cfg().Mesh.Trusted(f.request.Ref, nodes)
}
