package simulator

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

const (
	registryHost = "registry.example.com"
	// registryRate is how many bytes the registry sends in a second for each request: 400 Mb/s.
	registryRate = 50_000_000
	// registryTime is until it begins to answer.
	registryTime = 40 * time.Millisecond
	// leastBlob and mostBlob bound the blobs' sizes, in bytes that stand for Scale each.
	leastBlob, mostBlob = 2 << 10, 200 << 10
)

// A blob is one of the registry's.
type blob struct {
	ref     oci.Ref
	content []byte
}

// A Registry is where all blobs come from. It counts what it sends.
type Registry struct {
	world  *World
	blobs  []blob
	opened atomic.Int64 // requests

	mu    sync.Mutex // guards the fields below; never held during I/O
	index map[digest.Digest]int
	sent  []int64  // bytes, by blob
	held  [4]int64 // bytes, by who held them when they were asked for
}

func newRegistry(w *World) *Registry {
	r := &Registry{world: w, sent: make([]int64, max(1, w.cfg.Ranges)*w.cfg.Blobs), index: map[digest.Digest]int{}}
	draw := rand.New(rand.NewPCG(w.cfg.Seed, 2))
	source := rand.NewChaCha8([32]byte{byte(w.cfg.Seed), byte(w.cfg.Seed >> 8)})
	for i := range r.sent {
		size := int(math.Exp(draw.NormFloat64()*1.2) * (16 << 10))
		if size = min(max(size, leastBlob), mostBlob); w.cfg.Size > 0 {
			size = w.cfg.Size
		}
		content := make([]byte, size)
		_, _ = source.Read(content) // it never fails
		d := digest.FromBytes(content)
		r.index[d] = i
		r.blobs = append(r.blobs, blob{oci.Ref{Registry: registryHost, Repository: "team/app", Digest: d}, content})
	}
	return r
}

// Open implements oci.Upstream.
func (r *Registry) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	r.opened.Add(1)
	i, held := r.index[ref.Digest], whoHolds(r.world, ref.Digest)
	select {
	case <-time.After(registryTime):
	case <-ctx.Done():
		return nil, &oci.Error{Kind: oci.Timeout, Registry: ref.Registry, Err: context.Cause(ctx)}
	}
	content := r.blobs[i].content
	return &oci.Stream{
		Body: &body{ctx: ctx, registry: r, blob: i, rest: content[offset:], held: held}, Offset: offset, Size: int64(len(content)), Host: registryHost, By: oci.Registry,
	}, nil
}

// A body is what the registry sends for one request.
type body struct {
	ctx      context.Context
	registry *Registry
	blob     int
	rest     []byte
	held     held
}

// held says who held a blob when it was asked for.
type held int

const (
	nowhere held = iota
	living       // on a node that ran,
	lost         // else on one that did not,
	gone         // or on several that did not
)

// whoHolds says who holds a blob now.
func whoHolds(w *World, d digest.Digest) held {
	stopped := 0
	for _, h := range w.all() {
		switch {
		case !h.holds(d):
		case h.up():
			return living
		default:
			stopped++
		}
	}
	switch stopped {
	case 0:
		return nowhere
	case 1:
		return lost
	}
	return gone
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 4<<10)], b.rest)
	select {
	case <-time.After(time.Duration(float64(n) * b.registry.world.cfg.scale() / registryRate * float64(time.Second))):
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	}
	b.rest = b.rest[n:]
	b.registry.count(b.blob, int64(n), b.held)
	return n, nil
}

// Close implements io.Closer.
func (*body) Close() error { return nil }

func (r *Registry) count(blob int, n int64, by held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[blob] += n
	r.held[by] += n
}

// An Amplification says how often the registry sent the blobs of the range that were asked for.
type Amplification struct {
	Unique int64 // bytes that were asked for at least once
	Sent   int64 // bytes that the registry sent
	// Bytes that it sent although somebody held them when they were asked for: a node that
	// ran; else one that did not run; or several that did not, which two copies can't help.
	Living, Lost, Gone int64
}

// since is what of it came after before, and all that was asked for once.
func (a Amplification) since(before Amplification) Amplification {
	return Amplification{a.Unique, a.Sent - (before.Sent - before.Unique), a.Living - before.Living, a.Lost - before.Lost, a.Gone - before.Gone}
}

// Ratio is how often each byte came from the registry.
func (a Amplification) Ratio() float64 { return float64(a.Sent) / float64(a.Unique) }

// part is what so many bytes are of all that were asked for.
func (a Amplification) part(n int64) float64 { return float64(n) / float64(a.Unique) }

// Amplification returns what the registry has sent so far.
func (r *Registry) Amplification() (a Amplification) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.Living, a.Lost, a.Gone = r.held[living], r.held[lost], r.held[gone]
	for i, n := range r.sent[r.world.from:][:r.world.cfg.Blobs] {
		if n > 0 {
			a.Unique += int64(len(r.blobs[r.world.from+i].content))
			a.Sent += n
		}
	}
	return a
}

// popular draws a blob of the range: the first are asked for most (Zipf's law).
func popular(w *World, draw *rand.Rand) int {
	const steep = 0.9
	n := float64(w.cfg.Blobs)
	x := math.Pow(draw.Float64()*(math.Pow(n+1, 1-steep)-1)+1, 1/(1-steep))
	return w.from + min(int(x), w.cfg.Blobs) - 1
}

func refused() error {
	return &oci.Error{Kind: oci.NotFound, Registry: registryHost, Reason: "the simulated registry has blobs only"}
}

// Range implements oci.Upstream.
func (*Registry) Range(context.Context, oci.Ref, oci.Span) (*oci.Stream, error) {
	return nil, refused()
}

// Stat implements oci.Upstream.
func (*Registry) Stat(context.Context, oci.Ref, bool, []string) (oci.Descriptor, error) {
	return oci.Descriptor{}, refused()
}

// Manifest implements oci.Upstream.
func (*Registry) Manifest(context.Context, oci.Ref, []string) (oci.Manifest, error) {
	return oci.Manifest{}, refused()
}

// Tags implements oci.Upstream.
func (*Registry) Tags(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error) {
	return nil, refused()
}

// Referrers implements oci.Upstream.
func (*Registry) Referrers(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error) {
	return nil, refused()
}
