// Package egress finds a way out to a registry: this node's own, or another member's.
//
// In some networks a registry is reached from a few nodes only: others are blocked, or so
// slow that it comes to the same. Which node owns content says nothing about that. So an
// [Egress] stands between whoever asks registries and the upstream client, as an
// oci.Upstream over another. It asks by this node's own way out, and if that does not
// lead to the registry, by the way out of another member, which passes on what the registry
// answers and keeps nothing. This node still verifies, keeps and serves. A download that
// breaks off is resumed by whoever asked for it, perhaps by another way.
//
//	egress.go   one method for each question
//	tour.go     which ways are tried, in order, and which failure is told at the end
//	search.go   which member's way leads there, if nobody knows
//	ways.go     what is known of the ways: this node's own, and what members tell of theirs
//	brought.go  which member brought a blob, in case its bytes are wrong
//	times.go    how long everything takes
//	own.go      this node's own way: measured, probed, and lent to other members
//
// A member that asks for another goes by its own way out only ([Egress.Out] is that way
// alone). So no request is passed on twice, whatever the members believe of each other.
package egress

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// errLate ends a request that takes too long.
var errLate = errors.New("no answer in time")

// Config is what an Egress works with. All fields but Own, PassOn and Look are needed.
type Config struct {
	Upstream oci.Upstream // by this node's own way out
	Lent     oci.Upstream // the same for members that ask by way of this node; nil: Upstream
	Own      bool         // this node may take its own way out
	// Relays lists the members that may ask the registry for this node, those first that
	// are to be asked first for what key names.
	Relays func(registry, key string) []mesh.Relayer
	// PassOn reports whether the registry's redirects go to clients. nil: none do.
	PassOn func(registry string) bool
	Ways   *Ways
	Look   time.Duration // as mesh.Config.Look
	Log    *slog.Logger
}

// An Egress asks registries by whatever way leads there. Its methods may be called from any
// goroutine. Close it.
type Egress struct {
	cfg    Config
	own    *own
	mesh   *mesh.Mesh // to watch members
	search *search
	came   *brought
	wrong  *brought // by a mirror that a member asked
	life   *wait.Life
}

var _ oci.Upstream = (*Egress)(nil)

// New returns an Egress.
func New(cfg Config) *Egress {
	life := wait.NewLife()
	m := mesh.New(mesh.Config{Log: cfg.Log, Look: cfg.Look, Drip: patient})
	e := &Egress{cfg: cfg, mesh: m, life: life, came: newBrought(), wrong: newBrought(), own: newOwn(cfg.Upstream, cfg.Ways, life, cfg.Log)}
	e.search = newSearch(m, cfg.Ways, life)
	return e
}

// Close ends what the Egress has under way for itself.
func (e *Egress) Close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	e.life.Close(now)
}

// Out is this node's own way out and no other, for members that ask by way of it. came
// returns where bytes of blobs are counted that come from the registry.
func (e *Egress) Out(came func(registry string) *atomic.Int64) oci.Upstream {
	lent := e.own
	if e.cfg.Lent != nil {
		lent = newOwn(e.cfg.Lent, e.cfg.Ways, e.life, e.cfg.Log)
	}
	return &out{own: lent, came: came}
}

// Open implements oci.Upstream.
func (e *Egress) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(within, func() { cancel(errLate) })
	defer limit.Stop()
	s, err := along(ctx, e, want{ref: ref, blob: true, anew: offset == 0, sure: true}, func(ctx context.Context, w way) (*oci.Stream, error) {
		return w.open(ctx, e, ref, offset)
	})
	if err != nil || s.Body == nil {
		cancel(nil)
		return s, late(ctx, ref, err)
	}
	s.Body = &ended{s.Body, func() { cancel(nil) }}
	return s, nil
}

// late returns err, or a LateError if the request took too long.
func late(ctx context.Context, ref oci.Ref, err error) error {
	if _, spoken := oci.AsError(err); err != nil && !spoken && errors.Is(context.Cause(ctx), errLate) {
		return oci.LateError(ref, err)
	}
	return err
}

// ended is a body with something to do at its end.
type ended struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (b *ended) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// Range implements oci.Upstream.
func (e *Egress) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	return along(ctx, e, want{ref: ref, blob: true}, func(ctx context.Context, w way) (*oci.Stream, error) {
		if w.member == nil {
			return e.own.Range(ctx, ref, span)
		}
		return short(ctx, e, w, ref, func(ctx context.Context, up oci.Upstream) (*oci.Stream, error) { return up.Range(ctx, ref, span) })
	})
}

// Stat implements oci.Upstream.
func (e *Egress) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, errLate)
	defer cancel()
	d, err := along(ctx, e, want{ref: ref, blob: blob, sure: ref.Digest != ""}, func(ctx context.Context, w way) (oci.Descriptor, error) {
		if w.member == nil {
			return e.own.Stat(ctx, ref, blob, accept)
		}
		d, err := short(ctx, e, w, ref, func(ctx context.Context, up oci.Upstream) (oci.Descriptor, error) {
			return up.Stat(ctx, ref, blob, accept)
		})
		if err == nil {
			err = e.strays(w, ref, d.Redirect)
		}
		return d, err
	})
	return d, late(ctx, ref, err)
}

