package transfer

import (
	"context"
	"errors"
	"io"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// What a peer is watched for. A node that has died is noticed by the
// connection; one that hangs, or whose link crawls, is not.
const (
	// look is how often a request to a peer is looked at.
	look = 500 * time.Millisecond
	// stillFor is after how many looks without a byte the peer is asked
	// whether it lives: 2 s. The asking takes 2 s at most.
	stillFor = 4
	// crawlFor is over how many looks, at least, the speed is measured, from the
	// first byte on: 0.75 s. To leave a link that just paused costs a request to
	// the registry, to stay on one that crawls costs the pull. A link that picks up
	// speed, as each does at first, is given another look.
	crawlFor = 1.5
	// turnFor is how long a peer that has the blob may let this node wait for its
	// turn, in looks: 12 s. This node asks for 10 s at most.
	turnFor = 24
	// crawl is the speed in bytes per second below which a link crawls, if the
	// peer has more to send.
	crawl = 5 << 18
	// ahead is how much more than was received the peer must have for that.
	ahead = 4 << 20
	// few is to how many a peer may be sending for that: who sends to many is
	// slow to each.
	few = 4
	// hop is how long a goroutine of a node waits for a processor that has time
	// to judge others. An answer takes half a dozen of such waits.
	hop = 20 * time.Millisecond
	// dripFor is within which time a stream has to bring something, or a request
	// an answer, whatever the peer says of the registry. A node that may ask the
	// registry then does so itself.
	dripFor = 30 * time.Second
	// drip is the speed in bytes per second below which nothing is brought.
	drip = 64 << 10
	// maxDoubts is how often it is not judged for that reason.
	maxDoubts = 3
)

// A watch looks at one request to a peer, and ends it when the peer hangs or
// crawls, so that the next source can go on. A slow registry is none of that:
// the peer answers, when asked, that it is not ahead.
type watch struct {
	fetcher *Fetcher
	peer    mesh.Peer
	ref     oci.Ref
	offset  int64                   // where the stream begins
	held    bool                    // only what the peer has is asked for
	end     context.CancelCauseFunc // ends the request
	opened  atomic.Bool             // the answer has begun
	waiting atomic.Bool             // for the peer, and not for a disk or a reader of ours
	came    atomic.Int64            // bytes
	first   atomic.Int64            // when the first came, in unix nanoseconds
	began   time.Time
	body    io.Reader
}

// watch begins to look at a request until its context ends.
func (f *Fetcher) watch(ctx context.Context, end context.CancelCauseFunc, p mesh.Peer, ref oci.Ref, offset int64, held bool) *watch {
	w := &watch{fetcher: f, peer: p, ref: ref, offset: offset, held: held, end: end, began: time.Now()}
	w.waiting.Store(true)
	go w.run(ctx)
	return w
}

// begin says that the answer has begun, whose body is read through the watch.
func (w *watch) begin(body io.Reader) {
	w.body = body
	w.waiting.Store(false)
	w.opened.Store(true)
}

// Read implements io.Reader.
func (w *watch) Read(p []byte) (int, error) {
	w.waiting.Store(true)
	n, err := w.body.Read(p)
	if w.came.Add(int64(n)) == int64(n) && n > 0 {
		w.first.Store(time.Now().UnixNano())
	}
	w.waiting.Store(false)
	return n, err
}

// A gaze is what a watch has seen so far.
type gaze struct {
	last      int64     // bytes at the last look
	step      int64     // bytes that came before it since the look before
	still     int       // looks without a byte
	start     time.Time // when the speed's measuring began; zero: not yet
	since     int64     // bytes then
	long      time.Time // when that of drips began,
	longSince int64     // bytes then
}

// run looks.
func (w *watch) run(ctx context.Context) {
	tick := time.NewTicker(w.fetcher.cfg.Look)
	defer tick.Stop()
	g, doubts := gaze{long: time.Now()}, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		came := w.came.Load()
		if !w.waiting.Load() {
			g = gaze{last: came, start: time.Now(), since: came, long: time.Now(), longSince: came}
			continue
		}
		err := w.judge(ctx, &g, came)
		tick.Reset(w.fetcher.cfg.Look) // what comes while the peer is asked counts at a look of its own
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			continue
		case errors.Is(err, mesh.ErrDrips):
		case doubts < maxDoubts && starved():
			doubts++
			continue
		default:
			w.peer.Fault(err) // first, so that whoever goes on does not come back to it
		}
		w.end(err)
		return
	}
}

