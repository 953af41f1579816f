package cache

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// A directory is the cache directory in use, if there is one, and its health. The
// disk in use may change at any time. Work on a file goes on with the disk that it
// began with.
type directory struct {
	log    *slog.Logger
	disk   atomic.Pointer[disk]
	broken atomic.Pointer[error]
}

// inUse returns the disk in use, or nil.
func (d *directory) inUse() *disk { return d.disk.Load() }

// uses reports whether the disk is the one in use.
func (d *directory) uses(one *disk) bool { return d.disk.Load() == one }

// take takes a disk into use, or none, and returns the one that was.
func (d *directory) take(one *disk) (before *disk) { return d.disk.Swap(one) }

// note remembers how the last attempt to write ended, for health.
func (d *directory) note(err error) {
	if err == nil {
		d.broken.Store(nil)
		return
	}
	failed := err
	if one := d.inUse(); one != nil {
		failed = withRemedy(one.path, err)
	}
	d.broken.Store(&failed)
}

// health returns nil, or why the last attempt to write failed.
func (d *directory) health() error {
	if err := d.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// noteUse notes on disk when a blob was read, for the order after a restart.
func (d *directory) noteUse(path string, at time.Time) {
	one := d.inUse()
	if one == nil {
		return
	}
	if err := one.touch(path, at); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrClosed) {
		d.log.Debug("use of a blob not noted on disk", "error", err)
	}
}
