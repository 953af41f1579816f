package mesh

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Answers to the question how far a peer is.
func silent(ctx context.Context) (Progress, error) { // as a connection to a node that hangs
	select {
	case <-time.After(2 * time.Second):
		return Progress{}, errGone
	case <-ctx.Done():
		return Progress{}, ctx.Err()
	}
}

func says(p Progress) func(context.Context) (Progress, error) {
	return func(context.Context) (Progress, error) { return p, nil }
}

// never is a request that no answer comes to.
func never(ctx context.Context, _ Peer) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// wantBetween fails the test unless fn takes so long in the bubble's time.
func wantBetween(t *testing.T, least, most time.Duration, fn func()) {
	t.Helper()
	start := time.Now()
	fn()
	if took := time.Since(start); took < least || took > most {
		t.Errorf("it took %v, want %v to %v", took, least, most)
	}
}

func TestARequestWithoutAnAnswerIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		progress    func(context.Context) (Progress, error)
		mayAsk      bool
		why         error
		faulty      bool
		least, most time.Duration
	}{
		"the peer hangs":                         {silent, true, ErrHangs, true, 4 * time.Second, 5 * time.Second},
		"it holds the blob and does not begin":   {says(Progress{Held: true}), true, ErrHangs, true, 12 * time.Second, 15 * time.Second},
		"the registry is slow":                   {says(Progress{}), true, ErrDrips, false, 30 * time.Second, 32 * time.Second},
		"the registry is slow, no other way":     {says(Progress{}), false, context.DeadlineExceeded, false, 38 * time.Second, 39 * time.Second},
		"it has to be vouched for first":         {says(Progress{Held: true, Unvouched: true}), true, ErrDrips, false, 30 * time.Second, 32 * time.Second},
		"it hangs, and there is no other way":    {silent, false, ErrHangs, true, 4 * time.Second, 5 * time.Second},
		"it is alive, holds it, no other way in": {says(Progress{Held: true}), false, ErrHangs, true, 12 * time.Second, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &member{id: "a", progress: test.progress}
				route := []Peer{p}
				if test.mayAsk {
					route = append(route, nil)
				}
				m, _ := newMesh(route...)
				ctx, cancel := context.WithTimeout(t.Context(), 38*time.Second)
				defer cancel()
				wantBetween(t, test.least, test.most, func() {
					if _, err := Tend(ctx, m, p, ref, never); !errors.Is(err, test.why) {
						t.Errorf("%v, want %v", err, test.why)
					}
				})
				if test.faulty {
					p.wantFault(t, test.why)
				} else {
					p.wantFault(t, nil)
				}
			})
		})
	}
}

// Where this node's own way out does not lead to the registry, a slow one is no reason to leave
// the peer: this node would ask by the same way.
func TestASlowRegistryIsAwaitedWhereThereIsNoOwnWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &member{id: "a", progress: says(Progress{})}
		m, _ := newMesh(p, nil)
		m.cfg.Reaches = func(registry string) bool { return registry != ref.Registry }
		ctx, cancel := context.WithTimeout(t.Context(), 38*time.Second)
		defer cancel()
		if _, err := Tend(ctx, m, p, ref, never); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		p.wantFault(t, nil)
	})
}

// A verdict is put off while this node is late itself, but not for ever.
func TestANodeThatIsLateItselfDoubtsItsVerdicts(t *testing.T) {
	t.Parallel()
	for late, times := range map[time.Duration]int{0: 1, lateBy: 1, lateBy + 1: maxDoubts + 1} {
		synctest.Test(t, func(t *testing.T) {
			p := &member{id: "a", progress: silent}
			m, _ := newMesh(p, nil)
			m.lateness = func(context.Context) time.Duration { return late }
			each := stillFor*look + 2*time.Second // at most: of silence, and of the question
			wantBetween(t, time.Duration(times)*3*time.Second, time.Duration(times)*each, func() {
				if _, err := Tend(t.Context(), m, p, ref, never); !errors.Is(err, ErrHangs) {
					t.Error(err)
				}
			})
			p.wantFault(t, ErrHangs)
			if p.asked != times {
				t.Errorf("%d ms late: asked %d times, want %d", late.Milliseconds(), p.asked, times)
			}
		})
	}
}

// lateness measures only this node: in a bubble nothing is ever late.
func TestLatenessOfANodeThatIsNotLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if late := lateness(t.Context()); late != 0 {
			t.Error(late)
		}
	})
}

