package cluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/peer"
	"oci-proxy/transfer/wait"
)

// What only this node holds is lost with it. So a blob that has come, and that nobody
// else has a moment later, is offered to the next owner on the ring, which takes it behind
// all else that it does, into room that nothing needs (flight.TakeCopy). When the ring has
// changed, all that is held is looked at in the same way, what was used last first: so a
// new owner gets what its predecessor alone holds. Another change ends that and begins it
// anew. What a lost member had does not wait for that: see losses.go.

// copies see to second copies.
type copies struct {
	members *membership.Membership
	router  *router
	client  *peer.Client
	shards  func() []*grants.Shard
	busy    func() bool // clients are being served
	log     *slog.Logger
	settle  time.Duration
	delay   time.Duration // Seams.Rescue
	waiting *waiting
	// partners say who else holds what this node holds.
	partners *partners
	dead     <-chan refusal
	anew     chan struct{} // holds a value if all that is held is to be looked at
	on       atomic.Bool

	made, bytes, failed atomic.Int64
}

// newCopies returns the copies of a cluster.
func newCopies(cfg *Config, n *network, r *router) *copies {
	c := &copies{
		members: n.members, router: r, client: n.client, shards: cfg.Registries.Shards, busy: cfg.Busy, log: cfg.Log,
		settle: cmp.Or(cfg.Seams.Settle, settleTime), delay: cfg.Seams.Rescue, waiting: newWaiting(cmp.Or(cfg.Seams.CopyAfter, copyAfter)),
		partners: newPartners(), dead: n.dead, anew: make(chan struct{}, 1),
	}
	if c.busy == nil {
		c.busy = func() bool { return false }
	}
	c.on.Store(cfg.Node.Cluster.Copies > 1)
	return c
}

// Kept hears that this node has got content for the cluster and holds it. It answers at
// once.
func Kept(c *Cluster, k oci.Kept) {
	if c.copies == nil || !c.copies.on.Load() {
		return
	}
	if c.copies.waiting.add(cache.Held{Digest: k.Digest, Registry: k.Registry, Size: k.Size}, time.Now()) {
		c.copies.failed.Add(1)
	}
}

// KeepCopies sees to it until ctx ends that what this node holds is on a second one too,
// and that the shards know what is this node's to keep.
func KeepCopies(ctx context.Context, c *Cluster) {
	if c.copies == nil {
		return
	}
	one := c.copies
	var all sync.WaitGroup
	for _, do := range []func(context.Context){one.watch, one.work, one.mind, one.listen, one.rescue, one.rescue} {
		all.Go(func() { do(ctx) })
	}
	all.Wait()
}

// Secure offers what has just come to others at once, before this node stops for a
// moment. It takes secureTime at most, and no longer than ctx.
func Secure(ctx context.Context, c *Cluster) {
	if c.copies == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, secureTime)
	defer cancel()
	each(c.copies.waiting.takeFresh(), func(b cache.Held) {
		if ctx.Err() == nil {
			c.copies.see(ctx, b, busyPause, func(context.Context) {})
		}
	})
}

// Copies are what became of second copies since the start.
type Copies struct {
	Made    int64 // that another member took
	Bytes   int64 // of those
	Failed  int64 // that nobody took
	Waiting int64 // blobs that are still to be looked at
}

// CopiesOf returns the second copies of the blobs that this node holds.
func CopiesOf(c *Cluster) Copies {
	if c.copies == nil {
		return Copies{}
	}
	return Copies{c.copies.made.Load(), c.copies.bytes.Load(), c.copies.failed.Load(), c.copies.waiting.size()}
}

// watch looks at all that is held when the ring has changed, and has stayed the same for
// a while.
func (c *copies) watch(ctx context.Context) {
	var at uint64 // the ring that was looked at
	for ctx.Err() == nil {
		changed := c.members.Changed()
		now := c.members.View().Ring.Hash()
		if now == at {
			select {
			case <-changed:
			case <-c.anew:
				at = 0
			case <-ctx.Done():
			}
			continue
		}
		at = 0 // the way back to that ring is a change too
		c.waiting.look(nil)
		if !c.settled(ctx, now) {
			continue
		}
		if at = now; !c.place(ctx) {
			_ = wait.Until(ctx, changed, unlistedPause) // the loop sees ctx's end
			at = 0
		}
	}
}

// settled waits for the time of settling, and reports whether the ring was the same
// during all of it. Part of that time is random, so that not all members ask at once.
func (c *copies) settled(ctx context.Context, hash uint64) bool {
	for until := time.Now().Add(c.settle + rand.N(c.settle/2+1)); ; {
		changed := c.members.Changed()
		left := time.Until(until)
		switch {
		case c.members.View().Ring.Hash() != hash, ctx.Err() != nil:
			return false
		case left <= 0:
			return true
		}
		_ = wait.Until(ctx, changed, left) // the loop sees ctx's end
	}
}

