package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
)

// A flightKey says which requests share a flight: those for one digest into
// one store, whatever repository they name.
type flightKey struct {
	store  *cache.Store
	digest digest.Digest
}

// A flight is one fill in progress. It outlives the request that began it.
type flight struct {
	key  flightKey
	ref  Ref // of the request that began it
	in   *cache.Ingest
	host atomic.Pointer[string]
}

// from is the host that delivers.
func (fl *flight) from() string {
	if h := fl.host.Load(); h != nil {
		return *h
	}
	return ""
}

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

// board joins the flight for ref's digest, or begins one. A flight that is
// not's is not joined but replaced: who asks has fallen out of it. Bytes that
// salvage yields come before those of upstream.
func (f *Fetcher) board(ref Ref, not *flight, salvage io.Reader, size int64) (fl *flight, joined bool, err error) {
	key := flightKey{f.cfg.Store(ref.Registry), ref.Digest}
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.flights[key]; ok && fl != not {
		return fl, true, nil
	}
	in, err := key.store.Ingest(f.ctx, ref.Digest, ref.Registry, "")
	if err != nil {
		return nil, false, &Error{Kind: Invalid, Registry: ref.Registry, Reason: "digest not supported", Err: err}
	}
	fl = &flight{key: key, ref: ref, in: in}
	f.flights[key] = fl
	f.wg.Go(func() { f.fly(fl, salvage, size) })
	return fl, false, nil
}

// fly fills the blob and ends the flight.
func (f *Fetcher) fly(fl *flight, salvage io.Reader, size int64) {
	start := time.Now()
	log := f.cfg.Log.With("registry", fl.ref.Registry, "repository", fl.ref.Repository, "digest", fl.ref.Digest.String())
	err := f.fill(fl, salvage, size)
	if err == nil {
		err = f.commit(fl)
	} else {
		fl.in.Abort(err)
	}
	f.mu.Lock()
	if f.flights[fl.key] == fl {
		delete(f.flights, fl.key)
	}
	f.mu.Unlock()
	took := time.Since(start).Round(time.Millisecond)
	if err != nil {
		log.Warn("blob not filled", "bytes", fl.in.Offset(), "took", took, "upstream_host", fl.from(), "error", err)
		return
	}
	log.Debug("blob filled", "bytes", fl.in.Offset(), "took", took, "upstream_host", fl.from(), "stored", fl.in.Stored())
}

// commit ends a complete download.
func (f *Fetcher) commit(fl *flight) error {
	err := fl.in.Commit()
	if err == nil {
		return nil
	}
	return &Error{Kind: Corrupt, Registry: fl.ref.Registry, Host: fl.from(), Reason: "what came is not what the digest names", Err: err}
}

// fill brings the whole blob in, taking up a download that breaks off at the
// byte it reached, each time with a fresh address.
func (f *Fetcher) fill(fl *flight, salvage io.Reader, size int64) error {
	if salvage != nil {
		fl.in.SetSize(size)
		f.copyBody(f.ctx, func() {}, fl.in, io.NopCloser(salvage)) // what it lacks, upstream has
	}
	for failures := 0; ; {
		before := fl.in.Offset()
		err := f.download(fl)
		switch {
		case err == nil:
			return nil
		case !f.worthResuming(fl, err):
			return err
		case fl.in.Offset() > before:
			failures = 0
		}
		if failures++; failures > resumes {
			return err
		}
		f.cfg.Log.Info("download taken up again", "digest", fl.ref.Digest.String(), "offset", fl.in.Offset(), "upstream_host", fl.from(), "error", err)
		if err := sleep(f.ctx, time.Duration(failures-1)*500*time.Millisecond); err != nil {
			return err
		}
	}
}

// worthResuming reports whether a broken download goes on. Before its first
// byte upstream has already tried again as often as makes sense.
func (f *Fetcher) worthResuming(fl *flight, err error) bool {
	if f.ctx.Err() != nil || !fl.in.Begun() || errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrAbandoned) {
		return false
	}
	_, redirected := errors.AsType[*errRedirected](err)
	return !redirected
}

// download asks upstream for the rest of the blob and takes what comes. nil
// means that all is there.
func (f *Fetcher) download(fl *flight) error {
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	offset := fl.in.Offset()
	if fl.in.Begun() && offset == fl.in.Size() {
		return nil
	}
	s, err := f.cfg.Upstream.Open(ctx, fl.ref, offset)
	if err != nil {
		return err
	}
	if s.Redirect != "" {
		return &errRedirected{s.Redirect}
	}
	defer func() { _ = s.Body.Close() }() // only read
	fl.host.Store(&s.Host)
	if err := fl.accept(s, offset); err != nil {
		return err
	}
	watch := time.AfterFunc(f.cfg.Stall, func() { cancel(errStalled) })
	defer watch.Stop()
	body := io.Reader(s.Body)
	if skip := offset - s.Offset; skip > 0 { // a source without Range begins anew
		if err := f.skip(body, skip, watch); err != nil {
			return fl.broken(ctx, err)
		}
	}
	return fl.broken(ctx, f.copyBody(ctx, func() { watch.Reset(f.cfg.Stall) }, fl.in, s.Body))
}

// accept tells the ingest the size at the first stream and compares it at
// later ones.
func (fl *flight) accept(s *Stream, offset int64) error {
	if !fl.in.Begun() {
		fl.in.SetSize(s.Size)
		return nil
	}
	if size := fl.in.Size(); size >= 0 && s.Size >= 0 && s.Size != size {
		return &Error{Kind: Unavailable, Registry: fl.ref.Registry, Host: s.Host, Reason: fmt.Sprintf("size changed from %d to %d bytes", size, s.Size)}
	}
	if s.Offset != offset && s.Offset != 0 {
		return &Error{Kind: Unavailable, Registry: fl.ref.Registry, Host: s.Host, Reason: "wrong range"}
	}
	return nil
}

// broken says how a download broke off; nil stays nil.
func (fl *flight) broken(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrAbandoned) {
		return err
	}
	e := &Error{Kind: Unavailable, Registry: fl.ref.Registry, Host: fl.from(), Reason: "the download broke off", Err: err}
	if errors.Is(context.Cause(ctx), errStalled) {
		e.Kind, e.Err = Timeout, errStalled
	}
	return e
}

// readBuffers are what downloads read into.
var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// copyBody reads body to its end into the ingest. alive is called before each
// read: waiting for upstream is watched, waiting for readers is not.
func (f *Fetcher) copyBody(ctx context.Context, alive func(), in *cache.Ingest, body io.ReadCloser) error {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for {
		alive()
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

// skip reads n bytes away.
func (f *Fetcher) skip(body io.Reader, n int64, watch *time.Timer) error {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for n > 0 {
		watch.Reset(f.cfg.Stall)
		k, err := body.Read(buf[:min(n, readSize)])
		n -= int64(k)
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
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