// judge says what is wrong with the peer when so many bytes have come, nil if
// nothing seems to be.
func (w *watch) judge(ctx context.Context, g *gaze, came int64) error {
	step := came - g.last
	picksUp := step > 2*g.step
	if g.still++; step > 0 {
		g.still = 0
	}
	g.last, g.step = came, step
	if w.drips(g, came) {
		return mesh.ErrDrips
	}
	switch {
	case g.still >= stillFor:
		err := w.ask(ctx, came, 1, 1<<30)
		if g.still == stillFor && errors.Is(err, mesh.ErrCrawls) {
			return nil // what it has may be on its way: one more look
		}
		g.still, g.start, g.since = 0, time.Now(), came
		return err
	case w.crawls(g, came) && !picksUp:
		g.start, g.since = time.Now(), came
		return w.ask(ctx, came, ahead, few)
	}
	return nil
}

// crawls reports whether the link has been slow for long enough to say so.
func (w *watch) crawls(g *gaze, came int64) bool {
	if g.start.IsZero() && came > 0 {
		g.start = time.Unix(0, w.first.Load())
	}
	took := time.Since(g.start)
	if g.start.IsZero() || took.Seconds() < crawlFor*w.fetcher.cfg.Look.Seconds() {
		return false
	}
	slow := float64(came-g.since) < crawl*took.Seconds()
	if !slow {
		g.start, g.since = time.Now(), came
	}
	return slow
}

// drips reports whether hardly anything comes, and this node may do without the
// peer.
func (w *watch) drips(g *gaze, came int64) bool {
	took := time.Since(g.long)
	if took < w.fetcher.cfg.Drip {
		return false
	}
	little := float64(came-g.longSince) < drip*took.Seconds()
	g.long, g.longSince = time.Now(), came
	return little && w.fetcher.dispensable(w.ref)
}

// dispensable reports whether this node may ask the registry itself, so that it
// need not put up with a peer.
func (f *Fetcher) dispensable(ref oci.Ref) bool {
	return slices.Contains(f.route(ref.Registry, ref.Digest.String()), nil)
}

// starved reports whether what this node has to do waits long for a processor.
// Then answers are late whoever sends them, and to ask elsewhere makes it worse.
func starved() bool {
	start := time.Now()
	runtime.Gosched()
	return time.Since(start) > hop
}

// ask asks the peer how far it is. It returns mesh.ErrHangs if there is no answer,
// mesh.ErrCrawls if the peer is far ahead of what came, and not for being busy.
func (w *watch) ask(ctx context.Context, came, ahead int64, busy int) error {
	p, err := w.peer.Progress(ctx, w.ref)
	switch {
	case err != nil:
		return mesh.ErrHangs
	case !w.opened.Load() && p.Held && (w.held || !p.Unvouched) && time.Since(w.began) > turnFor*w.fetcher.cfg.Look:
		return mesh.ErrHangs // its disk, perhaps
	case !w.opened.Load():
		return nil // it waits for the registry, or lets this node wait for its turn
	case p.Offset-(w.offset+came) >= ahead && p.Streams <= busy:
		return mesh.ErrCrawls
	default:
		return nil
	}
}

// tend makes a short request to a peer, and gives it up when the peer hangs.
func tend[T any](ctx context.Context, f *Fetcher, p mesh.Peer, ref oci.Ref, ask func(context.Context, mesh.Peer) (T, error)) (T, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	f.watch(ctx, end, p, ref, 1<<60, false)
	v, err := ask(ctx, p)
	return v, gaveUp(ctx, p, err)
}

// gaveUp says of a request that the watch ended that it was the peer's fault.
func gaveUp(ctx context.Context, p mesh.Peer, err error) error {
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, mesh.ErrHangs) || errors.Is(cause, mesh.ErrCrawls) || errors.Is(cause, mesh.ErrDrips)) {
		return &mesh.PeerError{Peer: p.Name(), Err: cause}
	}
	return err
}