// place tells the shards what is this node's to keep, and looks at all that they hold. It
// reports whether all could: the disk of one may fail.
func (c *copies) place(ctx context.Context) (whole bool) {
	var all []cache.Held
	whole = true
	for _, shard := range c.shards() {
		if !isListed(ctx, shard) {
			whole = false
			continue
		}
		shard.Stock().Place(func(registry string, d digest.Digest) bool { return !c.router.keeps(registry, d.String()) })
		if c.on.Load() {
			all = append(all, shard.Newest(maxBacklog)...)
		}
	}
	c.waiting.look(all)
	return whole
}

// isListed waits for a while until it is known what the shard holds, and reports whether it is.
func isListed(ctx context.Context, shard *grants.Shard) bool {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	return shard.Listed(ctx) == nil
}

// work looks at one blob after the other, and rests for as long as each took.
func (c *copies) work(ctx context.Context) {
	for ctx.Err() == nil {
		b, ok, idle := c.waiting.next(time.Now())
		if !ok {
			_ = wait.Until(ctx, c.waiting.more, idle) // the loop sees ctx's end
			continue
		}
		began := time.Now()
		if c.see(ctx, b, busyPause, c.yield); ctx.Err() != nil {
			c.waiting.add(b, began) // it is secured before this node stops
		}
		_ = wait.For(ctx, min(time.Since(began), longestRest)) // the loop sees ctx's end
	}
}

// turn switches second copies on or off. Where they are on from now on, all that is held is
// looked at.
func (c *copies) turn(on bool) {
	if was := c.on.Swap(on); was || !on {
		return
	}
	select {
	case c.anew <- struct{}{}:
	default:
	}
}

// see sees to it that a blob is on another member too. It calls yield before it is sent. A
// member that takes others' copies is asked again after busy.
func (c *copies) see(ctx context.Context, b cache.Held, busy time.Duration, yield func(context.Context)) {
	if b.Registry == "" || !c.on.Load() {
		return
	}
	ref := oci.Ref{Registry: b.Registry, Digest: b.Digest}
	ctx = oci.CallerOf(ctx).As(oci.Node).Into(ctx)
	shard := c.holding(b)
	if shard == nil {
		return
	}
	if id := c.router.heldElsewhere(ctx, ref); id != "" {
		c.paired(b.Digest, id)
		return
	}
	takers := c.router.takers(b.Digest.String())
	if len(takers) == 0 {
		return
	}
	by, err := c.offerTo(ctx, takers, ref, b.Size, shard.MediaType(b.Digest), yield)
	for tries := 1; isBusy(err) && tries < busyTries && wait.For(ctx, busy) == nil; tries++ {
		by, err = c.offerTo(ctx, takers, ref, b.Size, shard.MediaType(b.Digest), yield)
	}
	if err != nil {
		c.failed.Add(1)
		c.log.Debug("blob not copied to another member", "registry", b.Registry, "digest", b.Digest.String(), "error", err)
		return
	}
	c.paired(b.Digest, by)
	c.made.Add(1)
	c.bytes.Add(b.Size)
}

// paired notes that a member holds a blob too, unless it was lost meanwhile.
func (c *copies) paired(d digest.Digest, id string) {
	c.partners.note(d, id)
	if m, known := c.members.Member(id); !known || !stays(&m) || !c.client.Healthy(id) {
		c.partners.note(d, "")
	}
}

// offerTo offers a copy of so many bytes to one member after the other, until one takes it,
// and returns the id of that.
func (c *copies) offerTo(ctx context.Context, takers []mesh.Peer, ref oci.Ref, size int64, mediaType string, yield func(context.Context)) (by string, err error) {
	yield(ctx)
	ctx, cancel := context.WithTimeout(ctx, offerTimeOf(size))
	defer cancel()
	for _, p := range takers {
		if err = c.offer(ctx, p, ref, size, mediaType); err == nil {
			return p.ID(), nil
		}
	}
	return "", err
}

// isBusy reports whether a member takes as many others' copies as it may at the moment.
func isBusy(err error) bool {
	failed, ok := errors.AsType[*mesh.PeerError](err)
	return ok && failed.Busy
}

// offer offers a copy to a member, and gives up when that shows no sign of life.
func (c *copies) offer(ctx context.Context, p mesh.Peer, ref oci.Ref, size int64, mediaType string) error {
	return whileAlive(ctx, p, func(ctx context.Context) error { return peer.OfferCopy(ctx, c.client, p.ID(), ref, mediaType, size) })
}

// holding returns the shard that holds the blob, nil if none does any more.
func (c *copies) holding(b cache.Held) *grants.Shard {
	for _, shard := range c.shards() {
		if _, held := shard.Stat(b.Digest); held {
			return shard
		}
	}
	return nil
}

// yield lets clients go first, for yieldTime at most.
func (c *copies) yield(ctx context.Context) {
	for began := time.Now(); c.busy() && time.Since(began) < yieldTime; {
		if wait.For(ctx, yieldStep) != nil {
			return
		}
	}
}
