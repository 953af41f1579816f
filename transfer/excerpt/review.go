package excerpt

import (
	"context"
	"hash/maphash"
	"slices"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// maxNotes bounds the pieces of one blob that are remembered.
const maxNotes = 64

// A note is what a piece was that came, and from where.
type note struct {
	oci.Span
	sum  uint64
	host string
}

// seed is for the sums of this process.
var seed = maphash.MakeSeed()

// remember notes what a piece was, to be compared once the blob is whole.
func (b *bills) remember(c oci.Content, at oci.Span, p *piece) {
	sum := maphash.Bytes(seed, p.bytes)
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.at(c)
	if len(one.notes) < maxNotes {
		one.notes = append(slices.Clip(one.notes), note{at, sum, p.from.Host})
		b.put(c, one)
	}
}

// notes returns what is remembered of a blob's pieces, and forgets it.
func (b *bills) notes(c oci.Content) []note {
	b.mu.Lock()
	defer b.mu.Unlock()
	one, ok := b.of.Peek(c)
	if !ok || len(one.notes) == 0 {
		return nil
	}
	noted := one.notes
	one.notes = nil
	b.of.Add(c, one)
	return noted
}

// Review compares what was sent of q's blob by ranges lately with the blob, now that it
// is here and verified. It does so on its own time: open opens the blob. What differs is
// logged: somebody has got wrong bytes.
func (x *Excerpts) Review(q grants.Request, open func() (cache.Blob, error)) {
	noted := x.bills.notes(q.Content())
	if len(noted) == 0 {
		return
	}
	x.cfg.Life.Go(func() {
		b, err := open()
		if err != nil {
			return // it has left the shard
		}
		defer func() { _ = b.Close() }() // only read
		for _, n := range noted {
			if !n.holds(x.cfg.Life.Context(), b) {
				x.cfg.Log.Warn("a range was served whose bytes are not the blob's", "registry", q.Registry, "image", q.Repository,
					"digest", q.Digest.String(), "offset", n.Offset, "length", n.Length, "upstream_host", n.host)
			}
		}
	})
}

// holds reports whether the piece was what the blob has there, as far as can be read.
func (n note) holds(ctx context.Context, b cache.Blob) bool {
	var h maphash.Hash
	h.SetSeed(seed)
	if _, err := b.Send(ctx, &h, n.Offset, n.Length); err != nil {
		return true
	}
	return h.Sum64() == n.sum
}
