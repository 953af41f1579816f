package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/wait"
)

const (
	// copyRate is how many bytes a second this node takes at most of what nobody asked
	// it for.
	copyRate = 50 << 20
	// busyCopyRate is that while requests wait for downloads here.
	busyCopyRate = copyRate / 10
	// copyWidth is how many such blobs it takes at a time. So many more offers wait for
	// their turn, each for that long at most: when a member has died, all others offer at once.
	copyWidth    = 2
	copyQueue    = 64
	copyPatience = 5 * time.Second
	// copyStep is how many bytes it takes at once.
	copyStep = 256 << 10
)

// errTaking: as many blobs are taken as may be at a time.
var errTaking = errors.New("this node takes others at the moment")

// TakeCopy is Flights.Take for a blob that nobody asked this node for: slowly, behind what
// requests wait for, and only into room beside what is this node's to keep. It goes
// before all that somebody asked for. size is the blob's as its holder tells it, 0 if it
// does not: without room for that nothing is asked of the holder. nil means that this node
// has it, or is getting it.
func TakeCopy(ctx context.Context, f *Flights, from mesh.Peer, q grants.Request, mediaType string, size int64) error {
	if _, held := q.Shard.Stat(q.Digest); held || f.Aboard(q.Content()) > 0 {
		return nil // or a flight brings it for those who asked
	}
	if size > 0 && !q.Shard.HasRoomBeside(q.Registry, size) {
		return fmt.Errorf("%w: %w", mesh.ErrUnwanted, errNoRoom)
	}
	if !f.pace.enter(ctx) {
		return &mesh.PeerError{Peer: f.cfg.Mesh.Self(), Busy: true, Err: errTaking}
	}
	defer f.pace.leave()
	err := take(ctx, f, from, q, mediaType, handed{
		pace: func(ctx context.Context, r io.Reader) io.Reader { return &pacedReader{ctx, r, f} },
		as:   func(in *cache.Ingest) { in.Copy(f.cfg.Mesh.Leads(q.Registry, q.Digest.String())) },
	})
	if errors.Is(err, errNoRoom) {
		return fmt.Errorf("%w: %w", mesh.ErrUnwanted, err)
	}
	return err
}

// A pace is that of all copies that this node takes.
type pace struct {
	slots chan struct{} // of those being taken
	queue chan struct{} // of those that wait for their turn

	mu   sync.Mutex // guards the field below; never held while waiting
	next time.Time  // when more may be taken
}

func newPace() *pace {
	return &pace{slots: make(chan struct{}, copyWidth), queue: make(chan struct{}, copyQueue)}
}

// enter waits for a turn, and reports whether it came in time. Call leave afterwards.
func (p *pace) enter(ctx context.Context) bool {
	select {
	case p.queue <- struct{}{}:
		defer func() { <-p.queue }()
	default:
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, copyPatience)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave ends a turn.
func (p *pace) leave() { <-p.slots }

// after notes that n bytes were taken at so many a second, and returns how long to wait
// before more are.
func (p *pace) after(n, perSecond int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
	return p.next.Sub(now)
}

// A pacedReader is read at the pace of copies.
type pacedReader struct {
	ctx     context.Context
	from    io.Reader
	flights *Flights
}

// Read implements io.Reader.
func (r *pacedReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p[:min(len(p), copyStep)])
	rate := copyRate
	if _, aboard := r.flights.Figures(); aboard > 0 {
		rate = busyCopyRate
	}
	if late := wait.For(r.ctx, r.flights.pace.after(n, rate)); late != nil && err == nil {
		err = context.Cause(r.ctx)
	}
	return n, err
}
