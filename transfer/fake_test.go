package transfer_test

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// A fake is an upstream without a network, for tests in which only time
// matters. It counts how often its blobs were opened.
type fake struct {
	open     func(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error)
	stat     func(ctx context.Context) (oci.Descriptor, error)
	manifest func(ctx context.Context) (oci.Manifest, error)

	mu    sync.Mutex
	opens int
}

func (f *fake) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	f.mu.Lock()
	f.opens++
	f.mu.Unlock()
	return f.open(ctx, ref, offset)
}

func (f *fake) Range(context.Context, oci.Ref, oci.Span) (*oci.Stream, error) {
	return nil, failure(oci.Invalid)
}

func (f *fake) Stat(ctx context.Context, _ oci.Ref, _ bool, _ []string) (oci.Descriptor, error) {
	return f.stat(ctx)
}

func (f *fake) Manifest(ctx context.Context, _ oci.Ref, _ []string) (oci.Manifest, error) {
	return f.manifest(ctx)
}

func (f *fake) Tags(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error) {
	return nil, failure(oci.NotFound)
}

func (f *fake) Referrers(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error) {
	return nil, failure(oci.NotFound)
}

func failure(kind oci.Kind) *oci.Error {
	return &oci.Error{Kind: kind, Registry: "reg.example.com", Reason: "as the test wants it"}
}

// hang is an upstream that does not answer.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return &oci.Error{Kind: oci.Timeout, Registry: "reg.example.com", Reason: "given up", Err: context.Cause(ctx)}
}

// fakeRig returns a rig in front of f, without a registry. It is for a synctest bubble.
// Call end, so that no goroutine is left in the bubble.
func fakeRig(t *testing.T, dir string, f oci.Upstream, policy grants.Site, opts cache.Options) *rig {
	t.Helper()
	events := newEvents()
	store := grants.OpenShard(dir, opts)
	r := &rig{t: t, store: store, events: events, Fetcher: transfer.New(transfer.Config{
		Upstream: f, Log: slog.New(events),
		Site: func(string) grants.Site { return withShard(policy, store) },
	})}
	return r
}

// fakeRef names what f serves.
func fakeRef(d digest.Digest) oci.Ref {
	return oci.Ref{Registry: "reg.example.com", Repository: repo, Digest: d}
}

// A body is the body of a stream. step answers each read.
type body func(p []byte) (int, error)

func (b body) Read(p []byte) (int, error) { return b(p) }
func (b body) Close() error               { return nil }

// dripping returns a body that gives n bytes of content at a time, one piece every d.
func dripping(ctx context.Context, content []byte, n int, d time.Duration) body {
	return func(p []byte) (int, error) {
		if len(content) == 0 {
			return 0, io.EOF
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		k := copy(p, content[:min(n, len(content))])
		content = content[k:]
		return k, nil
	}
}

// endsWith returns a body that gives content and then err.
func endsWith(content []byte, err error) body {
	return func(p []byte) (int, error) {
		if len(content) == 0 {
			return 0, err
		}
		k := copy(p, content)
		content = content[k:]
		return k, nil
	}
}

// took returns how long fn took.
func took(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}

// fakeBlob returns a random blob.
func fakeBlob(size int64) (digest.Digest, []byte) {
	content, err := io.ReadAll(upstreamtest.Random(1, size))
	if err != nil {
		panic(err) // Random does not fail
	}
	return digest.FromBytes(content), content
}

// endsWithHello returns a body of five bytes.
func endsWithHello() body { return endsWith([]byte("hello"), io.EOF) }
