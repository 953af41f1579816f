package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// Why this node gives a peer up.
var (
	// ErrHangs: the peer shows no sign of life.
	ErrHangs = errors.New("the node hangs")
	// ErrCrawls: the peer has the bytes, but they hardly come.
	ErrCrawls = errors.New("the link to the node crawls")
	// ErrDrips: next to nothing comes. The registry may be at fault.
	ErrDrips = errors.New("next to nothing comes from the node")
	// ErrSlow: the peer feeds this node far slower than others are fed, as the root says.
	ErrSlow = errors.New("the node is slower than those that feed others")
	// ErrLies: the peer sent bytes that the digest does not name, or said what
	// cannot be true.
	ErrLies = errors.New("the node sent wrong bytes")
)

// How a peer is watched. A dead node is noticed by its connection; one that
// hangs, or whose link crawls, is not. Times are counted in looks of 500 ms.
const (
	// look is how often a request to a peer is looked at.
	look = 500 * time.Millisecond
	// stillFor is after how many looks without a byte the peer is asked whether it
	// is alive: 2 s. It may take 2 s to answer.
	stillFor = 4
	// crawlFor is over how many looks, at least, the speed is measured from the
	// first byte on: 0.75 s. Leaving a link that only paused costs the registry a
	// request; staying on one that crawls costs the pull. A link that picks up
	// speed, as each one does at first, gets another look.
	crawlFor = 1.5
	// turnFor is how many looks a peer that holds the blob may keep this node waiting
	// for its turn: 12 s. This node itself asks for 10 s at most.
	turnFor = 24
	// crawl is the speed in bytes a second below which a link crawls, if the peer
	// has more to send.
	crawl = 5 << 18
	// ahead is how many bytes more than have come the peer must have for that.
	ahead = 4 << 20
	// few is to how many nodes a peer may be sending for that: one that sends to
	// many is slow to each.
	few = 4
	// DripFor is how long a stream may bring next to nothing, or a request no answer,
	// whatever the peer says about the registry. After that a node that may ask the
	// registry does so itself, if its own way leads there: another's is the peer's, perhaps.
	DripFor = 30 * time.Second
	// DripRate is the speed in bytes a second below which next to nothing comes.
	DripRate = 64 << 10
	// lateBy is how late this node's own timers may be for it to judge others. A
	// peer's answer goes through half a dozen such waits.
	lateBy = 20 * time.Millisecond
	// maxDoubts is how often a verdict is put off because this node was late.
	maxDoubts = 3
	// maxCrawlDoubts is that for a link that seems to crawl while this node or the peer is
	// late: one that hardly ever gets a processor reads or sends little, at any link.
	maxCrawlDoubts = 20
	// maxHeldDoubts is how often it is put off that a peer hangs which has just said that it
	// has the blob, unless gossip says that it is dead: the next source is the registry.
	maxHeldDoubts = 2
	// doubtsWithin is after how long no verdict on a peer is put off any more whose answer has
	// not begun: there must be time for others.
	doubtsWithin = 12 * time.Second
	// lateAnswer is after how long a peer's answer shows that the peer is late. What else
	// it sends is then late too.
	lateAnswer = 150 * time.Millisecond
)

// A Watch looks at one request to a peer. It ends the request when the peer hangs
// or crawls, so that the next source can go on. A slow registry is neither: the
// peer says, when asked, that it is not ahead.
type Watch struct {
	mesh    *Mesh
	peer    Peer
	ref     oci.Ref
	stream  bool  // the answer is a blob, whose speed is judged
	offset  int64 // where that stream begins
	held    bool  // only held content is asked for
	end     context.CancelCauseFunc
	began   time.Time
	opened  atomic.Bool  // the answer has begun
	waiting atomic.Bool  // for the peer, and not for a disk or a reader of ours
	came    atomic.Int64 // bytes
	first   atomic.Int64 // how long after began the first byte came, in nanoseconds
	body    io.Reader
}

// WatchStream watches a request for a blob from offset on until ctx ends. end ends
// the request with a cause; held says that only held content is asked for.
func (m *Mesh) WatchStream(ctx context.Context, end context.CancelCauseFunc, p Peer, ref oci.Ref, offset int64, held bool) *Watch {
	w := &Watch{mesh: m, peer: p, ref: ref, stream: true, offset: offset, held: held, end: end, began: time.Now()}
	w.start(ctx)
	return w
}

// Tend makes a short request to a peer, and gives it up when the peer hangs.
func Tend[T any](ctx context.Context, m *Mesh, p Peer, ref oci.Ref, ask func(context.Context, Peer) (T, error)) (T, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := &Watch{mesh: m, peer: p, ref: ref, end: end, began: time.Now()}
	w.start(ctx)
	v, err := ask(ctx, p)
	return v, GaveUp(ctx, p, err)
}

// GaveUp returns err of a request to p. If a Watch ended the request, it is a
// *PeerError with the reason.
func GaveUp(ctx context.Context, p Peer, err error) error {
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, ErrHangs) || errors.Is(cause, ErrCrawls) || errors.Is(cause, ErrDrips)) {
		return &PeerError{Peer: p.Name(), Err: cause}
	}
	return err
}

// Lied reports a peer that said what cannot be true, and returns the error for it.
func Lied(p Peer, why error) error {
	err := fmt.Errorf("%w: %w", ErrLies, why)
	p.Fault(err)
	return &PeerError{Peer: p.Name(), Err: err}
}

// start begins to look.
func (w *Watch) start(ctx context.Context) {
	w.waiting.Store(true)
	go w.run(ctx)
}

// Begin says that the answer has begun. Read its body through the Watch.
func (w *Watch) Begin(body io.Reader) {
	w.body = body
	w.waiting.Store(false)
	w.opened.Store(true)
}

