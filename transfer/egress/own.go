package egress

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// own is this node's own way out. It notes how that is.
type own struct {
	up   oci.Upstream
	ways *Ways
	life *wait.Life // of the probes
	log  *slog.Logger
}

var _ oci.Upstream = (*own)(nil)

func newOwn(up oci.Upstream, ways *Ways, life *wait.Life, log *slog.Logger) *own {
	return &own{up, ways, life, log}
}

// fault reports whether a failure may be that of the way out alone: no connection came
// about, or it broke, something on the way answered for the registry, or nobody did. Where the
// registry's storage refuses a link that the registry has just given, that may be meant for
// this node's address, or be a firewall's page.
func fault(err error) bool {
	e, spoken := oci.AsError(err)
	switch {
	case !spoken:
		return false
	case e.Unreached:
		return e.OtherNodeMayHelp()
	case e.By == oci.Middlebox:
		return e.Kind != oci.Limited
	case e.By == oci.Storage:
		return slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnavailableForLegalReasons}, e.Status)
	default:
		return (e.Kind == oci.Timeout || e.Kind == oci.Unavailable) && e.By == oci.Nobody && e.Status == 0
	}
}

// theirs reports whether a member's failure is no word of the registry: the member itself
// fails, its way does, or its guard or its config keeps it from asking.
func theirs(err error) bool {
	e, spoken := oci.AsError(err)
	own := spoken && (e.Kind == oci.Busy || e.Kind == oci.Invalid) // this node has no memory, or asks what can't be passed on
	return failed(err) || fault(err) || spoken && e.By == oci.Nobody && !own
}

// note notes what a request by this node's own way tells of it. Where something else
// answered, or nobody did, the registry may be to blame: then a member has to get further
// first. What a mirror answers says nothing of the way to the registry.
func (o *own) note(ctx context.Context, registry string, blob bool, began time.Time, by oci.Party, err error) {
	e, spoken := oci.AsError(err)
	switch {
	case err == nil && by == oci.Mirror:
	case err == nil, spoken && e.Authoritative():
		if o.ways.ownUp(registry, blob, time.Since(began)) {
			o.log.Info("registry reached again by this node's own way", "registry", registry)
		}
	case fault(err) && e.Unreached && ctx.Err() == nil:
		o.down(registry, blob, err)
	}
}

// down notes that the way does not lead to the registry.
func (o *own) down(registry string, blob bool, err error) {
	if o.ways.ownDown(registry, blob) {
		o.log.Info("registry out of reach from this node; others are asked to pass its answers on", "registry", registry, "error", err)
	}
}

// probe finds out, in the background and now and then, whether the way is up again.
func (o *own) probe(ref oci.Ref, blob bool) {
	if !o.ways.probeDue(ref.Registry) {
		return
	}
	o.life.Go(func() {
		ctx, cancel := context.WithTimeout(o.life.Context(), within)
		defer cancel()
		_, _ = o.Stat(ctx, probed(ref), blob, oci.ManifestTypes) // what it tells is noted
	})
}

// probed is what a registry is asked about to find out whether a way leads there.
func probed(ref oci.Ref) oci.Ref {
	if ref.Digest == "" && ref.Tag == "" { // of a list
		ref.Tag = "latest"
	}
	return ref
}

// noted asks by this node's own way.
func noted[T any](ctx context.Context, o *own, ref oci.Ref, blob bool, ask func() (T, error)) (T, error) {
	began := time.Now()
	v, err := ask()
	o.note(ctx, ref.Registry, blob, began, giver(v, err), err)
	return v, err
}

// giver is who gave an answer that is no error.
func giver(answer any, err error) oci.Party {
	if err != nil {
		return oci.Nobody
	}
	switch a := answer.(type) {
	case *oci.Stream:
		return a.By
	case oci.Descriptor:
		return a.By
	case oci.Manifest:
		return a.By
	case *oci.Page:
		return a.By
	default:
		return oci.Nobody
	}
}

// Open implements oci.Upstream.
func (o *own) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	s, err := noted(ctx, o, ref, true, func() (*oci.Stream, error) { return o.up.Open(ctx, ref, offset) })
	if err == nil && s.Body != nil && s.By != oci.Mirror {
		s.Body = &timed{ReadCloser: s.Body, end: func(bytes int64, took time.Duration) { o.ways.ownSent(ref.Registry, bytes, took) }}
	}
	return s, err
}

// timed measures how fast a body comes: only what reading takes counts, not the reader.
type timed struct {
	io.ReadCloser
	bytes int64
	took  time.Duration
	end   func(bytes int64, took time.Duration)
}

// Read implements io.Reader.
func (t *timed) Read(p []byte) (int, error) {
	began := time.Now()
	n, err := t.ReadCloser.Read(p)
	t.took += time.Since(began)
	t.bytes += int64(n)
	return n, err
}

// Close implements io.Closer.
func (t *timed) Close() error {
	if end := t.end; end != nil {
		t.end = nil
		end(t.bytes, t.took)
	}
	return t.ReadCloser.Close()
}

// Range implements oci.Upstream.
func (o *own) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	return noted(ctx, o, ref, true, func() (*oci.Stream, error) { return o.up.Range(ctx, ref, span) })
}

// Stat implements oci.Upstream.
func (o *own) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	return noted(ctx, o, ref, blob, func() (oci.Descriptor, error) { return o.up.Stat(ctx, ref, blob, accept) })
}

// Manifest implements oci.Upstream.
func (o *own) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	return noted(ctx, o, ref, false, func() (oci.Manifest, error) { return o.up.Manifest(ctx, ref, accept) })
}

// Tags implements oci.Upstream.
func (o *own) Tags(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return noted(ctx, o, ref, false, func() (*oci.Page, error) { return o.up.Tags(ctx, ref, query, to) })
}

// Referrers implements oci.Upstream.
func (o *own) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return noted(ctx, o, ref, false, func() (*oci.Page, error) { return o.up.Referrers(ctx, ref, query, to) })
}

// out is this node's own way out as it is lent to other members.
type out struct {
	*own
	came func(registry string) *atomic.Int64
}

// Open implements oci.Upstream.
func (o *out) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	s, err := o.own.Open(ctx, ref, offset)
	return o.count(ref, s, err)
}

// Range implements oci.Upstream.
func (o *out) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	s, err := o.own.Range(ctx, ref, span)
	return o.count(ref, s, err)
}

// count counts the bytes of a stream.
func (o *out) count(ref oci.Ref, s *oci.Stream, err error) (*oci.Stream, error) {
	if err == nil && s.Body != nil {
		s.Body = &counter{s.Body, o.came(ref.Registry)}
	}
	return s, err
}

// counter counts what is read.
type counter struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// busy reports whether a member has no room for a request: that says nothing of its way.
func busy(err error) bool {
	p, is := errors.AsType[*mesh.PeerError](err)
	return is && p.Busy
}

// failed reports whether a member failed, and not the registry.
func failed(err error) bool {
	_, is := errors.AsType[*mesh.PeerError](err)
	return is
}
