package excerpt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/count"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/wait"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const mib = 1 << 20

// A source is a registry that serves ranges of one blob.
type source struct {
	content []byte
	fails   func(oci.Span) error // what a request ends with; nil: none fails
	late    time.Duration
	asked   atomic.Int64
	sent    atomic.Int64
}

func (s *source) Range(ctx context.Context, _ oci.Ref, span oci.Span) (*oci.Stream, error) {
	s.asked.Add(1)
	if err := wait.For(ctx, s.late); err != nil {
		return nil, err
	}
	if s.fails != nil {
		if err := s.fails(span); err != nil {
			return nil, err
		}
	}
	s.sent.Add(span.Length)
	return &oci.Stream{Body: io.NopCloser(bytes.NewReader(s.content[span.Offset:span.End()])), Offset: span.Offset, Size: int64(len(s.content)), By: oci.Registry}, nil
}

var errUnused = errors.New("not part of these tests")

func (s *source) Open(context.Context, oci.Ref, int64) (*oci.Stream, error) { return nil, errUnused }

func (s *source) Stat(context.Context, oci.Ref, bool, []string) (oci.Descriptor, error) {
	return oci.Descriptor{}, errUnused
}

func (s *source) Manifest(context.Context, oci.Ref, []string) (oci.Manifest, error) {
	return oci.Manifest{}, errUnused
}

func (s *source) Tags(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error) {
	return nil, errUnused
}

func (s *source) Referrers(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error) {
	return nil, errUnused
}

// newExcerpts returns Excerpts in front of a blob of that size. Call end.
func newExcerpts(size int) (x *Excerpts, s *source, q grants.Request, end func()) {
	s = &source{content: bytes.Repeat([]byte("0123456789abcdef"), size/16)}
	life, log := wait.NewLife(), slog.New(slog.DiscardHandler)
	m := mesh.New(mesh.Config{Log: log})
	g := grants.New(grants.Config{Upstream: s, Mesh: m, Site: func(string) grants.Site { return grants.Site{} }, Life: life, Within: time.Minute, Log: log})
	x = New(Config{Upstream: s, Mesh: m, Grants: g, Life: life, Within: time.Minute, Counters: &count.Book{}, Log: log})
	q.Ref = oci.Ref{Registry: "reg.example.com", Repository: "team/app", Digest: digest.FromBytes(s.content)}
	return x, s, q, func() {
		life.Close(context.Background())
		g.Close()
	}
}

// span is a short form.
func span(off, n int64) []oci.Span { return []oci.Span{{Offset: off, Length: n}} }

// pass lets a time pass, and a second more.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	if err := wait.For(t.Context(), d+time.Second); err != nil {
		t.Fatal(err)
	}
}

// open opens spans of the blob and sends them all.
func open(t *testing.T, x *Excerpts, s *source, q grants.Request, spans []oci.Span) error {
	t.Helper()
	e, err := x.Open(t.Context(), q, int64(len(s.content)), spans, false)
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }() // it never fails
	for _, at := range spans {
		var got bytes.Buffer
		if n, err := e.Send(t.Context(), &got, at.Offset, at.Length); err != nil || n != at.Length {
			return errors.Join(err, e.Close())
		}
		if !bytes.Equal(got.Bytes(), s.content[at.Offset:at.End()]) {
			t.Errorf("wrong bytes at %+v", at)
		}
	}
	return nil
}

// Half of a blob is got by ranges, whatever their size and number; after that, and for
// small blobs and what is no span, the whole is.
func TestHalfOfABlobIsGotByRanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, s, q, end := newExcerpts(8 * mib)
		defer end()
		for i := range int64(4) {
			if err := open(t, x, s, q, span(i*mib+7, mib)); err != nil {
				t.Fatalf("range %d: %v", i, err)
			}
		}
		for name, spans := range map[string][]oci.Span{
			"one byte more": span(8*mib-1, 1), "none": nil, "an empty one": span(0, 0), "one past the end": span(8*mib-1, 2),
			"a negative one": span(-1, 5), "one without end": span(5, 1<<62), "more than there is": {{Length: 5 * mib}, {Length: 5 * mib}},
		} {
			if err := open(t, x, s, q, spans); !errors.Is(err, ErrWhole) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := s.sent.Load(); n != 4*mib {
			t.Errorf("the registry sent %d bytes", n)
		}
		if err := open(t, x, s, q, span(7, mib)); err != nil {
			t.Errorf("what is on the shelf: %v", err)
		}
		pass(t, billFor)
		if err := open(t, x, s, q, span(8*mib-1, 1)); err != nil {
			t.Errorf("after a while: %v", err)
		}
		small, s2, q2, end2 := newExcerpts(mib)
		defer end2()
		if err := open(t, small, s2, q2, span(5, 5)); !errors.Is(err, ErrWhole) {
			t.Errorf("of a small blob: %v", err)
		}
	})
}

