package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
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
	mib    = 1 << 20
	own    = "reg.example.com"
	secret = "sesame-sesame"
)

// A manner is how a server behaves. The zero value has everything and answers at once.
type manner struct {
	delay  time.Duration // as in testkit.Manner
	hangs  bool
	rate   int64
	still  int64
	cut    int64
	dead   bool       // no connection comes about
	status int        // the answer
	code   string     // of an S3 error
	lies   bool       // it sends wrong bytes
	fails  *oci.Error // of a registry: the answer
}

// pace is how fast the server is.
func (m manner) pace() testkit.Manner {
	return testkit.Manner{Delay: m.delay, Hangs: m.hangs, Rate: m.rate, Still: m.still, Cut: m.cut}
}

// An s3 is an S3 server that does as it is told. It is for a synctest bubble.
type s3 struct {
	conns chan net.Conn

	mu      sync.Mutex
	manner  manner
	objects map[string][]byte
	types   map[string]string
	asked   []string // method and key, in order
}

// Accept implements net.Listener.
func (s *s3) Accept() (net.Conn, error) {
	c, ok := <-s.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// Close implements net.Listener.
func (s *s3) Close() error { return nil }

// Addr implements net.Listener.
func (s *s3) Addr() net.Addr { return &net.TCPAddr{} }

// dial connects to the server.
func (s *s3) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if s.now().dead {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	select {
	case s.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// be changes how the server behaves.
func (s *s3) be(m manner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manner = m
}

func (s *s3) now() manner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manner
}

// took returns what was asked since the last call.
func (s *s3) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.asked
	s.asked = nil
	return all
}

// has returns an object.
func (s *s3) has(key string) ([]byte, string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok := s.objects[key]
	return content, s.types[key], ok
}

// hold puts an object there.
func (s *s3) hold(key, mediaType string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key], s.types[key] = content, mediaType
}

// ServeHTTP implements http.Handler.
func (s *s3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/cold/")
	m := s.now()
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+key)
	s.mu.Unlock()
	if m.dead {
		panic(http.ErrAbortHandler)
	}
	if m.pace().Begin(r.Context()) != nil {
		return
	}
	switch content, mediaType, ok := s.has(key); {
	case m.status != 0:
		refuse(w, m.status, m.code)
	case r.Method == http.MethodPut:
		s.take(w, r, key)
	case !ok:
		refuse(w, http.StatusNotFound, "NoSuchKey")
	default:
		s.send(w, r, m, content, mediaType)
	}
}

// refuse answers with an S3 error.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>as it was told</Message></Error>", code)
}

// take takes an object.
func (s *s3) take(w http.ResponseWriter, r *http.Request, key string) {
	content, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("X-Amz-Content-Sha256") != digest.FromBytes(content).Encoded() {
		refuse(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch")
		return
	}
	s.hold(key, r.Header.Get("Content-Type"), content)
}

// send sends an object, from an offset if a range says so.
func (s *s3) send(w http.ResponseWriter, r *http.Request, m manner, content []byte, mediaType string) {
	if m.lies {
		content = bytes.Repeat([]byte{'x'}, len(content))
	}
	offset, status := 0, http.StatusOK
	if span := r.Header.Get("Range"); span != "" {
		if _, err := fmt.Sscanf(span, "bytes=%d-", &offset); err != nil || offset >= len(content) {
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
			return
		}
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, len(content)-1, len(content)))
	}
	w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(content)-offset))
	w.WriteHeader(status)
	_ = http.NewResponseController(w).Flush()
	if r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(w, m.pace().Body(r.Context(), content[offset:])); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// A registry is an upstream that does as it is told.
type registry struct {
	oci.Upstream
	content []byte

	mu     sync.Mutex
	manner manner
	asked  []string
}

func (g *registry) be(m manner) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.manner = m
}

// took returns what was asked since the last call.
func (g *registry) took() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.asked
	g.asked = nil
	return all
}

// answer plays the beginning of an answer.
func (g *registry) answer(ctx context.Context, what string) (manner, error) {
	g.mu.Lock()
	m := g.manner
	g.asked = append(g.asked, what)
	g.mu.Unlock()
	if err := m.pace().Begin(ctx); err != nil {
		return m, err
	}
	if m.fails != nil {
		return m, m.fails
	}
	return m, nil
}

func (g *registry) Open(ctx context.Context, _ oci.Ref, offset int64) (*oci.Stream, error) {
	m, err := g.answer(ctx, fmt.Sprintf("GET %d", offset))
	if err != nil {
		return nil, err
	}
	return &oci.Stream{Body: m.pace().Body(ctx, g.content[offset:]), Offset: offset, Size: int64(len(g.content)), Host: own, By: oci.Registry}, nil
}

func (g *registry) Range(ctx context.Context, _ oci.Ref, _ oci.Span) (*oci.Stream, error) {
	_, err := g.answer(ctx, "RANGE")
	return &oci.Stream{By: oci.Registry}, err
}

func (g *registry) Stat(ctx context.Context, ref oci.Ref, _ bool, _ []string) (oci.Descriptor, error) {
	_, err := g.answer(ctx, "HEAD")
	return oci.Descriptor{Digest: ref.Digest, Size: int64(len(g.content)), By: oci.Registry}, err
}

