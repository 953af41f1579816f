package testkit

import (
	"context"
	"errors"
	"io"
	"time"
)

// A Manner is how a made-up server behaves. The zero value answers at once. Its times are
// those of the bubble that it is used in.
type Manner struct {
	Delay time.Duration // until an answer begins
	Hangs bool          // nothing ever answers
	Rate  int64         // bytes a second of bodies; 0: all at once
	Still int64         // after so many bytes of a body nothing comes any more; 0: all comes
	Cut   int64         // after so many bytes of a body the connection ends; 0: it does not
}

// Begin waits until an answer begins. The error is why ctx has ended before.
func (m Manner) Begin(ctx context.Context) error {
	wait := time.After(m.Delay)
	if m.Hangs {
		wait = nil
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Body is a body that comes in the server's manner, until ctx ends.
func (m Manner) Body(ctx context.Context, all []byte) io.ReadCloser {
	return io.NopCloser(&flow{ctx: ctx, left: all, manner: m})
}

// A flow is a body that comes at its server's speed.
type flow struct {
	ctx    context.Context
	left   []byte
	sent   int64
	manner Manner
}

// piece is how much of a body comes at a time at most, in bytes.
const piece = 32 << 10

func (f *flow) Read(p []byte) (int, error) {
	n := min(len(p), len(f.left), piece)
	switch {
	case len(f.left) == 0:
		return 0, io.EOF
	case f.manner.Cut > 0 && f.sent+int64(n) > f.manner.Cut:
		return 0, errors.New("cut")
	}
	var pause <-chan time.Time
	if f.manner.Still == 0 || f.sent < f.manner.Still {
		pause = time.After(0)
		if f.manner.Rate > 0 {
			pause = time.After(time.Duration(int64(n) * int64(time.Second) / f.manner.Rate))
		}
	}
	select {
	case <-pause:
	case <-f.ctx.Done():
		return 0, context.Cause(f.ctx)
	}
	copy(p, f.left[:n])
	f.left, f.sent = f.left[n:], f.sent+int64(n)
	return n, nil
}
