package mirrors

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"oci-proxy/transfer/oci"
)

// errSlow is the cause of a request that is ended because others can be asked.
var errSlow = errors.New("no answer in time")

// An asker asks one place. at is the question by the place's own name.
type asker[T any] func(ctx context.Context, p *place, at oci.Ref) (T, error)

// An errand is one question on its way along the places.
type errand[T any] struct {
	site   *site
	ref    oci.Ref
	ask    asker[T]
	end    time.Time
	own    error    // the registry's own word
	failed []string // what the mirrors said, for operators
	slow   []*place // those to be asked once more, with more time
}

// A reply is what a place answered. end ends what belongs to it.
type reply[T any] struct {
	value T
	place *place
	ctx   context.Context
	end   context.CancelCauseFunc
}

// answer asks the places in order for something that is complete when it is there.
func answer[T any](ctx context.Context, s *site, of subject, places []*place, ask asker[T]) (T, error) {
	r, err := walk(ctx, s, of.Ref, places, ask)
	if err != nil {
		return r.value, err
	}
	r.end(nil)
	s.probe(ctx, r.place, of)
	return r.value, nil
}

// walk asks the places in order until one has an answer. While others are left each has to
// begin its answer within its patience, and is not asked twice. Those that were cut off
// like that, and the registry if its failure may pass, are asked once more in the end.
func walk[T any](ctx context.Context, s *site, ref oci.Ref, places []*place, ask asker[T]) (reply[T], error) {
	e := &errand[T]{site: s, ref: ref, ask: ask, end: time.Now().Add(within)}
	hurry := time.Now().Add(walkFor)
	for i, p := range places {
		last := i == len(places)-1 && len(e.slow) == 0
		if !last && time.Now().After(hurry) {
			e.slow = append(e.slow, p)
			continue
		}
		limit := p.patience()
		if last {
			limit = time.Until(e.end)
		}
		if r, done, err := e.try(ctx, p, limit, !last); done {
			return r, err
		}
	}
	again := e.slow
	for i, p := range again {
		if r, done, err := e.try(ctx, p, time.Until(e.end)/time.Duration(len(again)-i), false); done {
			return r, err
		}
	}
	return reply[T]{}, e.error()
}

// try asks a place. done says that the errand is over.
func (e *errand[T]) try(ctx context.Context, p *place, limit time.Duration, hurried bool) (r reply[T], done bool, err error) {
	own, end := context.WithCancelCause(ctx)
	began, timer := time.Now(), time.AfterFunc(limit, func() { end(errSlow) })
	asking, at := own, e.ref
	if at.Registry = p.host; hurried {
		asking = oci.Hurry(own)
	}
	v, err := e.ask(asking, p, at)
	timer.Stop()
	if err == nil {
		p.answered(time.Since(began))
		return reply[T]{v, p, own, end}, true, nil
	}
	cut := errors.Is(context.Cause(own), errSlow)
	end(nil)
	if ctx.Err() != nil {
		return r, true, e.gone(ctx, p, err)
	}
	said, spoken := oci.AsError(err)
	if !spoken && !cut {
		return r, true, err // of the sink: no place is at fault
	}
	if cut {
		said = &oci.Error{Kind: oci.Timeout, Host: p.host, Reason: errSlow.Error()}
	}
	final := e.note(ctx, p, said, time.Since(began), cut)
	if hurried && (cut || p.own && said.Passing()) {
		e.slow = append(e.slow, p)
	}
	if final {
		return r, true, err
	}
	return r, false, nil
}

// gone is the error of a question whose asker has gone, or has no more time. What a mirror
// says just then is not the registry's word.
func (e *errand[T]) gone(ctx context.Context, p *place, err error) error {
	if said, ok := oci.AsError(err); ok && !p.own && said.By != oci.Nobody {
		return oci.LateError(e.ref, context.Cause(ctx))
	} else if ok {
		return e.named(err)
	}
	return context.Cause(ctx)
}

// note notes how a place failed, and reports whether that is the last word.
func (e *errand[T]) note(ctx context.Context, p *place, said *oci.Error, took time.Duration, cut bool) (final bool) {
	switch {
	case said.Kind == oci.NotFound, said.Kind == oci.Denied && said.Status != 0:
		p.answered(took) // it lives
		if p.own && said.Authoritative() {
			return true
		}
		e.site.grudges.lack(p.host, e.ref)
	case said.Kind == oci.Corrupt && !p.own && e.ref.Digest != "":
		e.site.lie(p, e.ref, true)
	case said.Kind == oci.Invalid, said.Kind == oci.Busy:
		// the place is well: it does not understand the question, or has no time
	default:
		p.failed(said.Reason, said.RetryAfter)
	}
	if p.own {
		own := *said
		own.Registry = e.ref.Registry
		e.own = &own
		return false
	}
	what := *said
	what.Registry, what.Inside = p.host, ""
	e.failed = append(e.failed, what.Error())
	e.site.log.InfoContext(ctx, "mirror passed over", "registry", e.ref.Registry, "image", e.ref.Repository, "mirror", p.host,
		"digest", e.ref.Digest.String(), "tag", e.ref.Tag, "cut", cut, "error", what.Error())
	return false
}

// lie notes that a mirror sent wrong bytes for ref's digest: all of them, or a part of what
// came out wrong.
func (s *site) lie(p *place, ref oci.Ref, all bool) {
	s.grudges.lie(p.host, ref)
	if all {
		p.lied()
	}
	s.log.Warn("mirror sent wrong bytes", "registry", ref.Registry, "image", ref.Repository, "digest", ref.Digest.String(), "mirror", p.host, "alone", all)
}

// error is what an errand without an answer ends with: the registry's own error, with what
// the mirrors said as a part of its cause.
func (e *errand[T]) error() error {
	own := &oci.Error{Kind: oci.Timeout, Registry: e.ref.Registry, Host: e.ref.Registry, Reason: errSlow.Error()}
	if said, ok := oci.AsError(e.own); ok {
		copied := *said
		own = &copied
	}
	if len(e.failed) > 0 {
		mirrors := "mirrors: " + strings.Join(e.failed, "; ")
		if own.Err != nil {
			own.Err = fmt.Errorf("%w; %s", own.Err, mirrors)
		} else {
			own.Err = errors.New(mirrors)
		}
	}
	return own
}

// named gives an error the name of the registry that was asked for.
func (e *errand[T]) named(err error) error {
	said, ok := oci.AsError(err)
	if !ok || said.Registry == e.ref.Registry {
		return err
	}
	named := *said
	named.Registry = e.ref.Registry
	return &named
}

// failure is the reason of an error, for people.
func failure(err error) string {
	if said, ok := oci.AsError(err); ok {
		return said.Reason
	}
	return "the request failed"
}
