package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// pressureStep is for how many bytes room is made on a full disk, at least: many
	// small blobs would evict one by one otherwise. A store that holds little makes
	// less, see room.narrow.
	pressureStep = 1 << 20
	// pressureTime is how long a disk counts as smaller than the bound after it
	// was full. It is over sooner if the disk says that it has room.
	pressureTime = 5 * time.Minute
	// pressureSpare is what is left free on a disk that was full: for metas.
	pressureSpare = 1 << 20
)

// A pressure keeps the shard working when the disk is full before the bound is
// reached: for a while, what the shard holds then is its bound.
type pressure struct {
	log     *slog.Logger
	room    room
	parts   *parts
	remover *remover
	last    atomic.Int64 // unix nanoseconds when the disk was last full
}

// relieve makes room on a full disk for n bytes, which are reserved and did not
// fit. It reports whether anything was removed.
func (p *pressure) relieve(d *disk, registry string, n int64) bool {
	free, err := d.free()
	if err != nil || free >= max(n, pressureStep) {
		free = 0 // the disk does not know, perhaps because of a quota
	}
	was, limit := p.room.narrow(n, pressureStep, free)
	if n > limit {
		p.room.setLimit(was) // evicting all that we hold would not be enough
		return false
	}
	dropped := p.parts.yield(registry, 0)
	victims := p.room.evictFor(registry)
	if len(victims) == 0 && !dropped {
		p.room.setLimit(was) // nothing of ours is in the way
		return false
	}
	p.last.Store(time.Now().UnixNano())
	if was == 0 {
		p.log.Warn("disk full: the cache keeps less than cache_max_size; free space on the disk", "bytes", limit, "bound", p.room.bound())
	}
	err = p.remover.removeFiles(&d.root, victims)
	p.remover.noteFailure(err)
	return err == nil
}

// ease raises the limit as far as the disk has room again, and lifts it in the end.
func (p *pressure) ease(d *disk) {
	if p.room.limit() == 0 {
		return
	}
	free, err := d.free()
	if err != nil {
		free = 0
	}
	over := time.Since(time.Unix(0, p.last.Load())) > pressureTime
	if p.room.widen(free-pressureSpare, over) {
		p.log.Info("disk no longer full: cache_max_size counts again", "bound", p.room.bound())
	}
}

// ErrDiskFull is what Health returns while the disk is full before the bound is reached.
var ErrDiskFull = errors.New("the disk is full")

// health returns nil, or that less is kept than the bound allows.
func (p *pressure) health() error {
	if limit := p.room.limit(); limit != 0 {
		return fmt.Errorf("%w: the cache keeps at most %d bytes", ErrDiskFull, limit)
	}
	return nil
}
