package lanes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// maxFailures is how many requests in a row may bring nothing of what the first lane
	// asks for before the download fails.
	maxFailures = 3
	// failPause is how long the first lane waits after a failure, times how many there
	// were in a row.
	failPause = 250 * time.Millisecond
	// turnPause is how long a lane waits for when there is no free turn.
	turnPause = 500 * time.Millisecond
	// minPause and maxPause are how long another lane than the first waits after a
	// failure. The pause doubles until a leg comes.
	minPause, maxPause = time.Second, 30 * time.Second
)

// Why a lane does not bring its leg.
var (
	errNoTurn = errors.New("no turn is free")
	// errOther: the registry sends something else than before. Another request may not
	// help, but the caller may begin anew.
	errOther = errors.New("the registry answers otherwise than before")
)

// A lane brings one leg after the other.
type lane struct {
	*download
	first bool          // it alone decides that the download fails, and keeps a turn until its end
	pause time.Duration // after the last failure; 0: a leg came since
	way   oci.Upstream  // by which it asks; nil: by the source. Set at the beginning, or by the lane with mu

	// Of the first lane alone.
	turned  context.Context // with its turn, for its requests
	endTurn func()
	asking  context.Context // of its first request
	stop    func()          // ends that
}

// newLane returns the first lane of a download. It is to send a request with asking.
func newLane(ctx context.Context, source Source) *lane {
	l := &lane{first: true}
	l.turned, l.endTurn = source.Turn(ctx)
	l.asking, l.stop = context.WithCancel(l.turned)
	return l
}

// end gives up the first request and the turn.
func (l *lane) end() {
	l.stop()
	l.endTurn()
}

// goOn brings legs as run does. The first one's request was answered with body.
func (l *lane) goOn(ctx context.Context, g *leg, body io.ReadCloser) {
	defer l.end()
	err := l.read(g, body)
	_ = body.Close() // only read
	if wait.For(ctx, l.done(g, err)) == nil {
		l.run(ctx)
	}
}

// run brings legs until there are none.
func (l *lane) run(ctx context.Context) {
	for {
		g := l.take(ctx, l)
		if g == nil || wait.For(ctx, l.done(g, l.bring(ctx, g))) != nil {
			return
		}
	}
}

// bring asks for a leg and reads it.
func (l *lane) bring(ctx context.Context, g *leg) error {
	ctx, end, ok := l.turn(ctx)
	if !ok {
		return errNoTurn
	}
	defer end()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	span, ok := l.begin(l, g, stop)
	if !ok {
		return nil
	}
	s, length, err := l.ask(ctx, span)
	if err != nil {
		return err
	}
	if s.Body == nil {
		return l.other(s, "a redirect for the client")
	}
	defer func() { _ = s.Body.Close() }() // only read
	switch {
	case length < 0:
		if s.By != oci.Middlebox {
			l.all.note(l.ref.Registry, ignored, nil)
		}
		return l.other(s, "the whole blob")
	case s.Size >= 0 && s.Size != l.stream.Size:
		return l.other(s, fmt.Sprintf("a range of %d bytes in all, and not of %d", s.Size, l.stream.Size))
	case s.Coding != "":
		return l.other(s, s.Coding)
	}
	return l.read(g, s.Body)
}

// ask asks for a range, by the lane's way.
func (l *lane) ask(ctx context.Context, span oci.Span) (s *oci.Stream, length int64, err error) {
	if l.way == nil {
		return l.all.source.UpTo(ctx, l.ref, span)
	}
	s, err = l.way.Range(ctx, l.ref, span)
	return s, span.Length, err
}

// turn returns the context for a request that has its turn at the registry. Whoever passes
// a request on sees to its own turns.
func (l *lane) turn(ctx context.Context) (_ context.Context, end func(), ok bool) {
	switch {
	case l.first:
		return l.turned, func() {}, true
	case l.way != nil:
		return ctx, func() {}, true
	default:
		return l.all.source.FreeTurn(ctx, l.ref)
	}
}

// other is the error of an answer that does not fit the first one.
func (l *lane) other(s *oci.Stream, what string) error {
	return &oci.Error{Kind: oci.Unavailable, Registry: l.ref.Registry, Host: s.Host, By: s.By, Reason: "where a range of the blob was asked for came " + what, Err: errOther}
}

// read reads body into a leg until that has all, or is another lane's, or body ends.
func (l *lane) read(g *leg, body io.Reader) error {
	for {
		b := l.space(l, g)
		if b == nil {
			return nil
		}
		n, err := body.Read(b)
		l.came(l, g, n)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// done ends the lane's work at a leg, and returns how long the lane is to wait. A way that
// failed, or was too slow, is not taken again.
func (l *lane) done(g *leg, err error) time.Duration {
	failures, lost := l.leave(l, g)
	switch {
	case err != nil && l.way != nil:
		l.abandon(l)
		return 0
	case lost || err == nil && failures == 0:
		l.pause = 0
		return 0
	case err == nil:
		err = io.ErrUnexpectedEOF
	case errors.Is(err, errNoTurn):
		return turnPause
	}
	if !l.first {
		l.pause = min(max(2*l.pause, minPause), maxPause)
		return l.pause
	}
	if failures >= maxFailures || final(err) {
		l.fail(err)
	}
	return time.Duration(max(failures, 1)) * failPause
}

// final reports whether the same request is not to be sent again.
func final(err error) bool {
	e, ok := oci.AsError(err)
	return ok && (!e.Passing() || errors.Is(err, errOther))
}
