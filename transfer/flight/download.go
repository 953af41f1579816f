package flight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// resumes is how often in a row a download that broke off is taken up again without a
// byte of progress.
const resumes = 5

// rangeTries is how many of them may reach the registry and bring nothing before the whole
// is asked for and what has come before is skipped: some registries, and some CDNs, refuse ranges.
const rangeTries = 2

// errAnew: what an earlier download left is not the beginning of what the source has.
var errAnew = errors.New("the download begins anew")

// errOtherSize: the registry tells another size than the manifest. It is asked once more,
// and then believed: the digest decides. Caches on the way keep blobs that were cut short.
var errOtherSize = errors.New("the registry tells another size than the manifest")

// errStalled is the cause of a stream that stood still.
var errStalled = errors.New("the download stood still")

// errElsewhere: this node follows the registry's redirects, so a peer that hands one
// on made it up.
var errElsewhere = errors.New("the node sends clients to another host")

// stay takes what one source has. A download from the registry that breaks off is
// taken up again, each time from a fresh address; a peer is left.
func (f *filler) stay(src source) error {
	anew := false // ranges are refused: the whole comes again
	for failures, inVain := 0, 0; ; {
		before := f.ingest.Offset()
		err := f.download(src, anew || inVain >= rangeTries)
		switch {
		case err == nil, f.ingest.Size() < 0 && f.ingest.Complete(): // all came, but its end
			return nil
		case errors.Is(err, cache.ErrAbandoned) && f.ctx().Err() == nil && !f.flights.deserted(f.Flight):
			// somebody came just then
		case errors.Is(err, errAnew), errors.Is(err, errOtherSize):
			continue
		case !f.ingest.Begun() && before > 0 && oci.KindOf(err) == oci.Invalid: // the source has less
			f.ingest.Forget()
			continue
		case src.peer == nil && f.ingest.Begun() && before > 0 && !anew && oci.KindOf(err) == oci.Invalid:
			anew = true
			continue
		case src.peer == nil && f.ingest.Begun() && mirrored(f.brought) && oci.KindOf(err) == oci.Invalid: // the mirror made up its size
			return fmt.Errorf("a mirror told a size of %d bytes, and there is nothing to go on with at byte %d: %w", f.ingest.Size(), f.ingest.Offset(), cache.ErrDigest)
		case src.peer != nil || !f.worthResuming(err) || anew && f.ingest.Offset() == before:
			return err
		case f.ingest.Offset() > before:
			failures, inVain = 0, 0
		case !unreached(err):
			inVain++
		}
		if failures++; failures > resumes && (unreached(err) || inVain > rangeTries) {
			return err
		}
		f.cfg().Counters.Of(f.key.Registry).Resumes.Add(1)
		f.cfg().Log.InfoContext(f.ctx(), "download taken up again", "digest", f.key.Digest.String(), "offset", f.ingest.Offset(), "upstream_host", f.Host(), "error", err)
		if wait.For(f.ctx(), time.Duration(failures-1)*500*time.Millisecond) != nil {
			return err
		}
	}
}

// unreached reports whether no connection came about, so that nobody was asked for anything.
func unreached(err error) bool {
	e, ok := oci.AsError(err)
	return ok && e.Unreached
}

// worthResuming reports whether a broken download goes on. Before its first byte
// upstream has already tried again as often as makes sense; and if it refuses the whole as
// well, it means it.
func (f *filler) worthResuming(err error) bool {
	if f.ctx().Err() != nil || !f.ingest.Begun() || errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrAbandoned) {
		return false
	}
	_, redirected := AsRedirect(err)
	return !redirected && oci.KindOf(err) != oci.Invalid && oci.KindOf(err) != oci.Offline
}

