package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/wait"
)

// tendInterval is how often a directory that could not be used is tried again, and
// how often the one in use is looked after.
const tendInterval = 5 * time.Second

// A caretaker opens the directory, has it listed, and looks after it. If the
// directory is lost it takes another into use.
type caretaker struct {
	*shard
	path    string
	fault   func(op, name string) error
	taken   func(Folders)
	maxIdle func(registry string) time.Duration // as Options.MaxIdle
	retry   time.Duration                       // tendInterval, or less in tests

	free atomic.Int64 // bytes on the disk when it was last looked at, -1: not known

	renamed bool // what was told last; its goroutine's own
}

// run opens the directory if that is still to be done, has it listed, and looks
// after it until ctx ends.
func (c *caretaker) run(ctx context.Context, opened bool) {
	for !opened {
		if wait.For(ctx, c.retry) != nil {
			return
		}
		opened = c.open() == nil
	}
	c.measure()
	if !c.firstListing(ctx) {
		return // blobs that are not listed do not count, so nothing may come in
	}
	for wait.For(ctx, tendInterval) == nil {
		c.tend(ctx)
		c.measure()
	}
}

// measure notes how much is free on the disk in use.
func (c *caretaker) measure() {
	n := int64(-1)
	if d := c.dir.inUse(); d != nil {
		if free, err := d.free(); err == nil {
			n = free
		}
	}
	c.free.Store(n)
}

// open opens the directory and takes it into use before it is listed.
func (c *caretaker) open() error {
	d, all, err := c.openDisk()
	c.dir.note(err)
	if err == nil {
		c.parts.adopt(d.epoch, all)
		c.use(d)
	}
	return err
}

// use takes an open directory into use.
func (c *caretaker) use(d *disk) {
	if c.taken != nil {
		c.taken(newFolders(d))
	}
	c.dir.take(d)
}

// openDisk opens the directory and looks for parts.
func (c *caretaker) openDisk() (*disk, []*part, error) {
	d, err := openDisk(c.path, c.index.current(), c.fault)
	if err != nil {
		return nil, nil, err
	}
	all, err := sweep(d)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("removing unfinished files: %w", err), d.close())
	}
	c.retainer.load(d) // before it is listed: nothing of it is evicted then
	return d, all, nil
}

// firstListing has the directory listed, and tries again until that succeeds. It
// reports false if ctx ended first.
func (c *caretaker) firstListing(ctx context.Context) bool {
	c.listing.begin()
	for {
		err := c.list(ctx, c.dir.inUse())
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			break
		}
		c.dir.note(err)
		c.log.Error("cache directory not listed: nothing new is cached until it is; trying again", "error", err)
		c.listing.failed.Store(true)
		if wait.For(ctx, c.retry) != nil {
			return false
		}
	}
	if c.listing.failed.Load() {
		c.dir.note(nil)
	}
	close(c.listing.done)
	return true
}

// list has a directory listed and shrinks what it holds to the bounds.
func (c *caretaker) list(ctx context.Context, d *disk) error {
	start := time.Now()
	lister := &lister{log: c.log, disk: d, index: c.index, commits: c.commits, outlined: c.outlined}
	n, err := lister.list(ctx)
	if err != nil {
		return err
	}
	for _, registry := range c.parts.list.registries() {
		c.parts.yield(registry, 0)
	}
	c.index.endListing()
	if err := c.remover.removeFiles(&d.root, room{c.index}.shrink()); err != nil {
		return err
	}
	c.log.Info("cache directory listed", "blobs", n, "took_ms", wait.Milliseconds(time.Since(start)))
	return nil
}

// tend does what time brings: parts grow too old, a full disk has room again, the
// directory is removed or replaced by another.
func (c *caretaker) tend(ctx context.Context) {
	c.parts.expire(time.Now())
	d := c.dir.inUse()
	if d != nil {
		reached, err := d.sound()
		if err != nil {
			c.lose(err)
			d = nil
		} else {
			c.tellRenamed(!reached)
		}
	}
	if d == nil {
		c.reopen(ctx)
		return
	}
	c.remover.retryDamaged(ctx, d, c.commits)
	c.pressure.ease(d)
	c.remover.noteFailure(c.remover.removeFiles(&d.root, room{c.index}.shrink())) // the bounds may be less than before
	c.expireIdle(d)
}

// tellRenamed warns once if a directory above the one in use was renamed.
func (c *caretaker) tellRenamed(renamed bool) {
	if renamed && !c.renamed {
		c.log.Warn("a directory above the cache directory was renamed: the cache stays in use where it is now; make cache_dir name that place before the next start")
	}
	c.renamed = renamed
}

// lose gives the directory up because of err. All that it held is lost.
func (c *caretaker) lose(err error) {
	c.log.Error("cache directory lost: serving without a cache; trying again", "error", err)
	c.dir.note(err)
	d := c.dir.take(nil)
	c.index.clear() // from now on blobs of that directory are not taken
	c.small.clear()
	c.parts.forget(c.index.current())
	if err := d.close(); err != nil {
		c.log.Warn("lost cache directory not closed", "error", err)
	}
}

// reopen opens a directory after one was lost, and uses it once it is listed.
func (c *caretaker) reopen(ctx context.Context) {
	d, all, err := c.openDisk()
	if err == nil {
		c.parts.adopt(d.epoch, all)
		if err = c.list(ctx, d); err != nil {
			err = errors.Join(err, d.close())
			c.index.clear()
			c.parts.forget(c.index.current())
		}
	}
	c.dir.note(err)
	if err == nil {
		c.use(d)
		c.log.Info("cache directory in use again")
	}
}
