package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// handOverWidth is how many blobs are handed over at a time.
const handOverWidth = 4

// ErrAlone says that there is no cluster.
var ErrAlone = errors.New("this node is not in a cluster")

// errNobody says that no other member is up that owns the blob.
var errNobody = errors.New("no other node is up that could take it")

// A HandedOver says what became of the blobs of a node that leaves.
type HandedOver struct {
	Blobs  int   `json:"blobs"` // handed over
	Bytes  int64 `json:"bytes"`
	Held   int   `json:"held"`   // that others hold already
	Failed int   `json:"failed"` // that nobody took
}

// An offered set is the blobs that a node which leaves has offered by now, of each shard.
type offered map[*grants.Shard]map[digest.Digest]bool

// HandOver tells the others that this node leaves, and offers each blob that none of them
// holds, the last used first, to those who are to keep it now.
func (c *Cluster) HandOver(ctx context.Context) (HandedOver, error) {
	if c.network == nil {
		return HandedOver{}, ErrAlone
	}
	c.leaving.Store(true) // before anybody is asked: of two that leave, one at least hears it of the other
	c.copies.turn(false)  // all that is held goes to others now
	c.network.members.Draining(ctx)
	for _, shard := range c.cfg.Registries.Shards() {
		awaitListed(ctx, c, shard)
	}
	var done HandedOver
	seen := offered{}
	for range 2 { // what was on its way in meanwhile comes too
		handOver(ctx, c, seen, &done)
	}
	c.offered.Store(&seen)
	logHandedOver(c.cfg.Log, done)
	return done, nil
}

// HandOverRest offers in the same way what has come since HandOver was done: downloads under way
// go on while a node leaves, and what they brought would go with it. Without HandOver it does
// nothing. It takes no longer than ctx. Call it again when more may have come, not at once.
func HandOverRest(ctx context.Context, c *Cluster) {
	seen := c.offered.Load()
	if seen == nil {
		return
	}
	var done HandedOver
	if handOver(ctx, c, *seen, &done); done != (HandedOver{}) {
		logHandedOver(c.cfg.Log, done)
	}
}

// logHandedOver logs what became of the blobs.
func logHandedOver(log *slog.Logger, done HandedOver) {
	log.Info("blobs handed over", "blobs", done.Blobs, "bytes", done.Bytes, "held", done.Held, "failed", done.Failed)
}

// awaitListed waits until it is known what the shard holds, for some time. A disk that fails is
// not waited for.
func awaitListed(ctx context.Context, c *Cluster, shard *grants.Shard) {
	for began := time.Now(); !isListed(ctx, shard); {
		if shard.Health() != nil || ctx.Err() != nil || time.Since(began) >= leaveListTime {
			c.cfg.Log.Warn("what this node holds is not known in full: the rest is not handed over")
			return
		}
	}
}

// handOver offers the blobs that are not among those seen, and that nobody else holds, to others.
// It adds them to those seen, and counts in done.
func handOver(ctx context.Context, c *Cluster, seen offered, done *HandedOver) {
	for _, shard := range c.cfg.Registries.Shards() {
		if seen[shard] == nil {
			seen[shard] = map[digest.Digest]bool{}
		}
		blobs := slices.DeleteFunc(shard.Blobs(), func(b cache.Held) bool { return seen[shard][b.Digest] })
		for _, b := range blobs {
			seen[shard][b.Digest] = true
		}
		handOverAll(ctx, c, shard, blobs, done)
	}
}

// handOverAll offers those of the blobs that nobody else holds to others, and counts in done.
func handOverAll(ctx context.Context, c *Cluster, shard *grants.Shard, blobs []cache.Held, done *HandedOver) {
	var mu sync.Mutex // guards done; never held during I/O
	each(blobs, func(b cache.Held) {
		held := b.Registry != "" && c.router.heldElsewhere(ctx, oci.Ref{Registry: b.Registry, Digest: b.Digest}) != ""
		var err error
		if !held {
			err = offer(ctx, c.router, shard, b)
		}
		if err != nil {
			c.cfg.Log.Warn("blob not handed over", "registry", b.Registry, "digest", b.Digest.String(), "error", err)
		}
		mu.Lock()
		defer mu.Unlock()
		done.count(b, held, err)
	})
}

// each calls see for each blob, for some at a time.
func each(blobs []cache.Held, see func(b cache.Held)) {
	var wg sync.WaitGroup
	width := make(chan struct{}, handOverWidth)
	for _, b := range blobs {
		width <- struct{}{}
		wg.Go(func() {
			defer func() { <-width }()
			see(b)
		})
	}
	wg.Wait()
}

// count counts what became of a blob.
func (h *HandedOver) count(b cache.Held, held bool, err error) {
	switch {
	case held:
		h.Held++
	case err != nil:
		h.Failed++
	default:
		h.Blobs++
		h.Bytes += b.Size
	}
}

// offer offers a blob to those who are to keep it, one after the other.
func offer(ctx context.Context, r *router, shard *grants.Shard, b cache.Held) error {
	ctx, cancel := context.WithTimeout(ctx, offerTimeOf(b.Size))
	defer cancel()
	ref := oci.Ref{Registry: b.Registry, Digest: b.Digest}
	err := errNobody
	for _, p := range r.takers(b.Digest.String()) {
		err = whileAlive(ctx, p, func(ctx context.Context) error { return p.Offer(ctx, ref, shard.MediaType(b.Digest)) })
		if err == nil {
			return nil
		}
	}
	return err
}

// offerTimeOf bounds handing over a blob of that size in bytes.
func offerTimeOf(size int64) time.Duration {
	return offerTime + time.Duration(size/leastRate)*time.Second
}

// whileAlive makes an offer to a member, and ends it when that shows no sign of life.
func whileAlive(ctx context.Context, p mesh.Peer, offer func(ctx context.Context) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		for missed := 0; wait.For(ctx, aliveStep) == nil; {
			_, err := p.Progress(ctx, oci.Ref{})
			if missed++; err == nil {
				missed = 0
			} else if missed > 1 {
				end(err)
			}
		}
	}()
	return offer(ctx)
}
