package lanes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const reg = "reg.example.com"

// A link is a Source whose connections are made of time alone. Its zero value serves
// ranges of content at once.
type link struct {
	oci.Upstream // nil: no test asks for anything else
	content      []byte
	delay        time.Duration                // before the header of an answer
	rate         func(request int) float64    // bytes a second of the n-th request, from 1; 0: no bound
	refuse       func(request int) error      // what the n-th request ends with instead
	change       func(request int, a *answer) // changes an answer before it is given
	stallAt      func(request int) int64      // after so many bytes the n-th request brings nothing more; 0: never
	cutAt        func(request int) int64      // after so many bytes the n-th request breaks off; 0: never
	pause        time.Time                    // when nothing comes any more, over any connection
	pauseFor     time.Duration
	turns        atomic.Int64 // that are free beside the first lanes'
	plainly      atomic.Int64 // calls of Open
	requests     atomic.Int64
	open, most   atomic.Int64 // answers that are not closed
	sent         atomic.Int64
	left         atomic.Int64 // answers that were closed before their end
}

// An answer is what UpTo returns.
type answer struct {
	stream oci.Stream
	length int64
}

func newLink(size int64) *link {
	l := &link{content: upstreamtest.RandomBytes(1, size)}
	l.turns.Store(1000)
	return l
}

var errCut = errors.New("connection reset")

func (l *link) Open(ctx context.Context, _ oci.Ref, offset int64) (*oci.Stream, error) {
	l.plainly.Add(1)
	a, err := l.ask(ctx, oci.Span{Offset: offset, Length: int64(len(l.content)) - offset})
	if err != nil {
		return nil, err
	}
	return &a.stream, nil
}

// Range is asked of a link that is another way. Members get a part before they pass it on.
func (l *link) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	if span.Length > wayLeg || span.End() > int64(len(l.content)) {
		return nil, errors.New("no member passes that on")
	}
	s, _, err := l.UpTo(ctx, ref, span)
	if err != nil {
		return nil, err
	}
	defer s.Body.Close()
	part, err := io.ReadAll(s.Body)
	if err != nil {
		return nil, err
	}
	s.Body = io.NopCloser(bytes.NewReader(part))
	return s, nil
}

func (l *link) UpTo(ctx context.Context, _ oci.Ref, span oci.Span) (*oci.Stream, int64, error) {
	span.Length = min(span.Length, int64(len(l.content))-span.Offset)
	a, err := l.ask(ctx, span)
	if err != nil {
		return nil, 0, err
	}
	return &a.stream, a.length, nil
}

func (l *link) ask(ctx context.Context, span oci.Span) (*answer, error) {
	n := int(l.requests.Add(1))
	if l.refuse != nil {
		if err := l.refuse(n); err != nil {
			return nil, err
		}
	}
	if err := pass(ctx, l.delay); err != nil {
		return nil, err
	}
	now := l.open.Add(1)
	for most := l.most.Load(); now > most && !l.most.CompareAndSwap(most, now); most = l.most.Load() {
	}
	body := &wireBody{link: l, ctx: ctx, rest: l.content[span.Offset:span.End()]}
	if l.rate != nil {
		body.rate = l.rate(n)
	}
	if l.stallAt != nil {
		body.stallAt = l.stallAt(n)
	}
	if l.cutAt != nil {
		body.cutAt = l.cutAt(n)
	}
	a := &answer{oci.Stream{Body: body, Offset: span.Offset, Size: int64(len(l.content)), Host: reg, By: oci.Registry}, span.Length}
	if l.change != nil {
		l.change(n, a)
	}
	return a, nil
}

func (l *link) Turn(ctx context.Context) (context.Context, func()) { return ctx, func() {} }

func (l *link) FreeTurn(ctx context.Context, _ oci.Ref) (context.Context, func(), bool) {
	if l.turns.Add(-1) < 0 {
		l.turns.Add(1)
		return nil, nil, false
	}
	return ctx, func() { l.turns.Add(1) }, true
}

// pass waits for d, or until ctx ends.
func pass(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A wireBody is an answer's body.
type wireBody struct {
	link    *link
	ctx     context.Context
	rest    []byte
	rate    float64
	stallAt int64
	cutAt   int64
	sent    int64
	closed  sync.Once
}

func (b *wireBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	if b.stallAt > 0 && b.sent >= b.stallAt {
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	}
	if b.cutAt > 0 && b.sent >= b.cutAt {
		return 0, errCut
	}
	n := min(len(p), len(b.rest), 32<<10)
	if b.rate > 0 {
		if err := pass(b.ctx, time.Duration(float64(n)/b.rate*float64(time.Second))); err != nil {
			return 0, err
		}
	}
	if into := time.Since(b.link.pause); into >= 0 && into < b.link.pauseFor {
		if err := pass(b.ctx, b.link.pauseFor-into); err != nil {
			return 0, err
		}
	}
	copy(p, b.rest[:n])
	b.rest = b.rest[n:]
	b.sent += int64(n)
	b.link.sent.Add(int64(n))
	return n, nil
}

func (b *wireBody) Close() error {
	b.closed.Do(func() {
		b.link.open.Add(-1)
		if len(b.rest) > 0 {
			b.link.left.Add(1)
		}
	})
	return nil
}

// over returns lanes of so many connections over a link.
func over(t *testing.T, l *link, connections int) *Lanes {
	t.Helper()
	return New(l, func(string) int { return connections }, slog.New(slog.DiscardHandler))
}

// ref names the link's blob.
func (l *link) ref() oci.Ref {
	return oci.Ref{Registry: reg, Repository: "team/app", Digest: digest.FromString("the blob")}
}

// all reads the link's blob from offset on, and checks that it is right.
func all(t *testing.T, lanes *Lanes, l *link, offset int64) {
	t.Helper()
	s, err := lanes.Open(t.Context(), l.ref(), offset)
	if err != nil {
		t.Fatal(err)
	}
	if s.Offset != offset || s.Size != int64(len(l.content)) || s.Host != reg || s.By != oci.Registry {
		t.Errorf("the stream is %+v", s)
	}
	got, err := io.ReadAll(s.Body)
	if err != nil || !bytes.Equal(got, l.content[offset:]) {
		t.Errorf("read %d bytes of %d: %v", len(got), int64(len(l.content))-offset, err)
	}
	if err := s.Body.Close(); err != nil {
		t.Error(err)
	}
	if n := l.open.Load(); n != 0 {
		t.Errorf("%d answers are not closed", n)
	}
	if held, _ := lanes.memory.Used(); held != 0 {
		t.Errorf("%d bytes of memory are not given back", held)
	}
}

// every returns what is v for each request.
func every[T any](v T) func(int) T { return func(int) T { return v } }

// nth returns v for the requests named, else nothing.
func nth[T any](v T, requests ...int) func(int) T {
	return func(n int) (none T) {
		if slices.Contains(requests, n) {
			return v
		}
		return none
	}
}