// Read implements io.Reader.
func (w *Watch) Read(p []byte) (int, error) {
	w.waiting.Store(true)
	n, err := w.body.Read(p)
	if w.came.Add(int64(n)) == int64(n) && n > 0 {
		w.first.Store(int64(time.Since(w.began)))
	}
	w.waiting.Store(false)
	return n, err
}

// run looks until the request ends.
func (w *Watch) run(ctx context.Context) {
	g, doubts := newGaze(0), 0
	for {
		due := time.Now().Add(w.mesh.cfg.Look)
		if wait.For(ctx, w.mesh.cfg.Look) != nil {
			return
		}
		came := w.came.Load()
		if !w.waiting.Load() {
			g = newGaze(came)
			g.start = time.Now()
			continue
		}
		late, asked := time.Since(due), time.Now()
		err := w.judge(ctx, &g, came)
		took := time.Since(asked)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			continue
		case errors.Is(err, ErrDrips):
		case !w.opened.Load() && time.Since(w.began) > doubtsWithin:
			w.peer.Fault(err)
		case errors.Is(err, ErrCrawls) && doubts < doubtsOf(err, &g) && took > lateAnswer:
			doubts++
			continue
		case errors.Is(err, ErrHangs) && w.held && doubts < maxHeldDoubts && w.mesh.Peer(w.peer.ID()) != nil:
			doubts++
			continue
		case doubts < doubtsOf(err, &g) && max(late, w.mesh.lateness(ctx)) > lateBy:
			doubts++
			continue
		default:
			w.peer.Fault(err) // first, so that whoever goes on does not come back to it
		}
		w.end(err)
		return
	}
}

// doubtsOf is how often the verdict err is put off. A stream without a byte does not crawl.
func doubtsOf(err error, g *gaze) int {
	if errors.Is(err, ErrCrawls) && !g.stood {
		return maxCrawlDoubts
	}
	return maxDoubts
}

// lateness returns how much later than asked for this node wakes a goroutine.
// While it is late itself, answers seem late whoever sends them, and asking
// elsewhere makes it worse.
func lateness(ctx context.Context) time.Duration {
	const nap = time.Millisecond
	began := time.Now()
	if wait.For(ctx, nap) != nil {
		return 0
	}
	return time.Since(began) - nap
}

// A gaze is what a Watch has seen so far.
type gaze struct {
	last       int64     // bytes at the last look
	step       int64     // bytes that came between that look and the one before
	still      int       // looks without a byte
	stood      bool      // the last verdict was on a stream without a byte
	start      time.Time // when measuring the speed began; zero: not yet
	sinceStart int64     // bytes then
	long       time.Time // when measuring drips began
	sinceLong  int64     // bytes then
}

// newGaze returns what is seen at first, after so many bytes.
func newGaze(came int64) gaze {
	return gaze{last: came, sinceStart: came, long: time.Now(), sinceLong: came}
}

// judge says what is wrong with the peer now that so many bytes have come. It
// returns nil if nothing seems to be.
func (w *Watch) judge(ctx context.Context, g *gaze, came int64) error {
	step := came - g.last
	picksUp := step > 2*g.step
	if g.still++; step > 0 {
		g.still = 0
	}
	g.last, g.step = came, step
	if w.drips(g, came) {
		return ErrDrips
	}
	switch {
	case g.still >= stillFor:
		err := w.ask(ctx, came, false)
		g.stood = true
		if g.still == stillFor && errors.Is(err, ErrCrawls) {
			return nil // what it has may be on its way: one more look
		}
		g.still, g.start, g.sinceStart = 0, time.Now(), came
		return err
	case w.crawls(g, came) && !picksUp:
		g.start, g.sinceStart, g.stood = time.Now(), came, false
		return w.ask(ctx, came, true)
	}
	return nil
}

// crawls reports whether the link has been slow for long enough to say so.
func (w *Watch) crawls(g *gaze, came int64) bool {
	if g.start.IsZero() && came > 0 {
		g.start = w.began.Add(time.Duration(w.first.Load())) // no clock that is set counts
	}
	took := time.Since(g.start)
	if g.start.IsZero() || took.Seconds() < crawlFor*w.mesh.cfg.Look.Seconds() {
		return false
	}
	slow := float64(came-g.sinceStart) < crawl*took.Seconds()
	if !slow {
		g.start, g.sinceStart = time.Now(), came
	}
	return slow
}

// drips reports whether next to nothing comes while this node could do without
// the peer.
func (w *Watch) drips(g *gaze, came int64) bool {
	took := time.Since(g.long)
	if took < w.mesh.cfg.Drip {
		return false
	}
	little := float64(came-g.sinceLong) < DripRate*took.Seconds()
	g.long, g.sinceLong = time.Now(), came
	return little && w.mesh.MayAsk(w.ref) && w.mesh.cfg.Reaches(w.ref.Registry)
}

// ask asks the peer how far it is. It returns ErrHangs if there is no answer, and
// ErrCrawls if the peer has bytes that do not come: any at all from a link that
// stands still; many, and few others to send to, from one that is merely slow.
func (w *Watch) ask(ctx context.Context, came int64, slow bool) error {
	p, err := w.peer.Progress(ctx, w.ref)
	if err != nil {
		return ErrHangs
	}
	if !w.opened.Load() {
		if p.Held && (w.held || !p.Unvouched) && time.Since(w.began) > turnFor*w.mesh.cfg.Look {
			return ErrHangs // its disk, perhaps
		}
		return nil // it waits for the registry, or lets this node wait for its turn
	}
	left := p.Offset - (w.offset + came)
	if w.stream && (!slow && left > 0 || left >= ahead && p.Streams <= few) {
		return ErrCrawls
	}
	return nil
}
