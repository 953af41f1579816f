package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// An Answer is a blob for a client. Close it.
type Answer struct {
	oci.Provenance
	Redirect string // set where the registry's redirect goes to the client; there is no blob then

	fetcher *Fetcher
	ref     oci.Ref
	acts    bool // it is for a member,
	held    bool // which wants no more than what is held
	blob    cache.Blob
	flight  *flight      // that blob follows, nil for a hit
	boarded []*flight    // all that it was aboard
	used    bool         // bytes of blob have been sent
	past    []cache.Blob // what was read before, and failed in mid-response
	doubts  []cache.Blob // the same, of which bytes were sent before they were known to be right
}

// Blob opens the blob that ref names, for a client's GET: from the shard, or
// as it arrives. It returns once the first bytes can be sent, at the latest
// after 40 s; errors are *Error, or ctx's. It counts as a hit or a miss of the
// registry.
func (f *Fetcher) Blob(ctx context.Context, ref oci.Ref) (*Answer, error) {
	a, err := f.open(ctx, f.ticket(ref))
	if err != nil {
		return nil, err
	}
	f.counters.count(ref.Registry, a.Origin)
	return a, nil
}

// attempts bounds how often a request boards a flight: more than once if the
// blob landed in between, if the flight was begun by a request for another
// repository, which may lack the blob, and if what came was not what the digest
// names.
const attempts = 4

// open opens a blob wherever it is.
func (f *Fetcher) open(ctx context.Context, t *ticket) (*Answer, error) {
	wait, cancel := inTime(ctx, t.Ref)
	defer cancel()
	var last error
	wrong := false // what came was not what the digest names: once more, and no more
	for range attempts {
		b, err := f.fromShard(wait, t)
		if err != nil {
			return nil, f.explain(ctx, t.Ref, "", err)
		}
		if b != nil {
			return &Answer{Provenance: oci.Provenance{Origin: oci.Hit, At: f.wordAt(t.Ref)}, fetcher: f, ref: t.Ref, acts: t.acts, held: t.Held, blob: b}, nil
		}
		a, again, err := f.follow(wait, t)
		if err == nil {
			return a, nil
		}
		last = err
		lied := errors.Is(err, cache.ErrDigest)
		if !again || wait.Err() != nil || lied && wrong {
			break
		}
		wrong = wrong || lied
	}
	return nil, f.explain(ctx, t.Ref, t.host(), last)
}

// fromShard opens a blob that the shard holds and may serve to who asks, nil
// if there is none.
func (f *Fetcher) fromShard(ctx context.Context, t *ticket) (cache.Blob, error) {
	if t.Held {
		if !f.holds(t.Ref) || !f.gives(t.Ref, t.Terms) {
			return nil, nil
		}
	} else if ok, err := f.mayShow(ctx, t); !ok {
		return nil, err
	}
	if b, err := f.cfg.Store(t.Registry).Open(t.Digest); err == nil {
		return b, nil
	}
	return nil, nil // a shard that can't serve it has not got it
}

// mayShow is admits for a ticket. Where what is held may not be shown the
// registry has to deliver it, which is no news to the ticket then.
func (f *Fetcher) mayShow(ctx context.Context, t *ticket) (bool, error) {
	_, held := f.cfg.Store(t.Registry).Stat(t.Digest)
	ok, err := f.admits(ctx, t.Ref, true)
	t.landed = t.landed || held && !ok
	return ok, err
}

// follow boards a flight and waits for its first bytes. again says that after
// the error another attempt makes sense.
func (f *Fetcher) follow(ctx context.Context, t *ticket) (a *Answer, again bool, err error) {
	fl, joined, err := f.board(t)
	if err != nil {
		return nil, errors.Is(err, errLanded), err
	}
	a = &Answer{fetcher: f, ref: t.Ref, acts: t.acts, held: t.Held, flight: fl, boarded: []*flight{fl}}
	a.blob, err = fl.in.Follow(ctx)
	a.Provenance = fl.way()
	a.Collapsed, a.Stored = joined, fl.in.Keeping()
	if err == nil {
		err = f.weigh(ctx, t, a.blob)
	}
	if err == nil {
		return a, false, nil
	}
	if a.blob != nil {
		_ = a.blob.Close() // only read
		a.blob = nil
	}
	if r, ok := errors.AsType[*errRedirected](err); ok {
		a.Redirect = r.location
		return a, false, nil
	}
	f.getOff(fl)
	strange := fl.ref != t.Ref
	t.not, t.own = fl, t.own || strange
	if e, ok := oci.AsError(err); ok {
		return nil, strange && !e.Passing(), err
	}
	again = errors.Is(err, cache.ErrDigest) || errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrAbandoned)
	return nil, again, err
}

