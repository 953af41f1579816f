package flight

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"slices"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
	"oci-proxy/transfer/wait"
)

// A filler is the goroutine that fills a flight's ingest. Nobody else touches its
// fields.
type filler struct {
	*Flight
	flights *Flights
	caller  oci.Caller      // whose request began the flight
	trace   trace.Parent    // of that request, then of the flight
	life    context.Context // the node's, with both; nil: not made yet
	damaged cache.Blob      // a copy in the shard that is in part damaged, nil if there is none
	early   *Flight         // one of this node that follows others, and has bytes already, nil for none
	peers   []mesh.Peer     // that have sent bytes
	others  bool            // bytes came from other sources too
	brought []part          // what came from upstream
	doubted bool            // the registry told another size than the manifest
	outcome error           // of the last source
	lack    []string        // ids of members that said that they have nothing of the blob
}

// A part is what one stream from upstream brought, from an offset on.
type part struct {
	wrong  func(all bool) // as Stream.Wrong
	offset int64
}

// mirrored reports whether anything came from a place that may be wrong, a mirror.
func mirrored(brought []part) bool {
	return slices.ContainsFunc(brought, func(p part) bool { return p.wrong != nil })
}

func (f *filler) cfg() *Config { return &f.flights.cfg }

func (f *filler) ctx() context.Context {
	if f.life == nil {
		f.life = f.trace.Into(f.caller.Into(f.flights.cfg.Life.Context()))
	}
	return f.life
}

// run fills the blob and ends the flight. All is noted before the followers hear of the
// end: they may ask again at once.
func (f *filler) run() {
	start := time.Now()
	ctx, span := trace.Start(f.ctx(), "flight")
	f.trace, f.life = trace.Of(ctx), ctx
	err := f.fill()
	if err == nil && !f.ingest.Wrong() {
		f.cfg().Grants.Delivered(f.request, oci.BlobResource, f.Provenance().At)
		err = f.commit()
		f.flights.leave(f.Flight, err == nil) // when the blob is in the shard
	} else {
		if err == nil || errors.Is(err, cache.ErrDigest) {
			f.blame()
		}
		f.flights.leave(f.Flight, false) // so that nobody boards what has failed
		if err == nil {
			err = f.commit()
		}
	}
	f.ingest.Abort(err)
	if err == nil {
		archive(f)
		tellGot(f)
	}
	span.Set("server.address", f.Host())
	span.Count("oci_proxy.bytes", f.ingest.Offset())
	span.End(err)
	f.report(err, time.Since(start))
}

// tellGot tells of the blob if the shard has it, and all or part of it came from the
// registry: then this node led.
func tellGot(f *filler) {
	if hear := f.cfg().Got; hear != nil && len(f.brought) > 0 && f.ingest.Stored() {
		hear(f.request)
	}
}

// archive offers the blob to the archive, if the shard has it and it is this node's to get.
func archive(f *filler) {
	if !f.ingest.Stored() || !f.cfg().Mesh.Leads(f.key.Registry, f.key.Digest.String()) {
		return
	}
	f.cfg().Archive.Offer(grants.Kept(f.cfg().Grants, f.request, oci.BlobResource, "", f.ingest.Offset()))
}

// report logs how the flight ended.
func (f *filler) report(err error, took time.Duration) {
	if err == nil && !f.cfg().Log.Enabled(f.ctx(), slog.LevelDebug) {
		return
	}
	log := f.cfg().Log.With("registry", f.key.Registry, "image", f.request.Repository, "digest", f.key.Digest.String())
	if err == nil {
		log.DebugContext(f.ctx(), "blob filled", "bytes", f.ingest.Offset(), "took_ms", wait.Milliseconds(took), "upstream_host", f.Host(), "stored", f.ingest.Stored())
		return
	}
	level := slog.LevelWarn
	if _, redirected := AsRedirect(err); redirected || slices.Contains([]oci.Kind{oci.NotFound, oci.Denied, oci.Offline}, oci.KindOf(err)) {
		level = slog.LevelDebug // the client is told, and the node is well
	}
	log.Log(f.ctx(), level, "blob not filled", "bytes", f.ingest.Offset(), "took_ms", wait.Milliseconds(took), "upstream_host", f.Host(), "error", err)
}

// A Redirect ends a flight whose registry's redirects go to the client.
type Redirect struct{ Location string }

// Error implements error. The location may be signed, so it is left out.
func (*Redirect) Error() string { return "the registry redirects the client" }

// AsRedirect returns where the registry sends the client, if err says so.
func AsRedirect(err error) (location string, ok bool) {
	r, ok := errors.AsType[*Redirect](err)
	if !ok {
		return "", false
	}
	return r.Location, true
}