// Manifest implements oci.Upstream.
func (e *Egress) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	return whole(ctx, e, want{ref: ref, sure: ref.Digest != ""}, func(ctx context.Context, up oci.Upstream) (oci.Manifest, error) {
		return up.Manifest(ctx, ref, accept)
	})
}

// Tags implements oci.Upstream.
func (e *Egress) Tags(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return whole(ctx, e, want{ref: ref}, func(ctx context.Context, up oci.Upstream) (*oci.Page, error) {
		to.Reset() // what came by another way
		return up.Tags(ctx, ref, query, to)
	})
}

// Referrers implements oci.Upstream.
func (e *Egress) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return whole(ctx, e, want{ref: ref}, func(ctx context.Context, up oci.Upstream) (*oci.Page, error) {
		to.Reset() // what came by another way
		return up.Referrers(ctx, ref, query, to)
	})
}

// errElsewhere: this node follows the registry's redirects, so nobody may send its clients
// elsewhere.
var errElsewhere = errors.New("it hands the registry's redirects over, and this node does not: set follow_redirects alike on both")

// strays returns an error if a member hands over a redirect that this node would follow.
func (e *Egress) strays(w way, ref oci.Ref, redirect string) error {
	if redirect == "" || e.cfg.PassOn != nil && e.cfg.PassOn(ref.Registry) {
		return nil
	}
	return &mesh.PeerError{Peer: w.member.Name(), Err: errElsewhere}
}

// whole asks for a manifest or a list.
func whole[T any](ctx context.Context, e *Egress, what want, ask func(context.Context, oci.Upstream) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, errLate)
	defer cancel()
	v, err := along(ctx, e, what, func(ctx context.Context, w way) (T, error) {
		if w.member == nil {
			return ask(ctx, e.own)
		}
		return short(ctx, e, w, what.ref, ask)
	})
	return v, late(ctx, what.ref, err)
}

// short asks a member for an answer that comes whole, and gives it up if it hangs.
func short[T any](ctx context.Context, e *Egress, w way, ref oci.Ref, ask func(context.Context, oci.Upstream) (T, error)) (T, error) {
	return mesh.Tend(ctx, e.mesh, w.member, alive(ref), func(ctx context.Context, _ mesh.Peer) (T, error) { return ask(ctx, w.member.Relay()) })
}

// alive is what a member is asked about while it is watched: it shows that it lives, and
// says nothing of content that it may hold.
func alive(ref oci.Ref) oci.Ref { return oci.Ref{Registry: ref.Registry} }

// A way is one way out: a member's, or this node's own.
type way struct{ member mesh.Relayer } // nil: this node's own

// name is what people call the node.
func (w way) name() string { return cmp.Or(w.id(true), "this node") }

// id returns the member's id or name, "" for this node.
func (w way) id(name bool) string {
	switch {
	case w.member == nil:
		return ""
	case name:
		return w.member.Name()
	default:
		return w.member.ID()
	}
}

// open opens a blob by that way. A member is watched for as long as the stream lasts.
func (w way) open(ctx context.Context, e *Egress, ref oci.Ref, offset int64) (*oci.Stream, error) {
	if w.member == nil {
		return e.own.Open(ctx, ref, offset)
	}
	to := want{ref: ref, sure: true}.goal(ctx)
	if e.wrong.last(ref.Content()) != "" {
		ctx = oci.WithoutMirrors(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watch := e.mesh.WatchStream(ctx, cancel, w.member, alive(ref), offset, false)
	s, err := w.member.Relay().Open(ctx, ref, offset)
	if err == nil {
		err = e.strays(w, ref, s.Redirect)
	}
	if err != nil || s.Body == nil {
		err = mesh.GaveUp(ctx, w.member, err)
		cancel(nil)
		return s, err
	}
	if s.By == oci.Mirror { // of which the member never hears whether its bytes were right
		s.Wrong = func(bool) { e.wrong.add(ref.Content(), w.member.ID()) }
	}
	watch.Begin(s.Body)
	s.Body = &through{Watch: watch, Closer: s.Body, ctx: ctx, end: cancel, member: w.member, ended: func(broke bool) {
		if broke {
			e.cfg.Ways.doubt(w.member.ID(), to)
		} else {
			e.came.add(ref.Content(), w.member.ID())
		}
	}}
	return s, nil
}

// through is a blob on its way through a member.
type through struct {
	*mesh.Watch
	io.Closer
	ctx    context.Context // of the watch
	end    context.CancelCauseFunc
	member mesh.Peer
	ended  func(broke bool)
}

// Read implements io.Reader.
func (b *through) Read(p []byte) (int, error) {
	n, err := b.Watch.Read(p)
	if err != nil {
		b.ended(!errors.Is(err, io.EOF))
		err = mesh.GaveUp(b.ctx, b.member, err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *through) Close() error {
	defer b.end(nil)
	return b.Closer.Close()
}
