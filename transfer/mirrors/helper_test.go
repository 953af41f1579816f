package mirrors

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	mib = 1 << 20

	own = "reg.example.com"
	one = "one.example.com"
	two = "two.example.com"
)

// A host of a world. Its zero value has everything and answers at once.
type host struct {
	delay time.Duration // as in testkit.Manner
	hangs bool
	rate  int64
	still int64
	fails *oci.Error // the answer
	lies  bool       // it sends wrong bytes
	hands bool       // it redirects
}

// manner is how fast the host is.
func (h host) manner() testkit.Manner {
	return testkit.Manner{Delay: h.delay, Hangs: h.hangs, Rate: h.rate, Still: h.still}
}

// A world is an upstream in which each host does as it is told. It is for a synctest bubble.
type world struct {
	places
	content []byte
}

// Places are the hosts of a world.
type places struct {
	mu    sync.Mutex
	hosts map[string]host
	asked []string // method and host, in order
}

// be changes a host.
func (w *places) be(name string, h host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[name] = h
}

// took returns what was asked since the last call.
func (w *places) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.asked
	w.asked = nil
	return all
}

// answer plays the beginning of a host's answer.
func (w *world) answer(ctx context.Context, method string, ref oci.Ref) (host, error) {
	w.mu.Lock()
	h := w.hosts[ref.Registry]
	w.asked = append(w.asked, method+" "+ref.Registry)
	w.mu.Unlock()
	if err := h.manner().Begin(ctx); err != nil {
		return h, &oci.Error{Kind: oci.Timeout, Registry: ref.Registry, Host: ref.Registry, Reason: "the request was cancelled", Err: err}
	}
	if h.fails != nil {
		e := *h.fails
		e.Registry, e.Host = ref.Registry, ref.Registry
		return h, &e
	}
	return h, nil
}

// bytes are what a host sends.
func (w *world) bytes(h host) []byte {
	if h.lies {
		return bytes.Repeat([]byte{'x'}, len(w.content))
	}
	return w.content
}

func (w *world) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	h, err := w.answer(ctx, "GET", ref)
	if err != nil {
		return nil, err
	}
	if h.hands {
		return &oci.Stream{Redirect: "https://elsewhere.example.com/", By: oci.Registry}, nil
	}
	return &oci.Stream{
		Body: h.manner().Body(ctx, w.bytes(h)[offset:]), Offset: offset, Size: int64(len(w.content)), Host: ref.Registry, By: oci.Registry,
	}, nil
}

func (w *world) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	h, err := w.answer(ctx, "RANGE", ref)
	if err != nil {
		return nil, err
	}
	return &oci.Stream{
		Body: h.manner().Body(ctx, w.bytes(h)[span.Offset:span.End()]), Offset: span.Offset, Size: int64(len(w.content)), Host: ref.Registry, By: oci.Registry,
	}, nil
}

func (w *world) Stat(ctx context.Context, ref oci.Ref, _ bool, _ []string) (oci.Descriptor, error) {
	_, err := w.answer(ctx, "HEAD", ref)
	return oci.Descriptor{Digest: digest.FromBytes(w.content), MediaType: "application/x", Size: int64(len(w.content)), By: oci.Registry}, err
}

func (w *world) Manifest(ctx context.Context, ref oci.Ref, _ []string) (oci.Manifest, error) {
	h, err := w.answer(ctx, "GET", ref)
	if err == nil && h.lies {
		err = &oci.Error{Kind: oci.Corrupt, Registry: ref.Registry, Host: ref.Registry, By: oci.Registry, Status: 200, Reason: "the manifest does not match its digest"}
	}
	return oci.Manifest{Digest: digest.FromBytes(w.content), MediaType: "application/x", Bytes: w.content, By: oci.Registry}, err
}

func (w *world) Tags(ctx context.Context, ref oci.Ref, _ oci.Query, to oci.Sink) (*oci.Page, error) {
	if _, err := w.answer(ctx, "LIST", ref); err != nil {
		return nil, err
	}
	to.Reset()
	if _, err := to.Write([]byte(ref.Registry)); err != nil {
		return nil, err
	}
	return &oci.Page{By: oci.Registry}, nil
}

