// Package lanes brings a large blob over several connections at once, where a registry
// or the way to it gives each connection only so much.
//
// [Lanes] is an oci.Upstream over another one. Its Open asks for the first bytes of a
// blob alone. If the answer is just those, the rest is asked for in legs, each a range of
// its own, by several lanes side by side (lane.go). What they bring is read as one stream
// in the right order (download.go); legs that came before their turn wait in memory.
//
// How long a leg is depends on what the lanes have measured (pace.go). A lane that may
// begin no other leg takes over one that stands still or crawls, from the byte reached.
// So no byte is asked for twice, but those that were on their way over a connection which
// was given up.
//
// One connection must do as well: for a blob that the first answer holds whole, for a
// registry that does not serve ranges, and while there is no memory. The lanes beside the
// first use only those of the registry's turns that nobody else wants.
package lanes

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// firstLeg is how many bytes the first request of a download asks for. A blob that is
	// no larger comes over one connection.
	firstLeg = 2 * blockSize
	// memory is how many bytes all downloads together hold for readers at most. Half of
	// them are for everybody, half for one download at a time. Where the process has little
	// memory there are fewer, but leastMemory.
	memory      = 96 << 20
	leastMemory = 32 << 20
	// plainFor is how long a registry is asked for no ranges that does not serve them, and
	// a blob comes by the source alone that came by other ways before.
	plainFor = 10 * time.Minute
	// maxNoted bounds what is noted, of a kind.
	maxNoted = 1024
)

// A Source is what lanes ask: an oci.Upstream that can do a bit more.
type Source interface {
	oci.Upstream
	// UpTo returns the bytes of span, or as many of them as there are from its offset on.
	// length is how many come; -1: the stream is the whole blob, or all from the offset on.
	UpTo(ctx context.Context, ref oci.Ref, span oci.Span) (s *oci.Stream, length int64, err error)
	// Turn returns ctx for requests that follow one another and have one turn at the
	// registry together. end gives it back.
	Turn(ctx context.Context) (_ context.Context, end func())
	// FreeTurn is Turn for requests that give way to others: it reports false unless a
	// turn is free and nobody waits for one.
	FreeTurn(ctx context.Context, ref oci.Ref) (_ context.Context, end func(), ok bool)
}

// Lanes are an oci.Upstream that opens large blobs over several connections. All but Open
// is the source's own. They are safe for concurrent use.
type Lanes struct {
	oci.Upstream
	source      Source
	connections func(registry string) int
	ways        func(ref oci.Ref) []oci.Upstream
	memory      *wait.Budget
	plain       *noted // registries that do not serve ranges
	shared      *noted // blobs that came by other ways too
	log         *slog.Logger
}

var _ oci.Upstream = (*Lanes)(nil)

// New returns Lanes over source. connections returns how many connections a blob of a
// registry may have at a time; with less than 2 the source alone does it.
func New(source Source, connections func(registry string) int, log *slog.Logger) *Lanes {
	return &Lanes{
		Upstream: source, source: source, connections: connections, log: log,
		ways:   func(oci.Ref) []oci.Upstream { return nil },
		memory: wait.NewBudget(wait.Memory(leastMemory, memory), 0, 0), plain: newNoted(), shared: newNoted(),
	}
}

// Along returns the same Lanes, but some of those beside the first go by other ways to the
// registry, in turns: ways lists them for a blob. They are asked by Range for wayLeg bytes
// at most. Nobody vouches for what comes by them but the blob's digest. So a blob that is
// asked for again within ten minutes comes by the source alone.
func (l *Lanes) Along(ways func(ref oci.Ref) []oci.Upstream) *Lanes {
	along := *l
	along.ways = ways
	return &along
}

// Open implements oci.Upstream. The stream holds 48 MiB at most. If it fails, what came
// ahead of the byte reached is lost.
func (l *Lanes) Open(parent context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	most := l.connections(ref.Registry)
	if most < 2 || l.plain.has(ref.Registry) {
		return l.source.Open(parent, ref, offset)
	}
	room := &store{claim: l.memory.Claim()}
	if !room.open(parent) {
		return l.source.Open(parent, ref, offset)
	}
	ctx, cancel := context.WithCancelCause(parent)
	first := newLane(ctx, l.source)
	s, length, err := l.source.UpTo(first.asking, ref, oci.Span{Offset: offset, Length: firstLeg})
	next, why := judge(offset, s, length, err)
	if why != "" {
		l.note(ref.Registry, why, err)
	}
	if next == goOn {
		return newDownload(l, ref, room, s, length).start(ctx, cancel, first, l.others(ref, most-1)), nil
	}
	room.close()
	end := func() {
		first.end()
		cancel(nil)
	}
	if next == asItIs {
		return withTurn(s, end), err
	}
	if s != nil {
		_ = s.Body.Close() // nothing of it is wanted
	}
	end()
	return l.source.Open(parent, ref, offset)
}

