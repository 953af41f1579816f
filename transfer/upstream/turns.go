package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
	"oci-proxy/transfer/wait"
)

const (
	// DefaultRequests is how many requests may be at one registry at a time, if its
	// settings do not say.
	DefaultRequests = 32
	// strangersRequests is how many may be at all registries together that nobody
	// configured.
	strangersRequests = 256
	// maxWaiting is how many requests to one registry may wait for their turn. Of more,
	// the last one of the client with the most is refused.
	maxWaiting = 2048
)

// turns bound the requests that are at one registry at a time, fairly among the
// clients that they are for (oci.Caller). A request has its turn until its answer
// is read or given up, and token requests, redirects and challenges belong to it. So
// nobody who has a turn waits for another one.
//
// A download may take hours. So downloads leave an eighth of the turns to requests
// that are short: tags, manifests, lists.
type turns struct {
	home      *home
	most      int
	downloads *wait.Turns[string]
	all       *wait.Turns[string]
	strangers *wait.Turns[string] // of all registries that nobody configured; nil: this one is configured
}

// newTurns returns the turns at a registry. strangers are those of all registries
// that nobody configured, nil if this one is.
func newTurns(home *home, most int, strangers *wait.Turns[string]) *turns {
	if most < 1 {
		most = DefaultRequests
	}
	downloads := max(1, most-max(1, most/8))
	return &turns{home: home, most: most, downloads: turnsOf(downloads), all: turnsOf(most), strangers: strangers}
}

// turnsOf returns so many turns.
func turnsOf(n int) *wait.Turns[string] {
	return wait.NewTurns[string](wait.Bounds{Running: n, Waiting: maxWaiting}, turnWithin, nil)
}

// begin waits for the turn of a. The caller calls end when the answer is read. The
// error is a *failure of kind Busy, or says that ctx was cancelled.
func (t *turns) begin(ctx context.Context, a ask) (end func(), err error) {
	chain := t.chain(a.method == http.MethodGet && strings.HasPrefix(a.path, "blobs/"))
	held, ok := ctx.Value(heldKey{}).(*heldTurn)
	switch {
	case !ok:
		return t.wait(ctx, chain)
	case held.end == nil:
		if held.end, err = t.wait(ctx, chain); err != nil {
			return nil, err
		}
	}
	return func() {}, nil
}

// chain are the turns that a request needs, in the order in which it waits for them.
func (t *turns) chain(download bool) []*wait.Turns[string] {
	chain := make([]*wait.Turns[string], 0, 3)
	if download {
		chain = append(chain, t.downloads)
	}
	chain = append(chain, t.all)
	if t.strangers != nil {
		chain = append(chain, t.strangers)
	}
	return chain
}

// wait waits for all turns of chain.
func (t *turns) wait(ctx context.Context, chain []*wait.Turns[string]) (end func(), err error) {
	_, span := trace.Start(ctx, "queue")
	span.Set("oci_proxy.kind", "registry")
	defer func() { span.End(err) }()
	if end, ok := t.try(ctx, chain); ok { // most never wait
		return end, nil
	}
	limited, cancel := context.WithTimeoutCause(ctx, turnWithin, wait.ErrBusy) // for all of them together
	defer cancel()
	var ends ends
	for _, one := range chain {
		e, err := one.Begin(limited, oci.CallerOf(ctx).Client)
		if err != nil {
			ends.all()
			return nil, t.none(ctx, err)
		}
		ends = append(ends, e)
	}
	return ends.all, nil
}

// figures returns how many requests have a turn, and how many wait for one.
func (t *turns) figures() (active, waiting int) {
	active, waiting, _ = t.all.Figures()
	_, downloads, _ := t.downloads.Figures()
	return active, waiting + downloads
}

// try takes all turns of chain if they are free.
func (t *turns) try(ctx context.Context, chain []*wait.Turns[string]) (end func(), ok bool) {
	ends := make(ends, 0, len(chain))
	for _, one := range chain {
		e, ok := one.Try(oci.CallerOf(ctx).Client)
		if !ok {
			ends.all()
			return nil, false
		}
		ends = append(ends, e)
	}
	return ends.all, true
}

// ends give back the turns of a request.
type ends []func()

// all gives all of them back.
func (e ends) all() {
	for _, end := range e {
		end()
	}
}

type heldKey struct{}

// A heldTurn is a turn that requests have one after the other.
type heldTurn struct{ end func() } // nil: no request has waited for it yet

// release gives the turn back.
func (h *heldTurn) release() {
	if h.end != nil {
		h.end()
		h.end = nil
	}
}

// none is the failure of a request that got no turn.
func (t *turns) none(ctx context.Context, err error) *failure {
	f := t.home.fail(oci.Busy, never, t.home.host, fmt.Sprintf("%d requests to this registry are under way, and no turn came for this one: try again later, or raise upstream_requests", t.most))
	f.RetryAfter = busyRetry
	if !errors.Is(err, wait.ErrBusy) && !isLate(context.Cause(ctx)) {
		f.ended(ctx)
	}
	return f
}

// isLate reports whether time ended a request, and not the caller.
func isLate(cause error) bool {
	return errors.Is(cause, errLate) || errors.Is(cause, errTry) || errors.Is(cause, context.DeadlineExceeded)
}

// do asks for a in its turn, and answers challenges.
func (r *registry) do(ctx context.Context, a ask) (*answer, error) {
	if f := r.net.pauses.holds(r.home.host); f != nil {
		return nil, f
	}
	asked := time.Now()
	end, err := r.turns.begin(ctx, a)
	r.home.meter.Waited(time.Since(asked))
	if err != nil {
		return nil, err
	}
	if f := r.net.pauses.holds(r.home.host); f != nil { // it asked for that meanwhile
		end()
		return nil, f
	}
	began := time.Now()
	end = r.timed(began, end)
	ans, err := r.ask(ctx, a)
	if err == nil {
		r.home.meter.Began(time.Since(began))
	}
	if d := r.net.pauses.heed(r.home, ans, err); d > 0 && r.limited != nil {
		r.limited(r.home.host, d)
	}
	if err != nil || ans.redirect != nil { // then nothing is left to read
		end()
		return ans, err
	}
	ans.resp.Body = &turnBody{ReadCloser: ans.resp.Body, end: end}
	return ans, nil
}

// timed returns end for a request that began then: it also tells how long the request took.
func (r *registry) timed(began time.Time, end func()) func() {
	return func() {
		end()
		r.home.meter.Ended(time.Since(began))
	}
}

// A turnBody is an answer's body that has a turn until it is closed.
type turnBody struct {
	io.ReadCloser
	end  func()
	once sync.Once
}

// Close implements io.Closer.
func (b *turnBody) Close() error {
	defer b.once.Do(b.end)
	return b.ReadCloser.Close()
}