func (g *registry) Manifest(ctx context.Context, ref oci.Ref, _ []string) (oci.Manifest, error) {
	_, err := g.answer(ctx, "MANIFEST")
	return oci.Manifest{Digest: ref.Digest, MediaType: "application/x", Bytes: g.content, By: oci.Registry}, err
}

func (g *registry) Tags(ctx context.Context, _ oci.Ref, _ oci.Query, _ oci.Sink) (*oci.Page, error) {
	_, err := g.answer(ctx, "TAGS")
	return &oci.Page{By: oci.Registry}, err
}

func (g *registry) Referrers(ctx context.Context, _ oci.Ref, _ oci.Query, _ oci.Sink) (*oci.Page, error) {
	_, err := g.answer(ctx, "REFERRERS")
	return &oci.Page{By: oci.Registry}, err
}

// A rig is an archive with a bucket and a registry, which both have the content.
type rig struct {
	*Archive
	t        *testing.T
	bucket   *s3
	registry *registry
	content  []byte
	log      *testkit.Log
	private  bool
}

const (
	mediaType = "application/vnd.oci.image.manifest.v1+json"
	prefix    = "tier/one"
	queue     = 100
)

// inBubble runs a test with a rig in virtual time. The bucket has the content if has says so.
func inBubble(t *testing.T, has bool, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		content := bytes.Repeat([]byte("0123456789abcdef"), 2*mib/16)
		r := &rig{t: t, content: content, log: &testkit.Log{}}
		r.bucket = &s3{conns: make(chan net.Conn), objects: map[string][]byte{}, types: map[string]string{}}
		r.registry = &registry{content: content}
		a, err := New(Config{
			Bucket:   Bucket{Endpoint: &url.URL{Scheme: "http", Host: "s3.internal:9000"}, Name: "cold", Prefix: prefix, Region: "eu-1", AccessKey: "AK", SecretKey: secret},
			Upstream: r.registry, Private: func(string) bool { return r.private }, Log: slog.New(slog.NewTextHandler(r.log, nil)), Queue: queue,
		})
		if err != nil {
			t.Fatal(err)
		}
		a.bucket.transport.DialContext, a.bucket.transport.Proxy = r.bucket.dial, nil
		r.Archive = a
		if has {
			r.bucket.hold(r.key(r.ref()), mediaType, content)
		}
		srv := &http.Server{Handler: r.bucket, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = srv.Serve(r.bucket)
		}()
		test(r)
		a.Close()
		close(r.bucket.conns)
		_ = srv.Close()
		<-served
		time.Sleep(time.Second) // in the bubble: net/http's connections linger
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("the log tells the secret:\n%s", r.log)
		}
	})
}

// ref names the content.
func (r *rig) ref() oci.Ref {
	return oci.Ref{Registry: own, Repository: "a/b", Digest: digest.FromBytes(r.content)}
}

// ctx is that of a question that mirrors may answer.
func (r *rig) ctx() context.Context { return oci.WithMirrors(r.t.Context()) }

// pull reads the blob as a download does: what breaks off goes on from the byte reached. It
// returns who delivered.
func (r *rig) pull() (from []string, err error) {
	r.t.Helper()
	var all []byte
	for failures := 0; len(all) < len(r.content); {
		s, err := r.Open(r.ctx(), r.ref(), int64(len(all)))
		if err != nil {
			return from, err
		}
		from = append(from, map[bool]string{true: "bucket", false: "registry"}[s.Archived])
		part, err := io.ReadAll(s.Body)
		if err := s.Body.Close(); err != nil {
			r.t.Error(err)
		}
		all = append(all, part...)
		if failures++; err != nil && failures > 6 {
			return from, err
		}
	}
	if !bytes.Equal(all, r.content) {
		return from, errors.New("wrong bytes")
	}
	return from, nil
}

// wantPull pulls, and fails the test unless just these deliver within that time.
func (r *rig) wantPull(within time.Duration, want ...string) {
	r.t.Helper()
	began := time.Now()
	from, err := r.pull()
	if err != nil || strings.Join(from, " ") != strings.Join(want, " ") {
		r.t.Errorf("from %q, %v; want %q", from, err, want)
	}
	if took := time.Since(began); took > within {
		r.t.Errorf("it took %v, more than %v", took, within)
	}
}

// A file is content of the node's shard.
type file struct {
	*bytes.Reader
	rate int64
}

// Send implements oci.Body.
func (f file) Send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	all := make([]byte, n)
	if _, err := f.ReadAt(all, off); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return io.Copy(w, testkit.Manner{Rate: f.rate}.Body(ctx, all))
}

// Close implements oci.Body.
func (file) Close() error { return nil }

// kept is content as it is offered.
func (r *rig) kept(content []byte) oci.Kept {
	ref := r.ref()
	ref.Digest = digest.FromBytes(content)
	return oci.Kept{Ref: ref, MediaType: mediaType, Size: int64(len(content)), Private: r.private, Open: func() (oci.Body, error) {
		return file{Reader: bytes.NewReader(content)}, nil
	}}
}
