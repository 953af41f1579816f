// Package archive is a cold tier: an S3-compatible bucket in which the members of a cluster
// put what they verified, and where they look before they ask a registry. Nodes that lost
// their disks find there what the registry has no more, or does not give now.
//
// It is an oci.Upstream over the one that asks registries. The bucket plays by the rules of
// a mirror that nobody trusts: it is asked only for content by its digest, which whoever
// takes it verifies, and only if the caller says oci.WithMirrors. So what is private takes
// the registry's word, each time. A range of a blob can't be verified, nor can a size or a
// list: these are asked of the registry alone.
//
// A bucket that is slow or gone costs nothing but its content. The story of a question:
//
//   - race.go asks the bucket, and 250 ms later the registry side by side. The first answer
//     wins. A bucket that loses like that, or fails, is out of use until it answers a probe
//     in the background (breaker.go).
//   - stream.go times what comes. A download that stands still, or is much slower than the
//     registry, breaks off, and whoever reads goes on at the registry from the byte reached.
//   - While the registry fails, the bucket is asked even if it is out of use.
//
// words.go keeps what tags of public registries mean, for when the registry fails and no
// member knows. Nobody can verify that by its bytes, so it is signed with the secret key that
// the nodes share: who can only write to the bucket can't move a tag.
//
// put.go puts: a few uploads at a time, from a queue that drops what does not fit. Content is
// offered to it once this node has verified it. notes.go remembers what the bucket has, so
// that nothing is put twice, and which of its objects are wrong: they are passed over, and
// put anew. bucket.go makes the requests, and says what objects are called.
package archive

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// Config is what an Archive works with. All fields but Queue are needed.
type Config struct {
	Bucket   Bucket
	Upstream oci.Upstream               // asks registries
	Private  func(registry string) bool // whether a registry is private now
	Log      *slog.Logger
	Queue    int // how many objects wait to be put at most, 0: 4096
}

// Figures are what an Archive counts: objects.
type Figures struct {
	Found   int64 // got from the bucket
	Put     int64 // put into it
	Had     int64 // not put because it had them
	Failed  int64 // not put because it failed or refused them
	Dropped int64 // not put because too many waited, or gone until it was their turn
}

// An Archive asks a bucket before registries, and fills it. It is safe for concurrent use.
type Archive struct {
	upstream  oci.Upstream
	bucket    *bucket
	private   func(registry string) bool
	log       *slog.Logger
	looking   breaker // for what is got from the bucket
	notes     *notes
	standings *standings
	memory    *wait.Budget // for manifests on their way
	life      *wait.Life   // of requests and probes
	found     atomic.Int64
	words     *words
	putter
}

var (
	_ oci.Upstream = (*Archive)(nil)
	_ oci.Archive  = (*Archive)(nil)
)

// Manifests on their way from the bucket share this much memory.
const (
	memoryBytes = 32 << 20
	memoryCrowd = 256
)

// New returns an Archive. It makes no request. Close it.
func New(cfg Config) (*Archive, error) {
	b, err := openBucket(cfg.Bucket)
	if err != nil {
		return nil, err
	}
	a := &Archive{
		upstream: cfg.Upstream, bucket: b, private: cfg.Private, log: cfg.Log, notes: newNotes(), standings: newStandings(),
		memory: wait.NewBudget(memoryBytes, memoryCrowd, patience), life: wait.NewLife(),
	}
	a.words = newWords(cfg.Bucket.SecretKey)
	a.putter.begin(b, a.notes, cmp.Or(cfg.Queue, maxQueue), cfg.Log)
	return a, nil
}

// Close ends what is under way. Uploads may go on for 2 s.
func (a *Archive) Close() {
	a.putter.close()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	a.life.Close(now)
	a.bucket.close()
}

// Figures returns what was counted.
func (a *Archive) Figures() Figures {
	f := a.putter.figures()
	f.Found = a.found.Load()
	return f
}