const (
	// small is the size of blobs that no client gets a byte of before they are
	// known to be right, so that it sees nothing of a registry that lies. To send
	// so much takes 35 ms over a gigabit, which is the price.
	small = 4 << 20
	// weighing is how long that is waited for. A small blob that takes longer is
	// sent as it comes.
	weighing = 2 * time.Second
)

// weigh waits for the verdict on a small blob that arrives for a client. It
// fails if that is bad. Members judge for themselves.
func (f *Fetcher) weigh(ctx context.Context, t *ticket, b cache.Blob) error {
	if size := b.Size(); t.acts || size < 0 || size > small {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, weighing)
	defer cancel()
	if err := b.Verdict(ctx); errors.Is(err, cache.ErrDigest) {
		return err
	}
	return nil // it is right, it may still be, or it breaks off, which Send says
}

// Size returns the blob's size in bytes, -1 if upstream has not told.
func (a *Answer) Size() int64 { return a.blob.Size() }

// Send writes the bytes [off, off+n) of the blob to w, as cache.Blob does. If
// the blob turns out to be damaged on disk, or the reader falls behind, the
// same response goes on from elsewhere.
func (a *Answer) Send(ctx context.Context, w io.Writer, off, n int64) (sent int64, err error) {
	if a.acts {
		a.fetcher.streams.Add(1)
		defer func() { a.fetcher.toPeer(a.ref.Registry, sent) }()
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
			moves = 0 // who gets on is not stuck, however often others overtake it
		}
		switch {
		case err == nil:
			return off - start, nil
		case errors.Is(err, cache.ErrDigest) && !wrong && len(a.doubts) == 0:
			wrong = true // a registry that lies again has lied enough
			err = a.replace(ctx, from, off, err)
		case elsewhere(err) && moves < attempts && n >= 0:
			err = a.move(ctx, err)
		}
		if err != nil {
			return off - start, err
		}
		from = off
	}
}

// elsewhere reports whether err leaves hope that the response can go on from
// another copy of the blob.
func elsewhere(err error) bool {
	return errors.Is(err, cache.ErrDamaged) || errors.Is(err, cache.ErrBehind) || errors.Is(err, cache.ErrAbandoned)
}

// send sends from where the blob is now. A response that was sent in parts
// reaches the blob's end only when every part is known to be right.
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

// move opens the blob anew because reading it failed with cause. A member that
// wants what is held goes on elsewhere itself: this node might have to follow it.
func (a *Answer) move(ctx context.Context, cause error) error {
	if a.held {
		return cause
	}
	a.fetcher.cfg.Log.Warn("response goes on from elsewhere", "registry", a.ref.Registry, "digest", a.ref.Digest.String(), "cause", cause)
	t := a.fetcher.ticket(a.ref)
	t.not, t.acts = a.flight, a.acts
	if errors.Is(cause, cache.ErrDamaged) {
		t.damaged = a.blob
	}
	next, err := a.fetcher.open(ctx, t)
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

// replace moves to another copy of a blob that has turned out to be wrong, if
// what was sent of it, [from, off), is right all the same: there are more bytes
// that were not sent, where one was wrong. Then the client sees nothing of it.
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
	if _, err := a.blob.Send(ctx, &equal{to: io.NewSectionReader(sent, from, off-from)}, from, off-from); err != nil {
		return errors.Join(cause, err)
	}
	return nil
}

// An equal takes the bytes that it reads elsewhere, and no others.
type equal struct {
	to  io.Reader
	buf []byte
}

// errOther: the bytes are not the same.
var errOther = errors.New("other bytes were sent")

// Write implements io.Writer.
func (e *equal) Write(p []byte) (int, error) {
	e.buf = slices.Grow(e.buf[:0], len(p))[:len(p)]
	if _, err := io.ReadFull(e.to, e.buf); err != nil {
		return 0, err
	}
	if !bytes.Equal(e.buf, p) {
		return 0, errOther
	}
	return len(p), nil
}

// settle lets those doubts go that are none any more: a client that is overtaken
// again and again must not hold on to each blob that it was overtaken in.
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
func (a *Answer) Close() error {
	var errs []error
	for _, b := range slices.Concat(a.past, a.doubts) {
		errs = append(errs, b.Close())
	}
	if a.blob != nil {
		errs = append(errs, a.blob.Close())
	}
	a.fetcher.getOff(a.boarded...)
	a.boarded = nil
	return errors.Join(errs...)
}
