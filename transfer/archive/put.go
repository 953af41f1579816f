package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// maxQueue is how many objects wait to be put at most unless Config says otherwise. What
	// comes then is dropped.
	maxQueue = 4096
	// atOnce is how many objects are put at a time.
	atOnce = 2
	// putTries is how often the upload of an object is tried.
	putTries = 3
)

// An item is content that waits to be put.
type item struct {
	oci.Kept
	key   string
	renew bool // it replaces what is there
}

// A putter puts content into the bucket, in the background.
type putter struct {
	to      *bucket
	known   *notes
	out     *slog.Logger
	queue   chan item
	ended   chan struct{} // closed when nothing is to begin any more
	endOnce sync.Once
	putting breaker
	uploads *wait.Life

	put, had, failures, dropped atomic.Int64

	mu     sync.Mutex // guards the fields below; never held during I/O
	told   time.Time  // when the log was last told of content that was not put
	silent int        // how much was not put since
}

// begin begins to put what is offered.
func (p *putter) begin(to *bucket, known *notes, queue int, log *slog.Logger) {
	p.to, p.known, p.out = to, known, log
	p.queue, p.ended, p.uploads = make(chan item, queue), make(chan struct{}), wait.NewLife()
	for range atOnce {
		p.uploads.Go(p.work)
	}
}

// close drops what waits. What is under way may go on for a moment.
func (p *putter) close() {
	p.endOnce.Do(func() { close(p.ended) })
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	p.uploads.Close(ctx)
}

// figures returns what was counted.
func (p *putter) figures() Figures {
	return Figures{Put: p.put.Load(), Had: p.had.Load(), Failed: p.failures.Load(), Dropped: p.dropped.Load()}
}

// Offer implements oci.Archive.
func (p *putter) Offer(k oci.Kept) {
	if k.Digest.Validate() != nil {
		return
	}
	one := item{Kept: k, key: p.to.key(k.Private, k.Registry, k.Digest)}
	if there, _ := p.known.of(one.key); !there {
		p.add(one)
	}
}

// add puts an item into the queue, unless that is full.
func (p *putter) add(one item) {
	select {
	case p.queue <- one:
	default:
		p.dropped.Add(1)
		p.tell(one, errFull)
	}
}

// errFull is why content is dropped.
var errFull = errors.New("too many others wait to be put")

// work puts one object after the other.
func (p *putter) work() {
	for {
		select {
		case <-p.ended:
			return
		case k := <-p.queue:
			p.bring(k)
		}
	}
}

// bring puts an object. While the bucket fails it waits: what is offered meanwhile queues up.
func (p *putter) bring(k item) {
	var err error
	for range putTries {
		probes, ok := p.await()
		if !ok {
			return
		}
		err = p.once(p.uploads.Context(), k)
		why := ""
		if err != nil {
			why = err.Error()
		}
		switch {
		case err == nil:
			p.putting.answered()
		case errors.Is(err, errGone):
			why = "" // that says nothing of the bucket, which has just answered
			p.putting.answered()
			p.dropped.Add(1)
		case !probes:
			p.putting.failed(why, false)
		}
		if probes {
			p.putting.tried(why)
		}
		if why == "" {
			return
		}
	}
	p.failures.Add(1)
	p.tell(k, err)
}

// await waits until the bucket is used, or is to be tried by the caller. It reports false
// when the node ends.
func (p *putter) await() (probes, ok bool) {
	for {
		rest, now := p.putting.due()
		if now || p.putting.inUse() {
			return now, true
		}
		timer := time.NewTimer(max(rest, time.Second))
		select {
		case <-timer.C:
		case <-p.ended:
			timer.Stop()
			return false, false
		}
	}
}

// errGone: the node does not hold the content any more, or must not show it any more.
var errGone = errors.New("the content is not held any more")

// once puts an object unless the bucket has it.
func (p *putter) once(ctx context.Context, k item) error {
	limit := putLeast + time.Duration(k.Size/putLeastRate)*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errLate)
	defer cancel()
	there, wrong := p.known.of(k.key)
	if !there && !wrong && !k.renew { // a wrong one is put anew
		var err error
		if there, err = p.has(ctx, k.key); err != nil {
			return err
		}
	}
	if there {
		p.had.Add(1)
		p.known.has(k.key)
		return nil
	}
	if err := p.upload(ctx, k); err != nil {
		return err
	}
	p.put.Add(1)
	if !k.renew {
		p.known.has(k.key)
	}
	return nil
}

// has asks whether the bucket has an object.
func (p *putter) has(ctx context.Context, key string) (bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errLate)
	defer cancel()
	return p.to.has(ctx, key)
}

// upload sends an object from this node's shard.
func (p *putter) upload(ctx context.Context, k item) error {
	from, err := k.Open()
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	r, w := io.Pipe()
	var sending sync.WaitGroup
	sending.Go(func() {
		_, err := from.Send(ctx, w, 0, k.Size)
		_ = w.CloseWithError(errors.Join(err, from.Close())) // it never fails; nil ends the pipe
	})
	still := time.AfterFunc(putStill, func() { end(errors.New("the upload stood still")) })
	err = p.to.put(ctx, k.key, k.Digest, &watched{r, still}, k.Size, k.MediaType)
	still.Stop()
	_ = r.Close() // so that Send ends
	sending.Wait()
	return err
}

// A watched reader puts off the end of an upload each time that some of it is sent.
type watched struct {
	io.Reader
	still *time.Timer
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	w.still.Reset(putStill)
	return w.Reader.Read(p)
}

// tell logs that content was not put, once in a while.
func (p *putter) tell(k item, err error) {
	p.mu.Lock()
	p.silent++
	many, quiet := p.silent, time.Since(p.told) < quietFor
	if !quiet {
		p.told, p.silent = time.Now(), 0
	}
	p.mu.Unlock()
	if !quiet {
		p.out.Warn("content not put into the archive", "objects", many, "registry", k.Registry, "digest", k.Digest.String(), "error", err)
	}
}