// download asks a source for the rest of the blob, or for the whole if anew, and takes what
// is missing. nil means that all is there.
func (f *filler) download(src source, anew bool) error {
	ctx, cancel := context.WithCancelCause(f.ctx())
	defer cancel(nil)
	offset := f.ingest.Offset()
	if f.ingest.Complete() {
		return nil
	}
	from := offset
	if anew {
		from = 0
	}
	s, body, err := f.open(ctx, cancel, src, from)
	if err != nil {
		return err
	}
	f.source.Store(src.provenance(s))
	if s.Redirect != "" {
		return &Redirect{s.Redirect}
	}
	defer func() { _ = s.Body.Close() }() // only read
	if err := f.accept(src, s, offset); err != nil {
		return err
	}
	if src.peer != nil {
		f.peers = append(f.peers, src.peer)
	} else {
		f.others = true
		f.brought = append(f.brought, part{s.Wrong, offset})
		timed := f.timed(cancel, body)
		defer timed.timer.Stop()
		body = timed
	}
	body = src.counted(f.cfg().Counters.Of(f.key.Registry), body, s)
	if skip := offset - s.Offset; skip > 0 { // a source without Range begins anew
		if _, err := io.CopyN(io.Discard, body, skip); err != nil {
			return f.broken(ctx, src, err)
		}
	}
	err = copyBody(ctx, f.ingest, body)
	if err == nil && endsEarly(f.ingest, f.cfg().Sizes.Get(f.key.Content)) {
		err = io.ErrUnexpectedEOF
	}
	return f.broken(ctx, src, err)
}

// endsEarly reports whether a stream that told no size, and so could end anywhere, ended
// before the size that a manifest tells.
func endsEarly(in *cache.Ingest, told int64) bool {
	return in.Size() < 0 && in.Offset() < told && !in.Complete()
}

// open opens the blob at the source. A peer is watched from then on, and its stream is
// read through the watch.
func (f *filler) open(ctx context.Context, cancel context.CancelCauseFunc, src source, offset int64) (*oci.Stream, io.Reader, error) {
	asked := time.Now()
	var watch *mesh.Watch
	if src.peer != nil {
		watch = f.cfg().Mesh.WatchStream(ctx, cancel, src.peer, f.request.Ref, offset, src.terms.Held && !src.fed) // a feeder is not the last to have it
	}
	s, err := src.open(ctx, offset)
	if err != nil {
		if src.peer != nil {
			err = mesh.GaveUp(ctx, src.peer, err)
		}
		return nil, nil, err
	}
	var body io.Reader = s.Body
	if watch != nil {
		watch.Begin(s.Body)
		body = watch
	}
	if s.Redirect != "" && src.peer != nil && !f.request.PassOn {
		return nil, nil, mesh.Lied(src.peer, errElsewhere)
	}
	if s.Coding != "" {
		f.coding.Store(&s.Coding)
	}
	s.At = f.request.When(oci.BlobResource, s.By, cmp.Or(s.At, asked))
	if src.terms.Held && !src.fed {
		s.At = f.cfg().Grants.At(f.request, oci.BlobResource) // nobody asked the registry for this
	}
	return s, body, nil
}

// accept tells the ingest the size at the first stream and compares it at later ones.
// If peers told another size before, one of them was wrong, and what has come is worth
// nothing: as with wrong bytes, it begins anew.
func (f *filler) accept(src source, s *oci.Stream, offset int64) error {
	if s.Offset != offset && s.Offset != 0 {
		return f.misfit(src, s, "the range that came is not the one asked for")
	}
	if f.ingest.Begun() {
		return f.compare(src, s)
	}
	size, told := s.Size, f.cfg().Sizes.Get(f.key.Content)
	differ := told >= 0 && size >= 0 && size != told
	switch {
	case src.peer == nil && differ && !f.doubted:
		f.doubted = true
		if s.Wrong != nil { // a mirror tells it: the registry is asked next
			s.Wrong(false)
		}
		return errOtherSize
	case src.peer != nil && f.cfg().Mesh.MayAsk(f.request.Ref) && differ:
		return f.misfit(src, s, fmt.Sprintf("it tells a size of %d bytes, the manifest one of %d", size, told))
	case size < 0 && (s.Wrong != nil || src.peer != nil && f.cfg().Mesh.MayAsk(f.request.Ref)):
		size = told // a mirror or a peer might send without end
	}
	if !f.ingest.Agrees(size) {
		if s.By == oci.Middlebox && size >= 0 && size < offset { // a portal's page
			return f.misfit(src, s, "the answer is not the registry's, and shorter than what came before")
		}
		f.ingest.Forget()
		return errAnew
	}
	if size != told && (src.peer != nil || s.Wrong != nil || s.Relay != "") {
		f.ingest.Doubt() // a member or a mirror tells it alone
	}
	f.ingest.SetSize(size)
	return nil
}

