package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/cache"
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
	Ref
	acts    bool       // a member asks: this node gets the blob from the registry
	held    bool       // or it wants only what is here or under way
	not     *flight    // not this one: the request has fallen out of it
	own     bool       // none of another repository: one has failed it
	landed  bool       // a landed blob was pointed out before, in vain
	damaged cache.Blob // from the shard; what is right of it need not come from upstream
}

// ticket returns a ticket for ref. What a private registry delivers for one
// repository is not for those who ask for another.
func (f *Fetcher) ticket(ref Ref) *ticket {
	return &ticket{Ref: ref, own: f.cfg.Policy(ref.Registry).Private}
}

// mayBoard reports whether the request may board fl.
func (t *ticket) mayBoard(fl *flight) bool {
	return fl != t.not && (!t.own || fl.ref == t.Ref)
}

// A flight is one fill in progress. It outlives the request that began it.
type flight struct {
	key    flightKey
	ref    Ref // of the request that began it
	in     *cache.Ingest
	source atomic.Pointer[Way] // who delivers: From, Host and Via
	peers  []Peer              // that have sent bytes; the flight's goroutine alone uses it
	early  *flight             // one of this node that follows others, and has bytes already

	// Guarded by the Fetcher's mu:
	aboard  int    // requests that have boarded and not got off
	decided bool   // for the registry: see act.go
	yields  string // the member that it yields to while it is not decided
}

// way says where the bytes come from.
func (fl *flight) way() Way {
	if w := fl.source.Load(); w != nil {
		return *w
	}
	return Way{}
}

// from is the host that delivers.
func (fl *flight) from() string { return fl.way().Host }

const (
	// resumes is how often in a row a download that broke off is taken up
	// again without a byte of progress.
	resumes = 5
	// readSize is how many bytes are read, hashed and written at once.
	readSize = 1 << 20
)

// errRedirected ends a flight whose registry's redirects go to the client.
type errRedirected struct{ location string }

// Error implements error; the location may be signed, so it stays out.
func (*errRedirected) Error() string { return "the registry redirects the client" }

// errStalled is the cause of a stream that stood still.
var errStalled = errors.New("the download stood still")

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
		if fl, ok := f.flights[key]; ok && t.mayBoard(fl) && (key.acts || !t.acts) {
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
	case t.held:
		return nil, false, notHeld(t.Ref)
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

// notHeld is the answer to a member that wants what is here or under way.
func notHeld(ref Ref) error {
	return &Error{Kind: NotFound, Registry: ref.Registry, Reason: "not held here"}
}

// take begins a flight. The caller holds mu.
func (f *Fetcher) take(t *ticket, key flightKey) (*flight, error) {
	in, err := f.cfg.Store(t.Registry).Ingest(f.ctx, t.Digest, t.Registry, "")
	if err != nil {
		return nil, &Error{Kind: Invalid, Registry: t.Registry, Reason: "digest not supported", Err: err}
	}
	if !key.acts {
		in.Replica()
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
	if err == nil {
		if err = f.commit(fl); err == nil {
			f.arrived(fl.ref)
		}
	}
	if errors.Is(err, cache.ErrDigest) {
		for _, p := range fl.peers { // one of them has lied
			p.Fault(ErrLies)
		}
	}
	f.leave(fl) // before it ends, so that nobody boards what has failed
	fl.in.Abort(err)
	took := time.Since(start).Round(time.Millisecond)
	if err != nil {
		level := slog.LevelWarn
		if _, redirected := errors.AsType[*errRedirected](err); redirected || slices.Contains([]Kind{NotFound, Denied, Offline}, KindOf(err)) {
			level = slog.LevelDebug // the client is told, and the node is well
		}
		log.Log(f.ctx, level, "blob not filled", "bytes", fl.in.Offset(), "took", took, "upstream_host", fl.from(), "error", err)
		return
	}
	log.Debug("blob filled", "bytes", fl.in.Offset(), "took", took, "upstream_host", fl.from(), "stored", fl.in.Stored())
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
	return &Error{Kind: Corrupt, Registry: fl.ref.Registry, Host: fl.from(), Reason: "what came is not what the digest names", Err: err}
}

// fill brings the whole blob in, along the flight's course: a source that
// breaks off is left at the byte reached, and the next goes on from there.
func (f *Fetcher) fill(fl *flight, salvage io.Reader, size int64) error {
	if salvage != nil {
		fl.in.SetSize(size)
		err := f.copyBody(f.ctx, fl.in, salvage)
		if errors.Is(err, cache.ErrAbandoned) && f.deserted(fl) || f.ctx.Err() != nil {
			return err
		} // what it lacks, others have
	} else if fl.early != nil {
		f.adopt(fl, fl.early)
	}
	last, refused := error(nil), 0
	for src := range f.course(fl) {
		err := f.stay(fl, src)
		if err == nil || f.ctx.Err() != nil || fl.over(src, err) {
			return err
		}
		if e, spoken := asError(err); spoken && src.peer != nil && !src.held && e.elsewhere() {
			if refused++; refused > 1 {
				return err
			}
		}
		if src.peer != nil {
			f.passedOver(fl.ref, src.peer, err)
		}
		if !src.held || last == nil {
			last = err
		}
	}
	return unanswered(fl.ref, last)
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
	_ = f.copyBody(f.ctx, fl.in, io.LimitReader(s.Body, n)) // what it lacks, others have
}

// over reports whether err, which src gave, is every source's: another would
// say the same, or nobody wants to hear it.
func (fl *flight) over(src source, err error) bool {
	if _, redirected := errors.AsType[*errRedirected](err); redirected || errors.Is(err, cache.ErrAbandoned) || errors.Is(err, cache.ErrDigest) {
		return true
	}
	e, spoken := asError(err)
	return spoken && !src.held && src.peer != nil && !e.elsewhere()
}

// stay takes what one source has. The registry is taken up again where it
// broke off, each time with a fresh address; a peer is left.
func (f *Fetcher) stay(fl *flight, src source) error {
	for failures := 0; ; {
		before := fl.in.Offset()
		err := f.download(fl, src)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, cache.ErrAbandoned) && f.ctx.Err() == nil && !f.deserted(fl):
			// somebody came just then
		case src.peer != nil || !f.worthResuming(fl, err):
			return err
		case fl.in.Offset() > before:
			failures = 0
		}
		if failures++; failures > resumes {
			return err
		}
		f.cfg.Log.Info("download taken up again", "digest", fl.ref.Digest.String(), "offset", fl.in.Offset(), "upstream_host", fl.from(), "error", err)
		if sleep(f.ctx, time.Duration(failures-1)*500*time.Millisecond) != nil {
			return err
		}
	}
}

