package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

const (
	// resumes is how often in a row a download that broke off is taken up
	// again without a byte of progress.
	resumes = 5
	// readSize is how many bytes are read, hashed and written at once.
	readSize = 1 << 20
)

// errAnew: what an earlier download left is no beginning of what the source has.
var errAnew = errors.New("the download begins anew")

// errStalled is the cause of a stream that stood still.
var errStalled = errors.New("the download stood still")

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
		case errors.Is(err, errAnew):
			continue
		case !fl.in.Begun() && before > 0 && oci.KindOf(err) == oci.Invalid: // the source has less
			fl.in.Forget()
			continue
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
	return !redirected && oci.KindOf(err) != oci.Invalid && oci.KindOf(err) != oci.Offline
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
		w = f.watch(ctx, cancel, src.peer, fl.ref, offset, src.Held)
	}
	asked := time.Now()
	s, err := src.open(ctx, fl.ref, offset)
	if err != nil {
		if w != nil {
			err = gaveUp(ctx, src.peer, err)
		}
		return err
	}
	if w != nil {
		w.begin(s.Body)
	}
	s.At = cmp.Or(s.At, asked)
	if src.Held {
		s.At = f.wordAt(fl.ref) // nobody asked the registry for this
	}
	if s.Redirect != "" {
		if src.peer != nil && !f.cfg.Policy(fl.ref.Registry).PassOn {
			return lied(src.peer, errElsewhere)
		}
		fl.source.Store(src.way(s))
		return &errRedirected{s.Redirect}
	}
	fl.source.Store(src.way(s))
	defer func() { _ = s.Body.Close() }() // only read
	if err := f.accept(fl, src, s, offset); err != nil {
		return err
	}
	if src.peer != nil {
		fl.peers = append(fl.peers, src.peer)
	} else {
		fl.others = true
	}
	var body io.Reader
	if w != nil {
		body = w
	} else {
		timed := &timed{
			Reader: s.Body, stall: f.cfg.Stall, timer: time.AfterFunc(f.cfg.Stall, func() { cancel(errStalled) }),
			drip: f.cfg.Drip, since: time.Now(), deserted: func() bool { return f.deserted(fl) },
		}
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
// happens between them (waiting for a disk or for readers) may. If it brings
// hardly anything it fails with cache.ErrAbandoned once it is deserted, so that
// a registry can't keep downloads going for nobody.
type timed struct {
	io.Reader
	stall    time.Duration
	timer    *time.Timer
	drip     time.Duration
	since    time.Time
	came     int64 // since then
	deserted func() bool
}

// Read implements io.Reader.
func (w *timed) Read(p []byte) (int, error) {
	if took := time.Since(w.since); took >= w.drip {
		if float64(w.came) < drip*took.Seconds() && w.deserted() {
			return 0, cache.ErrAbandoned
		}
		w.since, w.came = time.Now(), 0
	}
	w.timer.Reset(w.stall)
	defer w.timer.Stop()
	n, err := w.Reader.Read(p)
	w.came += int64(n)
	return n, err
}

// errElsewhere: the registry's redirects are followed here, so a member that
// hands one on made it up.
var errElsewhere = errors.New("the node sends clients elsewhere")

// lied is the error of a peer that can't be honest.
func lied(p mesh.Peer, why error) error {
	err := fmt.Errorf("%w: %w", mesh.ErrLies, why)
	p.Fault(err)
	return &mesh.PeerError{Peer: p.Name(), Err: err}
}

// accept tells the ingest the size at the first stream and compares it at
// later ones. Where peers told another size before, one of them was wrong, and
// what has come is worth nothing: as with wrong bytes, it begins anew.
func (f *Fetcher) accept(fl *flight, src source, s *oci.Stream, offset int64) error {
	if s.Offset != offset && s.Offset != 0 {
		return fl.wrong(src, s, "wrong range")
	}
	if !fl.in.Begun() {
		size := s.Size
		if src.peer != nil && f.dispensable(fl.ref) {
			if told := f.sizes.get(fl.ref.Registry, fl.ref.Digest); told >= 0 && size < 0 {
				size = told
			} else if told >= 0 && size != told {
				return fl.wrong(src, s, fmt.Sprintf("a size of %d bytes, the manifest tells %d", size, told))
			}
		}
		if !fl.in.Agrees(size) {
			fl.in.Forget()
			return errAnew
		}
		fl.in.SetSize(size)
		return nil
	}
	if size := fl.in.Size(); size >= 0 && s.Size >= 0 && s.Size != size {
		if len(fl.peers) > 0 {
			return fmt.Errorf("peers told a size of %d bytes, %s tells %d: %w", size, s.Host, s.Size, cache.ErrDigest)
		}
		return fl.wrong(src, s, fmt.Sprintf("size changed from %d to %d bytes", size, s.Size))
	}
	return nil
}

// wrong is the error of a source whose stream does not fit.
func (fl *flight) wrong(src source, s *oci.Stream, reason string) error {
	if src.peer != nil {
		return &mesh.PeerError{Peer: src.peer.Name(), Err: errors.New(reason)}
	}
	return &oci.Error{Kind: oci.Unavailable, Registry: fl.ref.Registry, Host: s.Host, Reason: reason}
}

// broken says how a download broke off; nil stays nil.
func (fl *flight) broken(ctx context.Context, src source, err error) error {
	if err == nil || errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrAbandoned) {
		return err
	}
	if src.peer != nil {
		if _, ok := errors.AsType[*mesh.PeerError](err); !ok {
			err = &mesh.PeerError{Peer: src.peer.Name(), Err: fmt.Errorf("the stream broke off: %w", err)}
		}
		return gaveUp(ctx, src.peer, err)
	}
	if e, ok := oci.AsError(err); ok {
		return e // a flight's of this node
	}
	e := &oci.Error{Kind: oci.Unavailable, Registry: fl.ref.Registry, Host: fl.from(), Reason: "the download broke off", Err: err}
	if errors.Is(context.Cause(ctx), errStalled) {
		e.Kind, e.Err = oci.Timeout, errStalled
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
