package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
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

// HandOver tells the others that this node leaves, and offers each blob that none of them
// holds, the last used first, to those who are to keep it now.
func (c *Cluster) HandOver(ctx context.Context) (HandedOver, error) {
	if c.network == nil {
		return HandedOver{}, ErrAlone
	}
	c.leaving.Store(true) // before anybody is asked: of two that leave, one at least hears it of the other
	c.copies.turn(false)  // all that is held goes to others now
	c.network.members.Draining(ctx)
	var done HandedOver
	for _, shard := range c.cfg.Registries.Shards() {
		seen := map[digest.Digest]bool{}
		for range 2 { // what was on its way in meanwhile comes too
			blobs := slices.DeleteFunc(shard.Blobs(), func(b cache.Held) bool { return seen[b.Digest] })
			for _, b := range blobs {
				seen[b.Digest] = true
			}
			handOver(ctx, c, shard, blobs, &done)
		}
	}
	c.cfg.Log.Info("blobs handed over", "blobs", done.Blobs, "bytes", done.Bytes, "held", done.Held, "failed", done.Failed)
	return done, nil
}

// handOver offers those of the blobs that nobody else holds to others, and counts in done.
func handOver(ctx context.Context, c *Cluster, shard *grants.Shard, blobs []cache.Held, done *HandedOver) {
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
	ctx, cancel := context.WithTimeout(ctx, offerTime)
	defer cancel()
	ref := oci.Ref{Registry: b.Registry, Digest: b.Digest}
	err := errNobody
	for _, p := range r.takers(b.Digest.String()) {
		if err = p.Offer(ctx, ref, shard.MediaType(b.Digest)); err == nil {
			return nil
		}
	}
	return err
}
