package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"oci-proxy/cache"
	"oci-proxy/transfer/count"
	"oci-proxy/transfer/excerpt"
	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/oci"
)

// An Answer is a blob for a client. Close it.
type Answer struct {
	oci.Provenance
	Redirect string // where the registry sends the client; there is no blob then

	blobs   *blobs
	ticket  *flight.Ticket
	blob    cache.Blob
	flight  *flight.Flight   // that blob follows, nil for a hit
	boarded []*flight.Flight // all that it was aboard
	used    bool             // bytes of blob have been sent
	past    []cache.Blob     // what was read before, and failed in mid-response
	doubts  []cache.Blob     // the same, of which bytes were sent before they were known to be right
}

// Size returns the blob's size in bytes, -1 if upstream has not told.
func (a *Answer) Size() int64 { return a.blob.Size() }

// Send writes the bytes [off, off+n) of the blob to w, as cache.Blob does. If the blob
// turns out to be damaged on disk, or the reader falls behind, the same response goes on
// from another copy.
func (a *Answer) Send(ctx context.Context, w io.Writer, off, n int64) (sent int64, err error) {
	if a.ticket.ForMember {
		counted := a.blobs.counters.Of(a.ticket.Registry)
		w = count.Writer(w, &counted.ToPeersBytes)
		a.blobs.streams.Add(1)
		defer func() {
			a.blobs.streams.Add(-1)
			counted.ToPeers.Add(1)
		}()
	}
	if n < 0 && a.Size() >= 0 {
		n = a.Size() - off
	}
	start, end, from, wrong := off, off+n, off, false
	for moves := 0; ; moves++ {
		left := int64(-1)
		if n >= 0 {
			left = end - off
		}
		k, err := a.send(ctx, w, off, left)
		off += k
		a.used = a.used || k > 0
		if k > 0 {
			moves = 0 // a reader that gets on is not stuck, however often others overtake it
		}
		switch {
		case err == nil:
			return off - start, nil
		case errors.Is(err, cache.ErrDigest) && !wrong && len(a.doubts) == 0:
			wrong = true // a registry that lies again has lied enough
			err = a.replace(ctx, from, off, err)
		case anotherCopy(err) && moves < attempts && n >= 0:
			err = a.move(ctx, err)
		}
		if err != nil {
			return off - start, err
		}
		from = off
	}
}

// anotherCopy reports whether the response may go on from another copy of the blob
// after err.
func anotherCopy(err error) bool {
	return errors.Is(err, cache.ErrDamaged) || errors.Is(err, cache.ErrBehind) || errors.Is(err, cache.ErrAbandoned) || errors.Is(err, excerpt.ErrBroke)
}

// send sends from where the blob is now. A response that was sent in parts reaches the
// blob's end only when every part is known to be right.
func (a *Answer) send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	size := a.Size()
	if len(a.doubts) == 0 || n < 0 || off+n < size {
		return a.blob.Send(ctx, w, off, n)
	}
	first := max(0, n-cache.HoldBack)
	k, err := a.blob.Send(ctx, w, off, first)
	if err != nil {
		return k, err
	}
	for _, b := range a.doubts {
		if err := b.Verdict(ctx); err != nil {
			return k, err
		}
	}
	m, err := a.blob.Send(ctx, w, off+k, n-k)
	return k + m, err
}

// move opens the blob anew because reading it failed with cause. A member that asks for
// held content goes on elsewhere itself: this node might have to follow it.
func (a *Answer) move(ctx context.Context, cause error) error {
	if a.ticket.Terms.Held {
		return cause
	}
	a.blobs.log.WarnContext(ctx, "response goes on from another copy", "registry", a.ticket.Registry, "digest", a.ticket.Digest.String(), "cause", cause)
	t := flight.NewTicket(a.ticket.Request)
	t.ForMember = a.ticket.ForMember
	t.Avoid(a.flight)
	if errors.Is(cause, cache.ErrDamaged) {
		t.Damaged = a.blob
	}
	next, err := a.blobs.open(ctx, t)
	if err != nil {
		return err
	}
	if size := a.Size(); next.Redirect != "" || size >= 0 && next.Size() != size {
		return errors.Join(cause, next.Close())
	}
	// The old one stays open: its verdict may be needed, its bytes salvaged.
	a.settle()
	if a.used && a.flight != nil && !errors.Is(cause, cache.ErrDigest) {
		a.doubts = append(a.doubts, a.blob)
	} else {
		a.past = append(a.past, a.blob)
	}
	a.blob, a.flight, a.used = next.blob, next.flight, false
	a.boarded = append(a.boarded, next.boarded...)
	return nil
}

// replace moves to another copy of a blob that has turned out to be wrong, if what was
// sent of it, [from, off), is right all the same: the wrong byte may be among those that
// were not sent. Then the client sees nothing of it.
func (a *Answer) replace(ctx context.Context, from, off int64, cause error) error {
	old := a.blob
	if err := a.move(ctx, cause); err != nil {
		return err
	}
	if off == from {
		return nil
	}
	sent := cache.Rejected(old)
	if sent == nil {
		return cause
	}
	if _, err := a.blob.Send(ctx, &comparison{with: io.NewSectionReader(sent, from, off-from)}, from, off-from); err != nil {
		return errors.Join(cause, err)
	}
	return nil
}

// A comparison takes the bytes that it reads from with, and no others.
type comparison struct {
	with io.Reader
	buf  []byte
}

// errOther: the bytes are not the same.
var errOther = errors.New("other bytes were sent")

// Write implements io.Writer.
func (c *comparison) Write(p []byte) (int, error) {
	c.buf = slices.Grow(c.buf[:0], len(p))[:len(p)]
	if _, err := io.ReadFull(c.with, c.buf); err != nil {
		return 0, err
	}
	if !bytes.Equal(c.buf, p) {
		return 0, errOther
	}
	return len(p), nil
}

// settle lets go of the doubts that have been resolved. A client that is overtaken again
// and again must not hold on to each blob that it was overtaken in.
func (a *Answer) settle() {
	now, cancel := context.WithCancel(context.Background())
	cancel() // nothing is waited for
	a.doubts = slices.DeleteFunc(a.doubts, func(b cache.Blob) bool {
		if b.Verdict(now) != nil {
			return false
		}
		_ = b.Close() // only read
		return true
	})
}

// Close lets the blob go.
func (a *Answer) Close() (err error) {
	for _, left := range [][]cache.Blob{a.past, a.doubts} {
		for _, b := range left {
			err = errors.Join(err, b.Close())
		}
	}
	if a.blob != nil {
		err = errors.Join(err, a.blob.Close())
	}
	a.blobs.flights.GetOff(a.boarded...)
	a.boarded = nil
	return err
}
