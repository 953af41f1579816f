package transfer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A flightKey says which requests share a flight: those for one digest of one
// registry, whatever repository they name. Those for another registry do not:
// what a client waits for must not depend on a registry that it did not name.
//
// A flight that acts asks the registry for the whole cluster; others follow
// such a one at another node. Members that ask this node board the acting one
// only: one that followed them would close a circle.
type flightKey struct {
	content
	acts bool
}

// A ticket is a request for a blob, and which flights it may board.
type ticket struct {
	oci.Ref
	acts       bool       // a member asks: this node gets the blob from the registry
	mesh.Terms            // by which it asks,
	asker      string     // and its id
	not        *flight    // not this one: the request has fallen out of it
	own        bool       // none of another repository: one has failed it
	landed     bool       // a landed blob was pointed out before, in vain
	damaged    cache.Blob // from the shard; what is right of it need not come from upstream
}

// ticket returns a ticket for ref. What a private registry delivers for one
// repository is not for those who ask for another.
func (f *Fetcher) ticket(ref oci.Ref) *ticket {
	return &ticket{Ref: ref, own: f.cfg.Policy(ref.Registry).Private}
}

// mayBoard reports whether the request may board fl.
func (t *ticket) mayBoard(fl *flight) bool {
	return fl != t.not && (!t.own || fl.ref == t.Ref)
}

// A flight is one fill in progress. It outlives the request that began it.
type flight struct {
	key    flightKey
	ref    oci.Ref // of the request that began it
	in     *cache.Ingest
	source atomic.Pointer[oci.Provenance] // who delivers: From, Host and Via
	peers  []mesh.Peer                    // that have sent bytes; the flight's goroutine alone uses these two
	others bool                           // bytes came from elsewhere too
	early  *flight                        // one of this node that follows others, and has bytes already

	// Guarded by the Fetcher's mu:
	aboard  int    // requests that have boarded and not got off
	decided bool   // for the registry: see act.go
	yields  string // the member that it yields to while it is not decided
}

// way says where the bytes come from.
func (fl *flight) way() oci.Provenance {
	if w := fl.source.Load(); w != nil {
		return *w
	}
	return oci.Provenance{}
}

// from is the host that delivers.
func (fl *flight) from() string { return fl.way().Host }

// errRedirected ends a flight whose registry's redirects go to the client.
type errRedirected struct{ location string }

// Error implements error; the location may be signed, so it stays out.
func (*errRedirected) Error() string { return "the registry redirects the client" }

// host is who delivered to the flight that the request fell out of.
func (t *ticket) host() string {
	if t.not == nil {
		return ""
	}
	return t.not.from()
}

// errLanded says that the blob is in the shard by now.
var errLanded = errors.New("the blob has landed")

// board joins the flight for the ticket's blob, or begins one. A flight that
// the ticket is not for is replaced: it goes on for those who are on board.
func (f *Fetcher) board(t *ticket) (fl *flight, joined bool, err error) {
	c := content{t.Registry, t.Digest}
	acts := t.acts || f.acts(t)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range []flightKey{{c, true}, {c, false}} {
		if fl, ok := f.flights[key]; ok && t.mayBoard(fl) && (key.acts || !t.acts) && (!t.Held || f.followable(fl, t.asker)) {
			fl.aboard++
			return fl, true, nil
		}
	}
	// A flight leaves the map after its blob has entered the shard, so that
	// one that landed since the shard was asked shows there.
	if _, ok := f.cfg.Store(t.Registry).Stat(t.Digest); ok && !t.landed {
		t.landed = true
		return nil, false, errLanded
	}
	switch {
	case t.Held:
		return nil, false, oci.NotHeldError(t.Ref)
	case f.closed:
		return nil, false, errClosed
	}
	fl, err = f.take(t, flightKey{c, acts})
	return fl, false, err
}

// acts reports whether this node is the first whom a client's request has to ask.
func (f *Fetcher) acts(t *ticket) bool {
	route := f.route(t.Registry, t.Digest.String())
	return len(route) > 0 && route[0] == nil
}

// take begins a flight. The caller holds mu.
func (f *Fetcher) take(t *ticket, key flightKey) (*flight, error) {
	in, err := f.cfg.Store(t.Registry).Ingest(f.ctx, t.Digest, t.Registry, "")
	if err != nil {
		return nil, &oci.Error{Kind: oci.Invalid, Registry: t.Registry, Reason: "digest not supported", Err: err}
	}
	if !key.acts {
		in.Replica()
	}
	if f.cfg.Policy(t.Registry).Stranger {
		in.Doubt()
	}
	fl := &flight{key: key, ref: t.Ref, in: in, aboard: 1}
	salvage, size := io.Reader(nil), int64(0)
	if t.damaged != nil {
		salvage, size = cache.Salvage(t.damaged), t.damaged.Size()
	}
	if other := f.flights[flightKey{key.content, false}]; key.acts && other != nil && t.mayBoard(other) {
		fl.early = other
	}
	f.flights[key] = fl
	f.wg.Go(func() { f.fly(fl, salvage, size) })
	return fl, nil
}