// others returns n lanes for a blob beside the first one: one goes by the source, then one
// by each other way, and so on.
func (l *Lanes) others(ref oci.Ref, n int) []*lane {
	var ways []oci.Upstream
	if !l.shared.has(ref.Digest.String()) {
		ways = l.ways(ref)
	}
	lanes := make([]*lane, n)
	for i := range lanes {
		lanes[i] = &lane{}
		if at := (i + 1) % (len(ways) + 1); at > 0 {
			lanes[i].way = ways[at-1]
		}
	}
	if len(ways) > 0 {
		l.shared.note(ref.Digest.String())
	}
	return lanes
}

// note notes that a registry is to be asked for no ranges for a while.
func (l *Lanes) note(registry, why string, err error) {
	l.plain.note(registry)
	log := l.log
	if err != nil {
		log = log.With("error", err)
	}
	log.Info("registry asked over one connection for a while", "registry", registry, "for_ms", wait.Milliseconds(plainFor), "reason", why)
}

// What follows from the first answer.
type sequel int

const (
	goOn   sequel = iota // the rest comes in legs
	asItIs               // the answer is what the caller gets
	anew                 // the blob is asked for as if there were no lanes
)

// ignored is what is wrong with an answer that is the whole blob.
const ignored = "the answer to a range is the whole blob"

// judge says what follows from the first answer to a request for bytes from offset on. why
// says what is wrong with how the registry answers ranges, "" if nothing is.
func judge(offset int64, s *oci.Stream, length int64, err error) (next sequel, why string) {
	switch {
	case err != nil && offset == 0 && isEmpty(err):
		return anew, ""
	case err != nil && offset == 0 && refusesRange(err):
		return anew, "a range is refused, or another one came"
	case err != nil, s.Body == nil: // a redirect has no body
		return asItIs, ""
	case length < 0 && s.By == oci.Middlebox: // which says nothing of the registry
		return asItIs, ""
	case length < 0:
		return asItIs, ignored
	case s.Size < 0:
		return anew, "a range does not tell the size of the whole"
	case s.Coding != "":
		return anew, "a range is compressed"
	case offset+length < s.Size:
		return goOn, ""
	default:
		return asItIs, ""
	}
}

// isEmpty reports whether a range from the first byte on is refused as if the blob had none.
func isEmpty(err error) bool {
	e, ok := oci.AsError(err)
	return ok && e.Status == http.StatusRequestedRangeNotSatisfiable
}

// refusesRange reports whether a request may have failed because it was for a range: by a
// status that says so, by an answer with another range, or at a storage whose links are
// good for the whole alone.
func refusesRange(err error) bool {
	e, ok := oci.AsError(err)
	switch {
	case !ok:
		return false
	case e.Status < http.StatusBadRequest:
		return e.Status == http.StatusPartialContent
	default:
		return e.Kind == oci.Invalid || e.By == oci.Storage && e.Kind == oci.Unavailable && e.Status < http.StatusInternalServerError
	}
}

// withTurn returns s, which gives its turn back when it is closed; at once if there is
// nothing to read.
func withTurn(s *oci.Stream, end func()) *oci.Stream {
	if s == nil || s.Body == nil {
		end()
		return s
	}
	s.Body = &turnBody{s.Body, sync.OnceFunc(end)}
	return s
}

// A turnBody has a turn until it is closed.
type turnBody struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (b *turnBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// noted remembers names for ten minutes.
type noted struct {
	mu    sync.Mutex // guards until; never held during I/O
	until *simplelru.LRU[string, time.Time]
}

func newNoted() *noted {
	lru, err := simplelru.NewLRU[string, time.Time](maxNoted, nil)
	if err != nil {
		panic(fmt.Errorf("lanes: %w", err)) // the size is positive
	}
	return &noted{until: lru}
}

// note notes a name.
func (n *noted) note(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.until.Add(name, time.Now().Add(plainFor))
}

// has reports whether the name was noted lately.
func (n *noted) has(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	until, ok := n.until.Get(name)
	return ok && time.Now().Before(until)
}
