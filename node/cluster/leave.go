package cluster

import (
	"context"
	"errors"
	"sync"

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
	Blobs  int   `json:"blobs"` // handed over, or held by their owner already
	Bytes  int64 `json:"bytes"`
	Failed int   `json:"failed"` // that nobody took
}

// HandOver tells the others that this node leaves, and offers each blob, the last
// used first, to those who are to keep it now.
func (c *Cluster) HandOver(ctx context.Context) (HandedOver, error) {
	if c.network == nil {
		return HandedOver{}, ErrAlone
	}
	c.network.members.Draining(ctx)
	var done HandedOver
	var mu sync.Mutex // guards done; never held during I/O
	var wg sync.WaitGroup
	width := make(chan struct{}, handOverWidth)
	for _, shard := range c.cfg.Registries.Shards() {
		for _, b := range shard.Blobs() {
			width <- struct{}{}
			wg.Go(func() {
				defer func() { <-width }()
				err := offer(ctx, c.router, shard, b)
				if err != nil {
					c.cfg.Log.Warn("blob not handed over", "registry", b.Registry, "digest", b.Digest.String(), "error", err)
				}
				mu.Lock()
				defer mu.Unlock()
				done.count(b, err)
			})
		}
	}
	wg.Wait()
	c.cfg.Log.Info("blobs handed over", "blobs", done.Blobs, "bytes", done.Bytes, "failed", done.Failed)
	return done, nil
}

// count counts what became of a blob.
func (h *HandedOver) count(b cache.Held, err error) {
	if err != nil {
		h.Failed++
		return
	}
	h.Blobs++
	h.Bytes += b.Size
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
