package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// errStill is the cause of a download that stood still.
var errStill = errors.New("the download from the archive stood still")

// errEndless: the bucket might send bytes without end, and a client would get them. Each S3 server
// tells a size.
var errEndless = errors.New("it does not tell how large the object is")

// open opens a blob in the bucket.
func (a *Archive) open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	own, end := context.WithCancelCause(ctx)
	s, err := a.plain(own, ref, offset)
	if err != nil {
		end(nil)
		return nil, err
	}
	b := &body{ReadCloser: s.Body, ctx: own, end: end, archive: a, ref: ref, still: time.AfterFunc(time.Hour, func() { end(errStill) })}
	b.still.Stop() // until something is read
	s.Body = b
	return s, nil
}

// plain is open without an eye on how fast the bytes come.
func (a *Archive) plain(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	key := a.key(ref)
	o, err := a.bucket.get(ctx, key, offset)
	if err != nil {
		return nil, err
	}
	if o.size < 0 {
		return nil, errors.Join(errEndless, o.Close())
	}
	a.notes.has(key)
	a.found.Add(1)
	return &oci.Stream{
		Body: o.ReadCloser, Offset: o.offset, Size: o.size, Host: a.bucket.Endpoint.Host, By: oci.Mirror, Archived: true,
		Wrong: func(all bool) { a.lied(ref, key, all) },
	}, nil
}

// lied notes that an object has wrong bytes, or may have some: it is passed over for a while,
// and put anew when the registry has delivered the right ones.
func (a *Archive) lied(ref oci.Ref, key string, all bool) {
	a.notes.lied(key)
	a.log.Warn("archive sent wrong bytes", "registry", ref.Registry, "image", ref.Repository, "digest", ref.Digest.String(), "key", key, "alone", all)
}

// maxManifest bounds manifests, in bytes.
const maxManifest = 4 << 20

// manifest gets a manifest from the bucket, and verifies it.
func (a *Archive) manifest(ctx context.Context, ref oci.Ref) (oci.Manifest, error) {
	key := a.key(ref)
	o, err := a.bucket.get(ctx, key, 0)
	if err != nil {
		return oci.Manifest{}, err
	}
	defer func() { _ = o.Close() }() // only read
	claim := a.memory.Claim()
	defer claim.Release()
	all, err := wait.ReadAll(wait.WithClaim(ctx, claim), o, o.size, maxManifest)
	switch {
	case errors.Is(err, wait.ErrFull), errors.Is(err, wait.ErrTooLarge):
		return oci.Manifest{}, fmt.Errorf("%w in the memory that there is: %w", errMissing, err)
	case err != nil && context.Cause(ctx) != nil:
		return oci.Manifest{}, context.Cause(ctx)
	case err != nil:
		return oci.Manifest{}, fmt.Errorf("reading a manifest: %w", err)
	case !oci.Matches(ref.Digest, all):
		a.lied(ref, key, true)
		return oci.Manifest{}, fmt.Errorf("%w with the right bytes", errMissing)
	}
	a.notes.has(key)
	a.found.Add(1)
	return oci.Manifest{Digest: ref.Digest, MediaType: o.mediaType, Bytes: all, By: oci.Mirror}, nil
}

// covered puts the bytes of a manifest in memory that the asker claims.
func covered(ctx context.Context, ref oci.Ref, m *oci.Manifest) error {
	if m.By != oci.Mirror {
		return nil
	}
	own, err := wait.ReadAll(ctx, bytes.NewReader(m.Bytes), int64(len(m.Bytes)), maxManifest)
	if err != nil {
		return oci.BusyError(ref.Registry, err)
	}
	m.Bytes = own
	return nil
}

// OpenKept implements oci.Archive.
func (a *Archive) OpenKept(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	return kept(ctx, a, question[*oci.Stream]{
		ref:    ref,
		bucket: func(ctx context.Context) (*oci.Stream, error) { return a.plain(ctx, ref, offset) },
		drop:   func(s *oci.Stream) { _ = s.Body.Close() }, // nobody wants it
		hold:   func(s *oci.Stream, end context.CancelFunc) { s.Body = &ending{s.Body, end} },
	})
}

