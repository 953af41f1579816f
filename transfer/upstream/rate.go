package upstream

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

const (
	// steps is in how many steps the bytes of a second come at least. Of many blobs that
	// share a rate, each gets on several times a second.
	steps = 64
	// minStep and maxStep bound a step, in bytes.
	minStep, maxStep = 1 << 10, 256 << 10
)

// newLimiter returns what bounds the blobs of a registry to so many bytes a second, all of
// them together; nil, no bound, if that is 0.
func newLimiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(perSecond/steps, minStep), maxStep)))
}

// A ratedBody is a blob's body that is read no faster than its limiter lets it.
type ratedBody struct {
	io.ReadCloser
	ctx     context.Context // of the request
	limiter *rate.Limiter
}

// Read implements io.Reader. It reads a step at most, and then waits until that is due.
func (b *ratedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.limiter.Burst())])
	if waited := b.limiter.WaitN(b.ctx, n); waited != nil && err == nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}