func (w *world) Referrers(ctx context.Context, ref oci.Ref, q oci.Query, to oci.Sink) (*oci.Page, error) {
	return w.Tags(ctx, ref, q, to)
}

// A rig is a registry with two mirrors, of which the second is trusted for tags.
type rig struct {
	*Mirrors
	*places
	content []byte
	t       *testing.T
	log     *testkit.Log
}

// inBubble runs a test with a rig in virtual time.
func inBubble(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{content: bytes.Repeat([]byte("0123456789abcdef"), 4*mib/16), places: places{hosts: map[string]host{}}}
		r := &rig{places: &w.places, content: w.content, t: t, log: &testkit.Log{}}
		r.Mirrors = New(Config{Upstream: w, Of: map[string][]Mirror{own: {{Host: one}, {Host: two, Tags: true}}}, Log: slog.New(slog.NewTextHandler(r.log, nil))})
		defer r.Close()
		test(r)
	})
}

// blob names the content, in that repository.
func (r *rig) blob(repository string) oci.Ref {
	return oci.Ref{Registry: own, Repository: repository, Digest: digest.FromBytes(r.content)}
}

// pull reads the blob as a download does: what breaks off goes on from the byte reached, and
// what came out wrong is told and got once more. It returns which hosts delivered.
func (r *rig) pull(ref oci.Ref) (from []string, err error) {
	r.t.Helper()
	ctx := oci.WithMirrors(r.t.Context())
	for range 2 {
		var all []byte
		var streams []*oci.Stream
		for failures := 0; len(all) < len(r.content); {
			s, err := r.Open(ctx, ref, int64(len(all)))
			if err != nil {
				return from, err
			}
			from, streams = append(from, s.Host), append(streams, s)
			part, err := io.ReadAll(s.Body)
			if err := s.Body.Close(); err != nil {
				r.t.Error(err)
			}
			all = append(all, part...)
			if err != nil && len(part) == 0 {
				failures++
			}
			if failures > 3 {
				return from, err
			}
		}
		if bytes.Equal(all, r.content) {
			return from, nil
		}
		for _, s := range streams {
			if s.Wrong != nil {
				s.Wrong(len(streams) == 1)
			}
		}
	}
	return from, errors.New("wrong bytes")
}

// wantPull pulls from a repository, and fails the test unless just these hosts deliver within
// that time. Probes end before it returns.
func (r *rig) wantPull(repository string, within time.Duration, hosts ...string) {
	r.t.Helper()
	began := time.Now()
	from, err := r.pull(r.blob(repository))
	if err != nil || !slices.Equal(from, hosts) {
		r.t.Errorf("the blob came from %q, %v; want %q", from, err, hosts)
	}
	if took := time.Since(began); took > within {
		r.t.Errorf("it took %v, want %v at most", took, within)
	}
	synctest.Wait()
}

// tag asks what a tag means, and returns who said so.
func (r *rig) tag() (oci.Descriptor, error) {
	return r.Stat(oci.WithMirrors(r.t.Context()), oci.Ref{Registry: own, Repository: "a/b", Tag: "v1"}, false, nil)
}

// A page is a sink that fails if it is told to.
type page struct {
	bytes.Buffer
	fails error
}

func (p *page) Write(b []byte) (int, error) {
	if p.fails != nil {
		return 0, p.fails
	}
	return p.Buffer.Write(b)
}

// The ways in which a host may fail.
var (
	refused   = &oci.Error{Kind: oci.Unavailable, Reason: "connection refused", Unreached: true}
	trouble   = &oci.Error{Kind: oci.Unavailable, By: oci.Registry, Status: 503, Reason: "the server reported an error"}
	absent    = &oci.Error{Kind: oci.NotFound, By: oci.Registry, Status: 404, Reason: "not found"}
	forbidden = &oci.Error{Kind: oci.Denied, By: oci.Registry, Status: 403, Reason: "access denied"}
	limited   = &oci.Error{Kind: oci.Limited, By: oci.Registry, Status: 429, Reason: "too many requests", RetryAfter: time.Minute}
)