// KeptManifest implements oci.Archive.
func (a *Archive) KeptManifest(ctx context.Context, ref oci.Ref) (oci.Manifest, error) {
	m, err := kept(ctx, a, question[oci.Manifest]{
		ref: ref, drop: func(oci.Manifest) {},
		bucket: func(ctx context.Context) (oci.Manifest, error) { return a.manifest(ctx, ref) },
		hold:   func(_ oci.Manifest, end context.CancelFunc) { end() },
	})
	if err == nil {
		err = covered(ctx, ref, &m)
	}
	return m, err
}

// kept asks the bucket alone.
func kept[T any](ctx context.Context, a *Archive, q question[T]) (T, error) {
	var none T
	if !a.asked(ctx, q.ref) {
		return none, oci.OfflineError(q.ref)
	}
	only := begin(ctx, a.life, q.bucket)
	if only.within(ctx, patience) && only.err == nil {
		a.looking.answered()
		return only.answer(q)
	}
	only.leave(q, errLate)
	a.note(ctx, q.ref, only.err)
	return none, withCause(oci.OfflineError(q.ref), only.err)
}

// An ending is a body whose request ends with it.
type ending struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (e *ending) Close() error {
	err := e.ReadCloser.Close()
	e.end()
	return err
}

// A speed is how much came in what time. The time is that spent in reading: what the reader
// does in between is not the source's fault.
type speed struct {
	bytes int64
	took  time.Duration
}

// add adds what came.
func (s *speed) add(n int, took time.Duration) {
	s.bytes += int64(n)
	s.took += took
}

// A body is a blob from the bucket, left if the registry is much faster. Its methods belong
// to one goroutine at a time.
type body struct {
	io.ReadCloser
	ctx     context.Context // of the request
	end     context.CancelCauseFunc
	archive *Archive
	ref     oci.Ref
	still   *time.Timer // ends the request
	all     int64
	lap     speed
}

// wellRead is how many bytes of a body show that the bucket is well again after a slow one.
const wellRead = 1 << 20

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	began, patient := time.Now(), b.archive.standings.of(b.ref.Registry).down
	if !patient {
		b.still.Reset(stillFor)
	}
	n, err := b.ReadCloser.Read(p)
	b.still.Stop()
	b.all += int64(n)
	b.lap.add(n, time.Since(began))
	switch {
	case err == nil && patient:
		return n, nil
	case err == nil:
		return n, b.judge()
	case errors.Is(err, io.EOF):
		if b.all >= wellRead {
			b.archive.looking.delivered()
		}
	case errors.Is(context.Cause(b.ctx), errStill):
		err = errStill
		b.archive.looking.failed(errStill.Error(), true)
	case b.ctx.Err() == nil:
		b.archive.looking.failed("a download broke off", true)
	}
	return n, err
}

const (
	// muchFaster is how many times as fast a registry must be for a download to be left.
	muchFaster = 8
	// leastRate is what a download has to bring, in bytes a second, while it is not known how
	// fast the registry is.
	leastRate = 256 << 10
)

// judge ends a lap, and fails if the registry is known to be much faster than that.
func (b *body) judge() error {
	if b.lap.took < crawlFor {
		return nil
	}
	rate := float64(b.lap.bytes) / b.lap.took.Seconds()
	b.lap = speed{}
	least := float64(leastRate)
	if known := b.archive.standings.of(b.ref.Registry).rate; known > 0 {
		least = known / muchFaster
	}
	if rate >= least {
		return nil
	}
	why := fmt.Sprintf("it sent %d bytes a second, which is much less than the registry does", int64(rate))
	b.archive.looking.failed(why, true)
	b.archive.log.Info("slow download left for the registry", "registry", b.ref.Registry, "digest", b.ref.Digest.String(), "bytes_per_second", int64(rate))
	return errors.New("archive: " + why)
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.still.Stop()
	err := b.ReadCloser.Close()
	b.end(nil)
	return err
}

// A registryBody is a blob from the registry, timed to compare the bucket with.
type registryBody struct {
	io.ReadCloser
	standings *standings
	registry  string
	all       speed
}

// Read implements io.Reader.
func (b *registryBody) Read(p []byte) (int, error) {
	began := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.all.add(n, time.Since(began))
	return n, err
}

// Close implements io.Closer.
func (b *registryBody) Close() error {
	b.standings.sent(b.registry, b.all.bytes, b.all.took)
	return b.ReadCloser.Close()
}
