package archive

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// errLate is the cause of a request to the bucket that took too long.
var errLate = errors.New("no answer in time")

// errLost is the cause of a request that another was faster than.
var errLost = errors.New("the other one has answered")

// A question is asked of the bucket and of the registry.
type question[T any] struct {
	ref              oci.Ref
	bucket, registry func(ctx context.Context) (T, error)
	drop             func(T)                     // lets go of an answer that nobody wants
	hold             func(T, context.CancelFunc) // ends the context of an answer when that is done with
}

// An attempt is a question under way to one of the two.
type attempt[T any] struct {
	done  chan struct{} // closed when value and err are there
	value T
	err   error
	end   context.CancelCauseFunc
}

// begin begins an attempt.
func begin[T any](ctx context.Context, life *wait.Life, fn func(context.Context) (T, error)) *attempt[T] {
	own, end := context.WithCancelCause(ctx)
	t := &attempt[T]{done: make(chan struct{}), end: end}
	if !life.Go(func() {
		defer close(t.done)
		t.value, t.err = fn(own)
	}) {
		t.err = wait.ErrClosed
		close(t.done)
	}
	return t
}

// within reports whether the attempt is done before d has passed and ctx has ended.
func (t *attempt[T]) within(ctx context.Context, d time.Duration) bool {
	_ = wait.Until(ctx, t.done, d) // what is done says more
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// leave ends an attempt whose answer nobody wants, for a reason. It returns when nothing of
// it is under way: it may use the caller's memory.
func (t *attempt[T]) leave(q question[T], why error) {
	t.end(why)
	<-t.done
	if t.err == nil {
		q.drop(t.value)
	}
}

// answer is what an attempt brought that is done.
func (t *attempt[T]) answer(q question[T]) (T, error) {
	if t.err != nil {
		t.end(nil)
		return t.value, t.err
	}
	q.hold(t.value, func() { t.end(nil) })
	return t.value, nil
}

// ask asks the bucket, and the registry if the bucket has no answer, or none in time.
func ask[T any](ctx context.Context, a *Archive, q question[T]) (T, error) {
	if !a.looking.inUse() {
		return askLast(ctx, a, q)
	}
	first := begin(ctx, a.life, q.bucket)
	switch {
	case !first.within(ctx, hedge):
		return race(ctx, a, q, first)
	case first.err == nil:
		a.looking.answered()
		return first.answer(q)
	}
	first.end(nil)
	a.note(ctx, q.ref, first.err)
	v, err := askRegistry(ctx, a, q)
	return v, withCause(err, first.err)
}

// askRegistry asks the registry alone.
func askRegistry[T any](ctx context.Context, a *Archive, q question[T]) (T, error) {
	v, err := q.registry(ctx)
	if ctx.Err() == nil {
		a.standings.asked(q.ref.Registry, !passing(err))
	}
	return v, err
}

// race asks the registry as well, since the bucket is late, and takes the first answer. What
// the registry says no to is final, as always.
func race[T any](ctx context.Context, a *Archive, q question[T], first *attempt[T]) (T, error) {
	limit := time.AfterFunc(patience-hedge, func() { first.end(errLate) })
	defer limit.Stop()
	second := begin(ctx, a.life, func(ctx context.Context) (T, error) { return askRegistry(ctx, a, q) })
	select {
	case <-first.done:
	case <-second.done:
		if !passing(second.err) {
			if ctx.Err() == nil {
				a.looking.failed("the registry was faster: "+errLate.Error(), false)
			}
			first.leave(q, errLost)
			return second.answer(q)
		}
		<-first.done // in patience
	}
	if first.err == nil {
		second.leave(q, errLost)
		a.looking.answered()
		return first.answer(q)
	}
	first.end(nil)
	a.note(ctx, q.ref, first.err)
	<-second.done // it knows its own time
	v, err := second.answer(q)
	return v, withCause(err, first.err)
}

// askLast asks the registry, since the bucket is out of use, and the bucket all the same if
// the registry fails.
func askLast[T any](ctx context.Context, a *Archive, q question[T]) (T, error) {
	a.probe()
	v, err := askRegistry(ctx, a, q)
	if !passing(err) || ctx.Err() != nil {
		return v, err
	}
	last := begin(ctx, a.life, q.bucket)
	if last.within(ctx, lastFor) && last.err == nil {
		a.looking.answered()
		return last.answer(q)
	}
	last.leave(q, errLate)
	return v, withCause(err, last.err)
}

// note draws the consequences of what the bucket answered, unless its asker has gone.
func (a *Archive) note(ctx context.Context, ref oci.Ref, err error) {
	switch {
	case errors.Is(err, errMissing):
		a.looking.answered()
		a.notes.lacks(a.key(ref))
	case ctx.Err() == nil && a.life.Context().Err() == nil:
		a.looking.failed(err.Error(), false)
		a.log.InfoContext(ctx, "archive passed over", "registry", ref.Registry, "image", ref.Repository, "digest", ref.Digest.String(), "error", err)
	}
}

// probe asks a bucket that is out of use whether it is back, unless it is to rest. Nobody
// waits for that.
func (a *Archive) probe() {
	if _, now := a.looking.due(); !now {
		return
	}
	if !a.life.Go(func() {
		ctx, cancel := context.WithTimeoutCause(a.life.Context(), probeFor, errLate)
		defer cancel()
		began := time.Now()
		o, err := a.bucket.get(ctx, path.Join(a.bucket.Prefix, "probe"), 0) // a HEAD would not tell what is wrong
		if err == nil {
			_ = o.Close() // there is no such object, but there might be
		}
		switch {
		case err != nil && !errors.Is(err, errMissing):
			a.looking.tried(err.Error())
		case time.Since(began) > hedge:
			a.looking.tried("its answers take more than " + hedge.String())
		default:
			a.looking.answered()
			a.looking.tried("")
		}
	}) {
		a.looking.tried("")
	}
}

// there reports whether the bucket has what ref names, while the registry fails.
func (a *Archive) there(ctx context.Context, ref oci.Ref) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, lastFor, errLate)
	defer cancel()
	has, err := a.bucket.has(ctx, a.key(ref))
	if err == nil {
		a.looking.answered()
	}
	return err == nil && has
}

// passing reports whether a registry failed in a way that may pass.
func passing(err error) bool {
	said, ok := oci.AsError(err)
	return ok && said.Passing()
}

// withCause is the registry's error, with what the bucket said as a part of its cause if
// that is more than that it has nothing.
func withCause(err, bucket error) error {
	said, ok := oci.AsError(err)
	if !ok || bucket == nil || errors.Is(bucket, errMissing) {
		return err
	}
	both := *said
	if both.Err = fmt.Errorf("archive: %w", bucket); said.Err != nil {
		both.Err = fmt.Errorf("%w; archive: %w", said.Err, bucket)
	}
	return &both
}