// fly fills the blob and ends the flight.
func (f *Fetcher) fly(fl *flight, salvage io.Reader, size int64) {
	start := time.Now()
	log := f.cfg.Log.With("registry", fl.ref.Registry, "repository", fl.ref.Repository, "digest", fl.ref.Digest.String())
	err := f.fill(fl, salvage, size)
	// All is noted before the followers hear of the end: they may ask again at once.
	if wrong := err == nil && fl.in.Wrong(); wrong || errors.Is(err, cache.ErrDigest) {
		f.blame(fl)
	} else if err == nil {
		f.arrived(fl.ref, fl.way().At)
	}
	if err == nil {
		err = f.commit(fl)
	}
	f.leave(fl) // before it ends, so that nobody boards what has failed
	fl.in.Abort(err)
	took := time.Since(start).Round(time.Millisecond)
	if err != nil {
		level := slog.LevelWarn
		if _, redirected := errors.AsType[*errRedirected](err); redirected || slices.Contains([]oci.Kind{oci.NotFound, oci.Denied, oci.Offline}, oci.KindOf(err)) {
			level = slog.LevelDebug // the client is told, and the node is well
		}
		log.Log(f.ctx, level, "blob not filled", "bytes", fl.in.Offset(), "took", took, "upstream_host", fl.from(), "error", err)
		return
	}
	log.Debug("blob filled", "bytes", fl.in.Offset(), "took", took, "upstream_host", fl.from(), "stored", fl.in.Stored())
}

// liar returns who sent all of what is wrong. A node that sent a part may have
// had that from the registry: it sends the end of what is right only.
func (fl *flight) liar() mesh.Peer {
	if fl.others || len(fl.peers) == 0 || slices.ContainsFunc(fl.peers, func(p mesh.Peer) bool { return p.ID() != fl.peers[0].ID() }) {
		return nil
	}
	return fl.peers[0]
}

// blame draws the consequences of a download that came out wrong.
func (f *Fetcher) blame(fl *flight) {
	if p := fl.liar(); p != nil {
		p.Fault(mesh.ErrLies)
		return
	}
	f.shunned.add(fl.key.content, fl.peers)
}

// getOff ends what board began, for each of the flights.
func (f *Fetcher) getOff(flights ...*flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range flights {
		fl.aboard--
	}
}

// deserted reports whether nobody is aboard a flight that was abandoned; then
// nobody boards it any more.
func (f *Fetcher) deserted(fl *flight) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.aboard > 0 {
		return false
	}
	f.strike(fl)
	return true
}

// leave takes a flight off the list of those that can be boarded.
func (f *Fetcher) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.strike(fl)
}

// strike is leave for a caller that holds mu.
func (f *Fetcher) strike(fl *flight) {
	for _, acts := range []bool{true, false} {
		if key := (flightKey{fl.key.content, acts}); f.flights[key] == fl {
			delete(f.flights, key)
		}
	}
}

// commit ends a complete download.
func (f *Fetcher) commit(fl *flight) error {
	err := fl.in.Commit()
	if err == nil {
		return nil
	}
	return &oci.Error{Kind: oci.Corrupt, Registry: fl.ref.Registry, Host: fl.from(), Reason: "what came is not what the digest names", Err: err}
}

// fill brings the whole blob in, along the flight's course: a source that
// breaks off is left at the byte reached, and the next goes on from there.
func (f *Fetcher) fill(fl *flight, salvage io.Reader, size int64) error {
	fl.others = salvage != nil
	if salvage != nil {
		fl.in.SetSize(size)
		err := f.copyBody(f.ctx, fl.in, salvage)
		if errors.Is(err, cache.ErrAbandoned) && f.deserted(fl) || f.ctx.Err() != nil {
			return err
		} // what it lacks, others have
	} else if fl.early != nil {
		f.adopt(fl, fl.early)
	} else {
		fl.others = fl.in.Resume() > 0 // what a former flight left may have come from anywhere
	}
	last, refused := error(nil), 0
	for src := range f.course(fl) {
		err := f.stay(fl, src)
		if err == nil || f.ctx.Err() != nil || fl.over(src, err) {
			return err
		}
		if e, spoken := oci.AsError(err); spoken && src.peer != nil && !src.Held && e.OtherNodeMayHelp() {
			if refused++; refused > 1 {
				return err
			}
		}
		if src.peer != nil {
			f.passedOver(fl.ref, src.peer, err)
		}
		if !src.Held || last == nil {
			last = err
		}
	}
	return oci.UnansweredError(fl.ref, last)
}

// adopt takes what another flight of this node has by now: where the node that
// both would follow has died, it need not come from the registry again.
func (f *Fetcher) adopt(fl, other *flight) {
	n := other.in.Sendable()
	if n == 0 {
		return
	}
	s, err := f.fromFlight(other).open(f.ctx, fl.ref, 0)
	if err != nil {
		return
	}
	defer func() { _ = s.Body.Close() }() // only read
	fl.in.SetSize(s.Size)
	fl.others = true
	_ = f.copyBody(f.ctx, fl.in, io.LimitReader(s.Body, n)) // what it lacks, others have
}

// over reports whether err, which src gave, is every source's: another would
// say the same, or nobody wants to hear it.
func (fl *flight) over(src source, err error) bool {
	if _, redirected := errors.AsType[*errRedirected](err); redirected || errors.Is(err, cache.ErrAbandoned) || errors.Is(err, cache.ErrDigest) {
		return true
	}
	e, spoken := oci.AsError(err)
	return spoken && !src.Held && src.peer != nil && !e.OtherNodeMayHelp()
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
