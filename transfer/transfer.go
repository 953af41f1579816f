// Package transfer moves blobs and manifests: from the shard where it holds
// them, else from upstream, and into the shard on the way.
//
// A pull's story. [ParsePath] turns a /v2 path into a [Ref]. A blob
// ([Fetcher.Blob]) is opened from the shard, or else followed while a flight
// fetches it: one flight per digest, however many ask, owned by the node and
// not by the first who asked (flight.go). A manifest by digest is cached as a
// blob is, with its media type; a tag is checked with upstream each time, by
// HEAD, so that no pull quota is spent when nothing changed (manifest.go,
// tag.go). What upstream is and how it is asked lies behind [Upstream].
package transfer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A Policy says how one registry is treated.
type Policy struct {
	TagTTL       time.Duration // how long a checked tag is believed; 0: checked at each request
	StaleIfError time.Duration // how long a tag's last manifest is served while upstream fails
	Offline      bool          // never ask upstream
	Private      bool          // serve its content only for a repository it vouched for
	Stranger     bool          // nobody configured it: what it announces may be made up
	PassOn       bool          // its redirects go to the client (follow_redirects: false)
}

// Config is what a Fetcher works with. All fields but the last four are needed.
type Config struct {
	Upstream oci.Upstream
	Store    func(registry string) *cache.Store
	Policy   func(registry string) Policy
	Log      *slog.Logger
	Stall    time.Duration // how long a download may stand still before another try, 0: 20 s
	Mesh     mesh.Router   // the other members, nil for a node on its own
	Look     time.Duration // how often requests to peers are looked at, 0: 500 ms
	Drip     time.Duration // how long a peer may bring hardly anything where this node may ask the registry, 0: 30 s
}

// A Fetcher gets blobs and manifests for clients.
type Fetcher struct {
	cfg  Config
	ctx  context.Context // the node's: what flights and checks live under
	stop context.CancelCauseFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	closed  bool // nothing new begins
	flights map[flightKey]*flight
	claims  map[content]claim
	telling map[oci.Ref]*oci.Error // of which repositories others are told, and what was heard last

	tellers   sync.WaitGroup // Close waits for them at last
	tellSlots chan struct{}

	// Calls for clients, who may wait for another node, and calls for members,
	// who must not.
	manifests, ownManifests calls[manifestKey, *oci.Found]
	tags, ownTags           calls[string, checked]

	shunned  shunned
	counters counters
	sizes    sizes
	streams  atomic.Int64 // answers to peers being sent
}

// New returns a Fetcher. Close it.
func New(cfg Config) *Fetcher {
	if cfg.Stall == 0 {
		cfg.Stall = 20 * time.Second
	}
	if cfg.Look == 0 {
		cfg.Look = look
	}
	if cfg.Drip == 0 {
		cfg.Drip = dripFor
	}
	ctx, stop := context.WithCancelCause(context.Background())
	return &Fetcher{
		cfg: cfg, ctx: ctx, stop: stop, flights: map[flightKey]*flight{}, claims: map[content]claim{},
		telling: map[oci.Ref]*oci.Error{}, tellSlots: make(chan struct{}, tellWidth),
	}
}

// errClosed is why what is under way ends, or does not begin, once Close was called.
var errClosed = errors.New("nothing new begins here")

// Close waits until the flights have landed or ctx ends, then ends the rest.
// Nothing new begins meanwhile: who asks for what is not in the shard gets an
// *Error of kind Unavailable.
func (f *Fetcher) Close(ctx context.Context) {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	landed := make(chan struct{})
	go func() {
		f.wg.Wait()
		close(landed)
	}()
	select {
	case <-landed:
	case <-ctx.Done():
	}
	f.stop(errClosed)
	<-landed
	f.tellers.Wait()
}

// start runs fn for the node, unless that is closing. Close waits for it.
func (f *Fetcher) start(fn func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.wg.Go(fn)
	}
	return !f.closed
}

// answerWithin is how long a client waits until its answer begins or it is told
// why not. Upstream is given a second less for one request, since what it says
// of a failure says more; some answers take two requests.
const answerWithin = 39 * time.Second

// inTime bounds the waiting for ref's answer.
func inTime(ctx context.Context, ref oci.Ref) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, answerWithin, oci.LateError(ref, nil))
}

// explain makes an *Error of what a client's request ended with, unless it is
// the client who has gone. host is who delivered, "" if nobody did.
func (f *Fetcher) explain(ctx context.Context, ref oci.Ref, host string, err error) error {
	f.heed(ref, err)
	if _, ok := oci.AsError(err); ok || err == nil || ctx.Err() != nil {
		return err
	}
	e := &oci.Error{Kind: oci.Unavailable, Registry: ref.Registry, Host: host, Reason: "the download broke off", Err: err}
	if p, ok := errors.AsType[*mesh.PeerError](err); ok {
		e.Host, e.Reason = p.Peer, "another node of the cluster failed"
	}
	switch {
	case errors.Is(err, errClosed):
		e.Reason = "this node is shutting down"
	case errors.Is(err, cache.ErrDigest):
		e.Kind, e.Reason = oci.Corrupt, "what came is not what the digest names"
	}
	return e
}

// calls runs one call per key at a time; who asks meanwhile gets its result.
// The call belongs to the node: it goes on if all who wait have left, but no
// longer than an answer may take.
type calls[K comparable, V any] struct {
	mu     sync.Mutex
	active map[K]*call[V]
}

// A call is one that is under way.
type call[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// do returns what fn returns for key, joining a call under way. ctx bounds the
// waiting only.
func (c *calls[K, V]) do(ctx context.Context, f *Fetcher, key K, fn func(context.Context) (V, error)) (v V, joined bool, err error) {
	one, joined, err := c.join(f, key, fn)
	if err != nil {
		return v, false, err
	}
	select {
	case <-one.done:
		return one.value, joined, one.err
	case <-ctx.Done():
		return v, joined, context.Cause(ctx)
	}
}

// join returns the call for key that is under way, or begins one.
func (c *calls[K, V]) join(f *Fetcher, key K, fn func(context.Context) (V, error)) (one *call[V], joined bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one, joined = c.active[key]; joined {
		return one, true, nil
	}
	one = &call[V]{done: make(chan struct{})}
	began := f.start(func() {
		defer close(one.done)
		ctx, cancel := context.WithTimeout(f.ctx, answerWithin)
		defer cancel()
		one.value, one.err = fn(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.active, key)
	})
	if !began {
		return nil, false, errClosed
	}
	if c.active == nil {
		c.active = map[K]*call[V]{}
	}
	c.active[key] = one
	return one, false, nil
}
