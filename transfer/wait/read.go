package wait

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// claimKey is the key of a context's Claim.
type claimKey struct{}

// WithClaim returns a context in which [ReadAll] claims its memory. The claim belongs
// to whoever reads there.
func WithClaim(ctx context.Context, c *Claim) context.Context {
	return context.WithValue(ctx, claimKey{}, c)
}

// firstRead is how many bytes ReadAll makes place for at first.
const firstRead = 16 << 10

// ReadAll reads r to its end and at most limit+1 bytes, so that the caller sees when
// there are more than limit. told is how many bytes r is said to bring, -1 if that is
// not known; it only makes reading cheaper. The memory is claimed as the bytes come,
// from ctx's Claim if there is one. If it can't be had while ctx lasts the error is
// ErrFull, since that is why r was not read in time; ErrTooLarge is as for Grow.
func ReadAll(ctx context.Context, r io.Reader, told, limit int64) ([]byte, error) {
	claim, _ := ctx.Value(claimKey{}).(*Claim)
	var all []byte
	for {
		free := all[len(all):cap(all)]
		var more [1]byte
		if len(free) == 0 {
			free = more[:] // perhaps that was all
		}
		n, err := r.Read(free)
		if n > 0 && len(all) == cap(all) {
			var failed error
			if all, failed = enlarge(ctx, claim, all, told, limit); failed != nil {
				return nil, failed
			}
			all = append(all, more[:n]...)
		} else {
			all = all[:len(all)+n]
		}
		switch {
		case errors.Is(err, io.EOF), int64(len(all)) > limit:
			return all, nil
		case err != nil:
			return all, err
		}
	}
}

// enlarge makes place for more bytes: twice as many as there are, but hardly more than
// were told or can come.
func enlarge(ctx context.Context, claim *Claim, all []byte, told, limit int64) ([]byte, error) {
	n := max(2*int64(len(all)), firstRead)
	if have := int64(len(all)); told > have {
		n = min(n, told)
	}
	n = min(n, limit+1)
	if claim != nil {
		if err := claim.cover(ctx, n); err != nil {
			return nil, err
		}
	}
	return append(make([]byte, 0, n), all...), nil
}

// cover makes the claim hold n bytes, or as many as a claim may hold.
func (c *Claim) cover(ctx context.Context, n int64) error {
	err := c.Grow(ctx, min(n, c.budget.Largest())-c.held)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", ErrFull, err)
	}
	return err
}