// Health returns why the bucket is out of use, nil if it is not. It sees to it that a bucket
// is probed that nobody needs now.
func (a *Archive) Health() error {
	a.probe()
	if why := a.looking.wrong(); why != "" {
		return fmt.Errorf("archive: nothing is got from the bucket %s at %s for now: %s", a.bucket.Name, a.bucket.Endpoint.Host, why)
	}
	if why := a.putting.wrong(); why != "" {
		return fmt.Errorf("archive: nothing is put into the bucket %s at %s for now: %s", a.bucket.Name, a.bucket.Endpoint.Host, why)
	}
	return nil
}

// asked reports whether the bucket may be asked for what ref names.
func (a *Archive) asked(ctx context.Context, ref oci.Ref) bool {
	if ref.Digest == "" || !oci.Mirrors(ctx) || ref.Digest.Validate() != nil {
		return false
	}
	_, wrong := a.notes.of(a.key(ref))
	return !wrong
}

// key is the key of what ref names.
func (a *Archive) key(ref oci.Ref) string {
	return a.bucket.key(a.private(ref.Registry), ref.Registry, ref.Digest)
}

// Open implements oci.Upstream.
func (a *Archive) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	if !a.asked(ctx, ref) {
		return a.upstream.Open(ctx, ref, offset)
	}
	return ask(ctx, a, question[*oci.Stream]{
		ref:    ref,
		bucket: func(ctx context.Context) (*oci.Stream, error) { return a.open(ctx, ref, offset) },
		registry: func(ctx context.Context) (*oci.Stream, error) {
			s, err := a.upstream.Open(ctx, ref, offset)
			if err == nil && s.Body != nil {
				s.Body = &registryBody{ReadCloser: s.Body, standings: a.standings, registry: ref.Registry}
			}
			return s, err
		},
		drop: func(s *oci.Stream) {
			if s.Body != nil {
				_ = s.Body.Close() // nobody wants it
			}
		},
		hold: func(s *oci.Stream, end context.CancelFunc) {
			if s.Body == nil {
				end()
				return
			}
			s.Body = &ending{s.Body, end}
		},
	})
}

// Range implements oci.Upstream. The digest of a blob says nothing about a range of it.
func (a *Archive) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	return a.upstream.Range(ctx, ref, span)
}

// Stat implements oci.Upstream. A manifest is got from the bucket whole. Of a blob the bucket
// is only asked while the registry fails, and only whether it is there.
func (a *Archive) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	registry := func(ctx context.Context) (oci.Descriptor, error) { return a.upstream.Stat(ctx, ref, blob, accept) }
	switch {
	case !a.asked(ctx, ref):
		return registry(ctx)
	case blob:
		d, err := registry(ctx)
		if passing(err) && a.there(ctx, ref) {
			return oci.Descriptor{Digest: ref.Digest, Size: -1, By: oci.Mirror}, nil
		}
		return d, err
	}
	d, err := ask(ctx, a, question[oci.Descriptor]{
		ref: ref, registry: registry, drop: func(oci.Descriptor) {},
		bucket: func(ctx context.Context) (oci.Descriptor, error) {
			m, err := a.manifest(ctx, ref)
			return oci.Descriptor{Digest: m.Digest, MediaType: m.MediaType, Size: int64(len(m.Bytes)), By: m.By, Manifest: &m}, err
		},
		hold: func(_ oci.Descriptor, end context.CancelFunc) { end() },
	})
	if err == nil && d.Manifest != nil {
		err = covered(ctx, ref, d.Manifest)
	}
	return d, err
}

// Manifest implements oci.Upstream.
func (a *Archive) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	registry := func(ctx context.Context) (oci.Manifest, error) { return a.upstream.Manifest(ctx, ref, accept) }
	if !a.asked(ctx, ref) {
		return registry(ctx)
	}
	m, err := ask(ctx, a, question[oci.Manifest]{
		ref: ref, registry: registry, drop: func(oci.Manifest) {},
		bucket: func(ctx context.Context) (oci.Manifest, error) { return a.manifest(ctx, ref) },
		hold:   func(_ oci.Manifest, end context.CancelFunc) { end() },
	})
	if err == nil {
		err = covered(ctx, ref, &m)
	}
	return m, err
}

// Tags implements oci.Upstream.
func (a *Archive) Tags(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return a.upstream.Tags(ctx, ref, query, to)
}

// Referrers implements oci.Upstream.
func (a *Archive) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return a.upstream.Referrers(ctx, ref, query, to)
}
