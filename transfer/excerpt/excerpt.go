// Package excerpt gets ranges of blobs by themselves, for readers that do not want
// the whole: lazy ones, and those that are far ahead of a download.
//
// [Excerpts.Open] decides by simple rules whether ranges are worth that (bill.go),
// and gets the first bytes. An [Excerpt] is then read as any blob is. It comes in
// pieces of up to a MiB, each asked of the registry, or of the node that leads, once
// for all who want it at the time (fetch.go). Pieces stay on a shelf in memory for a minute,
// since the readers of an image begin with the same ones (shelf.go).
//
// Nobody can verify a range: a digest names the whole. So what comes here never gets
// into the shard. If the whole comes later, the two are compared (review.go).
// docs/security.md says what that means for clients.
package excerpt

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"oci-proxy/transfer/count"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// PieceSize is how many bytes are asked for at once at most.
	PieceSize = 1 << 20
	// ahead is how many pieces are asked for at most beside the one that is sent.
	ahead = 3
	// maxHeld bounds the bytes that all excerpts hold together while they are sent.
	maxHeld = 32 << 20
)

// Errors that a caller decides on.
var (
	// ErrWhole: the ranges are not worth being got by themselves, or can't be. Get the
	// whole blob.
	ErrWhole = errors.New("the whole blob is to be got")
	// ErrBroke: the rest of an excerpt can't be got. The whole blob has it, too.
	ErrBroke = errors.New("a range of the blob can't be got by itself")
)

// Config is what Excerpts work with. All fields are needed.
type Config struct {
	Upstream oci.Upstream
	Mesh     *mesh.Mesh
	Grants   *grants.Grants
	Life     *wait.Life    // that requests belong to
	Within   time.Duration // how long getting a piece may take
	Counters *count.Book
	Log      *slog.Logger
}

// Excerpts get ranges of blobs. Their methods may be called from any goroutine.
type Excerpts struct {
	cfg   Config
	calls *wait.Calls[key, *piece]
	shelf *shelf
	bills *bills
	held  *budget
}

// New returns Excerpts. What they ask for ends with cfg.Life.
func New(cfg Config) *Excerpts {
	return &Excerpts{
		cfg: cfg, calls: wait.NewCalls[key, *piece](cfg.Life, cfg.Within),
		shelf: newShelf(), bills: newBills(), held: &budget{free: maxHeld},
	}
}

// Learn notes a blob's size in bytes as its registry tells it.
func (x *Excerpts) Learn(c oci.Content, size int64) { x.bills.learn(c, size) }

// Size returns what Learn noted lately, -1 if it was nothing.
func (x *Excerpts) Size(c oci.Content) int64 { return x.bills.size(c) }

// Open opens spans of q's blob, which lie within its size and do not overlap. It gets
// the first piece. member says that another node asks: then this node asks the registry
// itself. The error is ErrWhole, an *oci.Error, a *mesh.PeerError or ctx's. Whoever
// asks must be one to whom the registry may deliver for q. Close the Excerpt.
func (x *Excerpts) Open(ctx context.Context, q grants.Request, size int64, spans []oci.Span, member bool) (*Excerpt, error) {
	if !within(spans, size) {
		return nil, ErrWhole
	}
	e := &Excerpt{all: x, request: q, size: size, plan: pieces(spans), member: member}
	total := int64(0)
	for _, p := range e.plan {
		e.holds = max(e.holds, p.Length)
		if x.shelved(q, x.key(q, p, member)) == nil {
			total += p.Length
		}
	}
	if !x.bills.take(q.Content(), size, total) {
		return nil, ErrWhole
	}
	if !x.held.take(e.holds) {
		x.bills.giveBack(q.Content(), total)
		return nil, ErrWhole
	}
	if err := e.turn(ctx, spans[0].Offset); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// pieces returns the pieces that the spans come in.
func pieces(spans []oci.Span) (plan []oci.Span) {
	for _, s := range spans {
		for off := s.Offset; off < s.End(); off += PieceSize {
			plan = append(plan, oci.Span{Offset: off, Length: min(PieceSize, s.End()-off)})
		}
	}
	return plan
}

// within reports whether there are spans, none is empty, and all lie within a blob of
// that size and are no more than it together.
func within(spans []oci.Span, size int64) bool {
	total := int64(0)
	for _, s := range spans {
		if s.Offset < 0 || s.Length <= 0 || s.Length > size || s.Offset > size-s.Length {
			return false
		}
		if total += s.Length; total > size {
			return false
		}
	}
	return total > 0
}
