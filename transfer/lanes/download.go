package lanes

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// look is how often a lane that has nothing to do, or a reader that waits, looks for a leg
// that is late.
const look = 250 * time.Millisecond

// errClosed ends what is under way when the reader has closed the stream.
var errClosed = errors.New("the download was closed")

// A download is a blob that comes over several lanes, and is read as one stream. Read and
// Close belong to one goroutine.
type download struct {
	all    *Lanes
	ref    oci.Ref
	stream *oci.Stream     // the first answer
	ctx    context.Context // of all lanes: it ends with the reader's, when the download fails, and when it is closed
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu   sync.Mutex // guards the fields below, and what they hold; never held during I/O
	plan plan
	news bell // for the reader
	work bell // for lanes without anything to do
}

// newDownload returns a download whose first leg is s, of length bytes.
func newDownload(all *Lanes, ref oci.Ref, room *store, s *oci.Stream, length int64) *download {
	d := &download{all: all, ref: ref, stream: s, news: newBell(), work: newBell()}
	d.plan = plan{size: s.Size, next: s.Offset + length, room: room}
	d.plan.legs = []*leg{{Span: oci.Span{Offset: s.Offset, Length: length}}}
	room.used = length
	return d
}

// start begins to bring the blob over first and the other lanes, until ctx ends, and returns
// its stream. first has asked for the first leg.
func (d *download) start(ctx context.Context, cancel context.CancelCauseFunc, first *lane, others []*lane) *oci.Stream {
	d.ctx, d.cancel, d.plan.lanes = ctx, cancel, 1+len(others)
	g := d.plan.legs[0]
	g.own(first, time.Now())
	g.stop = first.stop
	first.download = d
	d.wg.Go(func() { first.goOn(ctx, g, d.stream.Body) })
	for _, l := range others {
		l.download = d
		d.wg.Go(func() { l.run(ctx) })
	}
	s := *d.stream
	s.Body = d
	return &s
}

// Read implements io.Reader. It returns what has come as soon as something has.
func (d *download) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		b, news := d.next()
		switch {
		case b != nil:
			n := copy(p, b)
			d.took(n)
			return n, nil
		case news == nil:
			return 0, io.EOF
		}
		if err := wait.Until(d.ctx, news, look); err != nil {
			return 0, err
		}
	}
}

// next returns bytes to read, or what to wait for: nil if all were read. If they have not
// come, it frees a leg that is late.
func (d *download) next() (b []byte, news <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, end := d.plan.unread()
	if b != nil || end {
		return b, nil
	}
	if d.plan.rescue(time.Now(), false) != nil {
		d.work.ring()
	}
	return nil, d.news.c
}

// took hears that n bytes were read.
func (d *download) took(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plan.took(n) {
		d.work.ring()
	}
}

// Close ends all lanes and waits for them.
func (d *download) Close() error {
	d.cancel(errClosed) // a failure before it stays the cause
	d.wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan.room.close()
	d.all.log.Debug("blob came over several connections", "registry", d.ref.Registry, "digest", d.ref.Digest.String(),
		"connections", d.plan.lanes, "taken_over", d.plan.moved)
	return nil
}

// take waits for something that a lane can bring. nil: there will be nothing.
func (d *download) take(ctx context.Context, l *lane) *leg {
	for {
		g, work, watch := d.offer(ctx, l)
		if g != nil || work == nil || wait.Until(ctx, work, watch) != nil {
			return g
		}
	}
}

// offer gives a lane something to bring, or what to wait for: for watch at most, if that
// is not 0. work is nil if there will be nothing.
func (d *download) offer(ctx context.Context, l *lane) (g *leg, work <-chan struct{}, watch time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil || d.plan.over() {
		return nil, nil, 0
	}
	if g = d.plan.take(ctx, l, time.Now()); g != nil {
		return g, nil, 0
	}
	if d.plan.underWay() {
		watch = look
	}
	return nil, d.work.c, watch
}

// begin notes that a lane sends the request for its leg, which stop ends. It reports false
// if the lane has lost the leg.
func (d *download) begin(l *lane, g *leg, stop func()) (oci.Span, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g.owner != l {
		return oci.Span{}, false
	}
	g.stop, g.asked = stop, time.Now()
	return oci.Span{Offset: g.Offset + g.got, Length: g.Length - g.got}, true
}

// space returns where the next bytes of a lane's leg go, nil if none are wanted of it.
func (d *download) space(l *lane, g *leg) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g.owner != l || g.complete() {
		return nil
	}
	return g.space()
}

// came notes that n bytes of a lane's leg have come.
func (d *download) came(l *lane, g *leg, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n == 0 || g.owner != l {
		return
	}
	g.came(int64(n), time.Now())
	if g == d.plan.legs[0] {
		d.news.ring()
	}
	if g.complete() {
		d.plan.finish(g)
		d.work.ring()
		d.news.ring()
	}
}

// leave notes that a lane brings its leg no further, but others may. lost says that
// another lane has it, or that nothing was left to bring. failures is how many requests of
// the first lane for those bytes have brought nothing, in a row.
func (d *download) leave(l *lane, g *leg) (failures int, lost bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g.owner != l {
		return 0, true
	}
	rest := d.plan.split(g)
	switch {
	case !g.first.IsZero():
	case l.first:
		rest.failures = g.failures + 1
	default:
		rest.failures = g.failures
	}
	d.work.ring()
	return rest.failures, false
}

// abandon makes a lane go by the source from now on.
func (d *download) abandon(l *lane) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.way = nil
}

// fail ends the download: the reader gets err after what has come before the gap.
func (d *download) fail(err error) { d.cancel(err) }

// A bell wakes all who wait. Its caller sees to it that one goroutine at a time uses it.
type bell struct{ c chan struct{} } // closed at the next ring

func newBell() bell { return bell{make(chan struct{})} }

// ring wakes all who wait.
func (b *bell) ring() {
	close(b.c)
	b.c = make(chan struct{})
}
