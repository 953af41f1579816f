package upstream

import (
	"context"
	"errors"
	"io"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// read returns the body of a whole answer, at most limit bytes, and closes the answer.
func read(ctx context.Context, a *answer, limit int64) ([]byte, error) {
	if f := readable(a, limit); f != nil {
		return nil, f
	}
	return readContent(ctx, a, limit)
}

// readContent returns the body, at most limit bytes, and closes the answer.
func readContent(ctx context.Context, a *answer, limit int64) ([]byte, error) {
	defer a.resp.Body.Close()
	bytes, err := wait.ReadAll(ctx, a.resp.Body, a.resp.ContentLength, limit)
	if errors.Is(err, wait.ErrFull) {
		return nil, &failure{cause: oci.BusyError(a.home.host, wait.ErrFull), again: never}
	}
	if err := wasRead(ctx, a, int64(len(bytes)), limit, err); err != nil {
		return nil, err
	}
	return bytes, nil
}

// copyTo writes the body of a whole answer, at most limit bytes, and closes the answer.
func copyTo(ctx context.Context, a *answer, to oci.Sink, limit int64) error {
	if f := readable(a, limit); f != nil {
		return f
	}
	defer a.resp.Body.Close()
	to.Reset()
	n, err := io.Copy(to, io.LimitReader(a.resp.Body, limit+1))
	return wasRead(ctx, a, n, limit, err)
}

// readable returns a failure, and closes the answer, unless it is whole and of at most
// limit bytes.
func readable(a *answer, limit int64) error {
	if !a.isWhole() {
		return a.refused()
	}
	if a.resp.ContentLength > limit {
		_ = a.resp.Body.Close() // nothing of it is wanted
		return a.tooLarge()
	}
	return nil
}

// wasRead returns the failure that reading n bytes of at most limit ended with.
func wasRead(ctx context.Context, a *answer, n, limit int64, err error) error {
	switch {
	case err != nil:
		return broken(a.home, a.resp.Request.WithContext(ctx), &trip{connected: true}, err)
	case n > limit:
		return a.tooLarge()
	default:
		return nil
	}
}