func TestAStreamIsJudgedByItsSpeed(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	far := Progress{Held: true, Offset: 1 << 30, Streams: 1}
	for name, test := range map[string]struct {
		bytes       int // each
		every       time.Duration
		progress    func(context.Context) (Progress, error)
		why         error // nil: it is not left
		faulty      bool
		least, most time.Duration
	}{
		"fast":                              {mib, 100 * time.Millisecond, silent, nil, false, time.Minute, time.Minute},
		"it crawls":                         {8 << 10, 10 * time.Millisecond, says(far), ErrCrawls, true, 700 * time.Millisecond, 2 * time.Second},
		"it is slow to many":                {128 << 10, time.Second, says(Progress{Held: true, Offset: 1 << 30, Streams: few + 1}), nil, false, time.Minute, time.Minute},
		"it has no more itself":             {128 << 10, time.Second, says(Progress{Offset: 1000}), nil, false, time.Minute, time.Minute},
		"it drips":                          {1, time.Second, says(Progress{Offset: 1000}), ErrDrips, false, DripFor, DripFor + time.Second},
		"it stands still and has more":      {0, time.Hour, says(far), ErrCrawls, true, 2 * time.Second, 4 * time.Second},
		"it stands still, as the registry":  {0, time.Hour, says(Progress{}), ErrDrips, false, DripFor, DripFor + time.Second},
		"it stands still and does not live": {0, time.Hour, silent, ErrHangs, true, 4 * time.Second, 5 * time.Second},
		"it pauses":                         {2 * mib, 700 * time.Millisecond, says(far), nil, false, time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &member{id: "a", progress: test.progress}
				m, _ := newMesh(p, nil)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				ctx, end := context.WithCancelCause(ctx)
				defer end(nil)
				w := m.WatchStream(ctx, end, p, ref, 0, false)
				w.Begin(endless{ctx, test.bytes, test.every})
				wantBetween(t, test.least, test.most, func() {
					_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, w, make([]byte, 8*mib))
					if err = GaveUp(ctx, p, err); test.why == nil && !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, test.why) && test.why != nil {
						t.Errorf("%v, want %v", err, test.why)
					}
				})
				if test.faulty {
					p.wantFault(t, test.why)
				} else {
					p.wantFault(t, nil)
				}
			})
		})
	}
}

// What this node does between two reads, such as waiting for its disk, is no fault of
// the peer.
// A clock that is set while bytes come makes no link seem slow, and none seem fast: time is
// measured from the first byte on by the clock that is never set.
func TestTheSpeedIsMeasuredByAClockThatIsNotSet(t *testing.T) {
	t.Parallel()
	m, _ := newMesh(nil)
	w := &Watch{mesh: m, began: time.Now(), body: strings.NewReader("bytes")}
	if _, err := w.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	g := newGaze(0)
	w.crawls(&g, w.came.Load())
	if monotonic := g.start != g.start.Round(0); !monotonic { // Round strips that reading
		t.Error("the start has no reading of the clock that is never set")
	}
}

func TestOurOwnPausesAreNotJudged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &member{id: "a", progress: silent}
		m, _ := newMesh(p, nil)
		ctx, end := context.WithCancelCause(t.Context())
		defer end(nil)
		w := m.WatchStream(ctx, end, p, ref, 0, false)
		w.Begin(endless{ctx, 1 << 20, time.Millisecond})
		buf := make([]byte, 1<<20)
		for range 3 {
			if _, err := w.Read(buf); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Minute)
		}
		p.wantFault(t, nil)
	})
}

func TestLied(t *testing.T) {
	t.Parallel()
	p := &member{id: "a"}
	if err := Lied(p, errGone); !errors.Is(err, ErrLies) || !errors.Is(err, errGone) {
		t.Error(err)
	}
	p.wantFault(t, ErrLies)
}

// A node that has just said that it has the blob, and then seems to hang, is waited for
// longer, as the next source is the registry; but not if gossip says that it is dead. A
// link that seems to crawl is given up late while the peer answers late.
func TestOneThatHasTheBlobIsNotLeftForBeingLate(t *testing.T) {
	t.Parallel()
	tardy := func(ctx context.Context) (Progress, error) {
		<-time.After(2 * lateAnswer)
		return Progress{Held: true, Offset: 1 << 30, Streams: 1}, ctx.Err()
	}
	for name, test := range map[string]struct {
		known       bool
		held        bool
		bytes       int // each 10 ms
		progress    func(context.Context) (Progress, error)
		why         error
		least, most time.Duration
	}{
		"it hangs":                    {true, true, 0, silent, ErrHangs, 8 * time.Second, 12 * time.Second},
		"it is dead":                  {false, true, 0, silent, ErrHangs, 4 * time.Second, 5 * time.Second},
		"the link crawls":             {true, true, 8 << 10, says(Progress{Held: true, Offset: 1 << 30, Streams: 1}), ErrCrawls, 700 * time.Millisecond, 2 * time.Second},
		"it crawls, and answers late": {true, false, 8 << 10, tardy, ErrCrawls, 15 * time.Second, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &member{id: "a", progress: test.progress}
				all := known{}
				if test.known {
					all.peer = p
				}
				m, _ := newMesh(p, nil)
				m.cfg.Router = all
				ctx, end := context.WithCancelCause(t.Context())
				defer end(nil)
				w := m.WatchStream(ctx, end, p, ref, 0, test.held)
				every := 10 * time.Millisecond
				if test.bytes == 0 {
					every = time.Hour
				}
				w.Begin(endless{ctx, test.bytes, every})
				wantBetween(t, test.least, test.most, func() {
					_, err := io.Copy(struct{ io.Writer }{io.Discard}, w)
					if err = GaveUp(ctx, p, err); !errors.Is(err, test.why) {
						t.Errorf("%v, want %v", err, test.why)
					}
				})
			})
		})
	}
}

// known knows one peer.
type known struct {
	alone
	peer Peer
}

func (k known) Peer(string) Peer { return k.peer }