// Several ranges are asked for side by side, all who want the same at the time share one
// request, and only one of them pays.
func TestRangesAreSharedAndAskedForSideBySide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, s, q, end := newExcerpts(16 * mib)
		defer end()
		s.late = time.Second
		var spans []oci.Span
		for i := range int64(16) {
			spans = append(spans, oci.Span{Offset: i * mib, Length: 1000})
		}
		began := time.Now()
		done := make(chan error, 20)
		for range 20 {
			go func() { done <- open(t, x, s, q, spans) }()
		}
		for range 20 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 8*time.Second || s.asked.Load() != 16 {
			t.Errorf("%d requests, %v", s.asked.Load(), took)
		}
		x.bills.mu.Lock()
		spent := x.bills.at(q.Content()).spent
		x.bills.mu.Unlock()
		if spent != 16*1000 {
			t.Errorf("%d bytes are on the bill", spent)
		}
		if err := open(t, x, s, q, spans); err != nil || s.asked.Load() != 16 {
			t.Errorf("again: %d requests, %v", s.asked.Load(), err)
		}
		pass(t, shelfFor)
		if err := open(t, x, s, q, spans[:1]); err != nil || s.asked.Load() != 17 {
			t.Errorf("after a while: %d requests, %v", s.asked.Load(), err)
		}
	})
}

// A piece that comes while a reader looks for it is not asked for again.
func TestAPieceIsAskedForOnce(t *testing.T) {
	t.Parallel()
	const pieces = 2000
	x, s, q, end := newExcerpts(pieces * 16)
	defer end()
	var readers sync.WaitGroup
	for i := range pieces {
		at := span(int64(i)*16, 16)[0]
		for range 3 {
			readers.Go(func() {
				x.begin(q, at, int64(len(s.content)), false)
				if _, err := x.get(t.Context(), q, at, int64(len(s.content)), false); err != nil {
					t.Error(err)
				}
			})
		}
		readers.Wait()
	}
	if n := s.asked.Load(); n != pieces {
		t.Errorf("%d pieces were asked for %d times", pieces, n)
	}
}

// What can't be got breaks off so that another copy goes on, and is not taken for the
// registry's silence about ranges.
func TestARangeThatFailsLeavesTheRestToTheWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, s, q, end := newExcerpts(8 * mib)
		defer end()
		s.fails = func(at oci.Span) error {
			if at.Offset >= 2*mib {
				return &oci.Error{Kind: oci.Unavailable, Registry: q.Registry, Reason: "as the test wants it"}
			}
			return nil
		}
		if err := open(t, x, s, q, span(0, 3*mib)); !errors.Is(err, ErrBroke) {
			t.Errorf("in the middle: %v", err)
		}
		if err := open(t, x, s, q, span(6*mib, 1)); oci.KindOf(err) != oci.Unavailable || errors.Is(err, ErrBroke) {
			t.Errorf("at the beginning: %v", err)
		}
		s.fails = func(oci.Span) error {
			return &oci.Error{Kind: oci.Invalid, Registry: q.Registry, By: oci.Middlebox, Status: 200, Reason: "a page came"}
		}
		if err := open(t, x, s, q, span(6*mib, 1)); oci.KindOf(err) != oci.Invalid {
			t.Errorf("a page: %v", err)
		}
		s.fails = func(oci.Span) error {
			return &oci.Error{Kind: oci.Invalid, Registry: q.Registry, Status: 200, Reason: "the whole came"}
		}
		if err := open(t, x, s, q, span(7*mib, 1)); oci.KindOf(err) != oci.Invalid {
			t.Errorf("no ranges: %v", err)
		}
		s.fails = nil
		asked := s.asked.Load()
		if err := open(t, x, s, q, span(7*mib, 1)); !errors.Is(err, ErrWhole) || s.asked.Load() != asked {
			t.Errorf("a registry without ranges is asked for one: %v", err)
		}
		if n := x.held.free; n != maxHeld {
			t.Errorf("%d bytes of the budget are lost", maxHeld-n)
		}
	})
}

// Readers who do not read hold no more than the budget, and the shelf no more than its
// size, however many ranges there are.
func TestMemoryOfRangesIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, s, q, end := newExcerpts(160 * mib)
		defer end()
		var idle []*Excerpt
		for i := range int64(60) {
			e, err := x.Open(t.Context(), q, int64(len(s.content)), span(i*mib, mib), false)
			if err != nil {
				if !errors.Is(err, ErrWhole) {
					t.Fatal(err)
				}
				break
			}
			idle = append(idle, e)
		}
		if len(idle) != maxHeld/mib {
			t.Errorf("%d readers hold a piece each", len(idle))
		}
		for _, e := range idle {
			if err := errors.Join(e.Close(), e.Close()); err != nil {
				t.Fatal(err)
			}
		}
		for i := range int64(40) {
			if err := open(t, x, s, q, span((100+i)*mib, mib)); err != nil {
				t.Fatal(err)
			}
		}
		if x.shelf.bytes > shelfSize || x.shelf.bytes < shelfSize-mib || x.held.free != maxHeld {
			t.Errorf("the shelf holds %d bytes, the budget lacks %d", x.shelf.bytes, maxHeld-x.held.free)
		}
		for i := range 2 * maxShelved {
			x.shelf.put(key{Span: oci.Span{Offset: int64(i)}}, &piece{bytes: []byte("x")})
		}
		if n := x.shelf.kept.Len(); n != maxShelved || x.shelf.bytes < 0 || x.shelf.bytes > shelfSize {
			t.Errorf("%d pieces of %d bytes", n, x.shelf.bytes)
		}
		for i := range 2 * maxBills {
			x.Learn(oci.Content{Registry: q.Registry, Digest: digest.FromString(time.Duration(i).String())}, 5)
		}
		x.bills.mu.Lock()
		defer x.bills.mu.Unlock()
		if n := x.bills.of.Len(); n != maxBills {
			t.Errorf("%d bills", n)
		}
	})
}
