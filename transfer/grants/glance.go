package grants

import (
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/wait"
)

const (
	// glanceFor is how long a glance waits for the disk. A member that asks whether
	// this node is alive waits 2 s for the answer; one that peeks waits 250 ms.
	glanceFor = 50 * time.Millisecond
	// maxGlances bounds the goroutines that a disk which hangs can hold up.
	maxGlances = 16
)

// glances look into shards for answers that must not wait for a slow disk. What
// memory knows is told at once. The disk is read only if it may know more, while the
// directory is being listed and for registries without a share of their own.
type glances struct {
	life  *wait.Life
	slots chan struct{}
}

// newGlances returns glances whose reading belongs to the Life.
func newGlances(life *wait.Life) *glances {
	return &glances{life: life, slots: make(chan struct{}, maxGlances)}
}

// at returns what the shard says of the blob in time.
func (g *glances) at(s *Shard, d digest.Digest) (h cache.Held, held bool) {
	h, held, sure := s.Known(d)
	if sure {
		return h, held
	}
	late := time.NewTimer(glanceFor)
	defer late.Stop()
	select {
	case g.slots <- struct{}{}:
	case <-late.C:
		return h, held
	}
	done := make(chan struct{})
	var onDisk cache.Held
	var found bool
	if !g.life.Go(func() {
		defer func() { <-g.slots }()
		defer close(done)
		onDisk, found = s.find(d)
	}) {
		<-g.slots
		return h, held
	}
	select {
	case <-done:
		return onDisk, found
	case <-late.C:
		return h, held
	}
}

// find returns what the store says of a blob, if it holds it. It may read the disk.
func (s *Shard) find(d digest.Digest) (h cache.Held, held bool) {
	if h, held, sure := s.Known(d); sure {
		return h, held
	}
	size, held := s.Stat(d)
	if !held {
		return h, false
	}
	registry, held := s.Origin(d)
	return cache.Held{Digest: d, Registry: registry, Size: size}, held
}