// worthResuming reports whether a broken download goes on. Before its first
// byte upstream has already tried again as often as makes sense; and where
// upstream knows no byte to go on from, the size it told was wrong.
func (f *Fetcher) worthResuming(fl *flight, err error) bool {
	if f.ctx.Err() != nil || !fl.in.Begun() || errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrAbandoned) {
		return false
	}
	_, redirected := errors.AsType[*errRedirected](err)
	return !redirected && KindOf(err) != Invalid && KindOf(err) != Offline
}

// download asks a source for the rest of the blob and takes what comes. nil
// means that all is there.
func (f *Fetcher) download(fl *flight, src source) error {
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	offset := fl.in.Offset()
	if fl.in.Begun() && offset == fl.in.Size() {
		return nil
	}
	var w *watch
	if src.peer != nil {
		w = f.watch(ctx, cancel, src.peer, fl.ref, offset)
	}
	s, err := src.open(ctx, fl.ref, offset)
	if err != nil {
		if w != nil {
			err = gaveUp(ctx, src.peer, err)
		}
		return err
	}
	if s.Redirect != "" {
		return &errRedirected{s.Redirect}
	}
	defer func() { _ = s.Body.Close() }() // only read
	if err := fl.accept(s, offset); err != nil {
		return err
	}
	fl.source.Store(src.way(s))
	if src.peer != nil {
		fl.peers = append(fl.peers, src.peer)
	}
	body := io.Reader(nil)
	if w != nil {
		w.body, body = s.Body, w
	} else {
		timed := &timed{Reader: s.Body, stall: f.cfg.Stall, timer: time.AfterFunc(f.cfg.Stall, func() { cancel(errStalled) })}
		defer timed.timer.Stop()
		body = timed
	}
	body = f.counted(fl.ref.Registry, src, body)
	if skip := offset - s.Offset; skip > 0 { // a source without Range begins anew
		if _, err := io.CopyN(io.Discard, body, skip); err != nil {
			return fl.broken(ctx, src, err)
		}
	}
	return fl.broken(ctx, src, f.copyBody(ctx, fl.in, body))
}

// A timed reader is one whose reads may not take longer than stall. What
// happens between them (waiting for a disk or for readers) may.
type timed struct {
	io.Reader
	stall time.Duration
	timer *time.Timer
}

// Read implements io.Reader.
func (w *timed) Read(p []byte) (int, error) {
	w.timer.Reset(w.stall)
	defer w.timer.Stop()
	return w.Reader.Read(p)
}

// accept tells the ingest the size at the first stream and compares it at
// later ones.
func (fl *flight) accept(s *Stream, offset int64) error {
	wrong := &Error{Kind: Unavailable, Registry: fl.ref.Registry, Host: s.Host}
	if s.Offset != offset && s.Offset != 0 {
		wrong.Reason = "wrong range"
		return wrong
	}
	if !fl.in.Begun() {
		fl.in.SetSize(s.Size)
		return nil
	}
	if size := fl.in.Size(); size >= 0 && s.Size >= 0 && s.Size != size {
		wrong.Reason = fmt.Sprintf("size changed from %d to %d bytes", size, s.Size)
		return wrong
	}
	return nil
}

// broken says how a download broke off; nil stays nil.
func (fl *flight) broken(ctx context.Context, src source, err error) error {
	if err == nil || errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrAbandoned) {
		return err
	}
	if src.peer != nil {
		if _, ok := errors.AsType[*PeerError](err); !ok {
			err = &PeerError{Peer: src.peer.Name(), Err: fmt.Errorf("the stream broke off: %w", err)}
		}
		return gaveUp(ctx, src.peer, err)
	}
	if e, ok := asError(err); ok {
		return e // a flight's of this node
	}
	e := &Error{Kind: Unavailable, Registry: fl.ref.Registry, Host: fl.from(), Reason: "the download broke off", Err: err}
	if errors.Is(context.Cause(ctx), errStalled) {
		e.Kind, e.Err = Timeout, errStalled
	}
	return e
}

// readBuffers are what downloads read into.
var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// copyBody reads body to its end into the ingest.
func (f *Fetcher) copyBody(ctx context.Context, in *cache.Ingest, body io.Reader) error {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			if _, err := in.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if size := in.Size(); size >= 0 && in.Offset() < size {
				return io.ErrUnexpectedEOF
			}
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
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