// compare compares the size that a stream tells with the one known.
func (f *filler) compare(src source, s *oci.Stream) error {
	size := f.ingest.Size()
	if size < 0 || s.Size < 0 || s.Size == size {
		return nil
	}
	if len(f.peers) > 0 || mirrored(f.brought) {
		return fmt.Errorf("other nodes or a mirror told a size of %d bytes, %s tells %d: %w", size, s.Host, s.Size, cache.ErrDigest)
	}
	return f.misfit(src, s, fmt.Sprintf("the size changed from %d to %d bytes", size, s.Size))
}

// misfit is the error of a source whose stream does not fit.
func (f *filler) misfit(src source, s *oci.Stream, reason string) error {
	if src.peer != nil {
		return &mesh.PeerError{Peer: src.peer.Name(), Err: errors.New(reason)}
	}
	return &oci.Error{Kind: oci.Unavailable, Registry: f.key.Registry, Host: s.Host, By: s.By, Reason: reason}
}

// broken says how a download broke off; nil stays nil.
func (f *filler) broken(ctx context.Context, src source, err error) error {
	if err == nil || errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrAbandoned) {
		return err
	}
	if src.peer != nil {
		if _, ok := errors.AsType[*mesh.PeerError](err); !ok {
			err = &mesh.PeerError{Peer: src.peer.Name(), Err: fmt.Errorf("the stream broke off: %w", err)}
		}
		return mesh.GaveUp(ctx, src.peer, err)
	}
	if e, ok := oci.AsError(err); ok {
		return e // of another flight of this node
	}
	e := &oci.Error{Kind: oci.Unavailable, Registry: f.key.Registry, Host: f.Host(), Reason: BrokeOff, Err: err}
	if errors.Is(context.Cause(ctx), errStalled) {
		e.Kind, e.Err = oci.Timeout, errStalled
	}
	return e
}

// BrokeOff is why a download failed that ended early.
const BrokeOff = "the download broke off"

// A timedReader is one whose reads may not take longer than stall. What happens
// between them, waiting for a disk or for readers, may. If it brings next to nothing
// it fails with cache.ErrAbandoned once the flight is deserted, so that a registry
// can't keep downloads going for nobody.
type timedReader struct {
	io.Reader
	stall    time.Duration
	timer    *time.Timer
	drip     time.Duration
	since    time.Time
	came     int64 // since then
	deserted func() bool
}

// timed returns a reader of the registry's stream; cancel ends the stream.
func (f *filler) timed(cancel context.CancelCauseFunc, r io.Reader) *timedReader {
	stall := f.cfg().Stall
	return &timedReader{
		Reader: r, stall: stall, timer: time.AfterFunc(stall, func() { cancel(errStalled) }),
		drip: f.cfg().Mesh.Drip(), since: time.Now(), deserted: func() bool { return f.flights.deserted(f.Flight) },
	}
}

// Read implements io.Reader.
func (r *timedReader) Read(p []byte) (int, error) {
	if took := time.Since(r.since); took >= r.drip {
		if float64(r.came) < mesh.DripRate*took.Seconds() && r.deserted() {
			return 0, cache.ErrAbandoned
		}
		r.since, r.came = time.Now(), 0
	}
	r.timer.Reset(r.stall)
	defer r.timer.Stop()
	n, err := r.Reader.Read(p)
	r.came += int64(n)
	return n, err
}