// fill brings the whole blob in, from one source after the other. If none of them can, and the
// registry does not say no, any member that holds the blob will do.
func (f *filler) fill() error {
	if err := f.reuse(); err != nil {
		return err
	}
	over, last := along(f, f.sources())
	if e, spoken := oci.AsError(last); !over && (!spoken || e.LastWordCounts()) {
		var err error
		if over, err = along(f, anybody(f)); over {
			return err
		}
	}
	if over {
		return last
	}
	return oci.UnansweredError(f.request.Ref, last)
}

// along takes what the sources have, one after the other. over says that it is the end of the
// flight, by err or by nil; else err is that of the last source, nil if there was none.
func along(f *filler, from iter.Seq[source]) (over bool, last error) {
	failures := 0
	for src := range from {
		err := f.stay(src)
		f.outcome = err
		if err == nil || f.ctx().Err() != nil || final(src, err) {
			return true, err
		}
		if errors.Is(err, errSentOn) || errors.Is(err, errNoMore) {
			continue
		}
		e, spoken := oci.AsError(err)
		if spoken && src.peer != nil && !src.terms.Held && e.OtherNodeMayHelp() && !e.Unreached {
			if failures++; failures > 1 {
				return false, err
			}
		}
		switch {
		case src.fed:
			f.cfg().Mesh.LeaveFeeder(f.ctx(), f.request.Ref, src.peer, err)
		case src.peer != nil:
			f.cfg().Mesh.PassOver(f.ctx(), f.request.Ref, src.peer, err)
		}
		if !src.terms.Held || last == nil {
			last = err
		}
	}
	return false, last
}

// reuse takes what this node has of the blob already: the good part of a damaged
// copy, the bytes of another flight, or what a former flight left. Sources have what
// is missing. An error means that nobody wants the blob any more.
func (f *filler) reuse() error {
	var salvage io.Reader
	if f.damaged != nil {
		salvage = cache.Salvage(f.damaged)
	}
	switch {
	case salvage != nil:
		f.others = true
		f.ingest.SetSize(f.damaged.Size())
		err := copyBody(f.ctx(), f.ingest, salvage)
		if errors.Is(err, cache.ErrAbandoned) && f.flights.deserted(f.Flight) || f.ctx().Err() != nil {
			return err
		}
	case f.early != nil:
		f.adopt(f.early)
	default:
		f.others = f.ingest.Resume() > 0 // it may have come from anywhere
	}
	return nil
}

// adopt takes what another flight of this node has by now. If the node died that
// both would follow, it need not come from the registry again.
func (f *filler) adopt(other *Flight) {
	n := other.ingest.Sendable()
	if n == 0 {
		return
	}
	s, err := fromFlight(other).open(f.ctx(), 0)
	if err != nil {
		return
	}
	defer func() { _ = s.Body.Close() }() // only read
	f.ingest.SetSize(s.Size)
	f.others = true
	_ = copyBody(f.ctx(), f.ingest, io.LimitReader(s.Body, n)) // sources have what is missing
}

// final reports whether no other source is to be tried after err, which src gave:
// another would say the same, or nobody wants to hear it.
func final(src source, err error) bool {
	if _, redirected := AsRedirect(err); redirected || errors.Is(err, cache.ErrAbandoned) || errors.Is(err, cache.ErrDigest) {
		return true
	}
	e, spoken := oci.AsError(err)
	return spoken && !src.terms.Held && src.peer != nil && !e.OtherNodeMayHelp()
}

// commit ends a complete download.
func (f *filler) commit() error {
	_, span := trace.Start(f.ctx(), "disk")
	err := f.ingest.Commit()
	span.End(err)
	if err != nil {
		return &oci.Error{Kind: oci.Corrupt, Registry: f.key.Registry, Host: f.Host(), Reason: f.wrongBytes(), Err: err}
	}
	return nil
}

// WrongBytes is why content is refused that its digest does not name.
const WrongBytes = "the bytes that came are not those that the digest names"

// blame draws the consequences of a download that came out wrong.
func (f *filler) blame() {
	for _, p := range f.brought {
		if p.wrong != nil {
			p.wrong(len(f.brought) == 1 && p.offset == 0 && len(f.peers) == 0)
		}
	}
	if p := f.liar(); p != nil {
		p.Fault(mesh.ErrLies)
		return
	}
	f.cfg().Mesh.Suspect(f.key.Content, f.peers)
}

// liar returns the peer that sent all of what is wrong. A node that sent a part may
// have had that from the registry: it holds back the end of what it can't judge.
func (f *filler) liar() mesh.Peer {
	if f.others || len(f.peers) == 0 || slices.ContainsFunc(f.peers, func(p mesh.Peer) bool { return p.ID() != f.peers[0].ID() }) {
		return nil
	}
	return f.peers[0]
}
