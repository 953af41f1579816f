package flight

import (
	"context"
	"errors"
	"io"
	"sync"

	"oci-proxy/cache"
)

const (
	// trickle is how many bytes a download reads at once while little comes. A download
	// that stands still holds no more memory than that.
	trickle = 16 << 10
	// readSize is how many bytes are read, hashed and written at once where more comes.
	readSize = 1 << 20
	// largeReads bounds the downloads that read so much at once. More make smaller steps.
	largeReads = 8
)

// large are the buffers that downloads read into while much comes. A nil one is made
// when it is first needed.
var large = func() chan []byte {
	c := make(chan []byte, largeReads)
	for range largeReads {
		c <- nil
	}
	return c
}()

// small are the buffers that downloads read into while little comes.
var small = sync.Pool{New: func() any { return new([trickle]byte) }}

// A reading is what one download reads into.
type reading struct {
	small *[trickle]byte
	large []byte // nil: little comes, or others have all of them
}

// buffer is what to read into next.
func (r *reading) buffer() []byte {
	if r.large != nil {
		return r.large
	}
	return r.small[:]
}

// adapt hears that n bytes came at once.
func (r *reading) adapt(n int) {
	switch {
	case n < trickle:
		r.free()
	case r.large == nil:
		select {
		case r.large = <-large:
			if r.large == nil {
				r.large = make([]byte, readSize)
			}
		default:
		}
	}
}

// free gives the large buffer back.
func (r *reading) free() {
	if r.large != nil {
		large <- r.large
		r.large = nil
	}
}

// copyBody reads body to its end into the ingest.
func copyBody(ctx context.Context, in *cache.Ingest, body io.Reader) error {
	r := reading{small: small.Get().(*[trickle]byte)}
	defer func() {
		r.free()
		small.Put(r.small)
	}()
	for {
		buf := r.buffer()
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := in.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if size := in.Size(); size >= 0 && in.Offset() < size {
				return io.ErrUnexpectedEOF
			}
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		r.adapt(n)
	}
}
