package cache

import (
	"errors"
	"time"
)

// expel takes a blob that is not what it should be out of the shard, unless
// another reader just did.
func (s *Store) expel(d *disk, i int32) {
	n := s.index.nameOf(i)
	if !s.index.expel(i) {
		return
	}
	s.small.remove(n)
	s.log.Warn("blob leaves the shard", "digest", n.digest().String(), "reason", "damaged or missing")
	if err := s.removeFiles(d, []int32{i}); err != nil {
		s.noteHealth(err)
	}
}

// removeFiles removes the files of blobs that the index has let go, and
// reports whether all are gone.
func (s *Store) removeFiles(d *disk, slots []int32) error {
	var errs []error
	for _, i := range slots {
		n := s.index.nameOf(i)
		s.small.remove(n)
		if err := d.remove(n.path()); err != nil {
			s.index.stuck(i)
			errs = append(errs, err)
			continue
		}
		if err := d.remove(n.path() + ".meta"); err != nil {
			s.log.Debug("meta left behind until the next start", "error", err)
		}
		s.index.gone(i)
	}
	return errors.Join(errs...)
}

// leave ends one reader of the blob in slot i.
func (s *Store) leave(i int32, path string) {
	note, over := s.index.leave(i, time.Now())
	if d := s.disk.Load(); over && d != nil {
		if err := s.removeFiles(d, s.index.shrink()); err != nil {
			s.noteHealth(err)
		}
	}
	if note {
		s.noteUse(path, time.Now())
	}
}

// makeRoom reserves n bytes for a registry and removes what has to go for it.
func (s *Store) makeRoom(d *disk, registry string, n int64) error {
	if err := s.waitListed(); err != nil {
		return err
	}
	s.strays.remove(func(f stray) { s.index.release(f.registry, f.bytes) })
	s.yield(registry, n)
	victims, err := s.index.reserve(registry, n)
	if err != nil {
		return err
	}
	if err := s.removeFiles(d, victims); err != nil {
		s.index.cancel(registry, n)
		s.noteHealth(err)
		return err
	}
	return s.index.settle(registry, n)
}

// listPatience is how long a blob on its way in waits for the listing of the
// directory: until then nobody knows how much room there is.
const listPatience = 2 * time.Second

// waitListed waits until the directory is listed, but not for ever.
func (s *Store) waitListed() error {
	select {
	case <-s.listed:
		return nil
	default:
	}
	if s.blind.Load() {
		return errNoRoom
	}
	t := time.NewTimer(listPatience)
	defer t.Stop()
	select {
	case <-s.listed:
		return nil
	case <-s.done:
		return errClosed
	case <-t.C:
		return errNoRoom
	}
}

// errClosed: the store was closed.
var errClosed = errors.New("cache is closed")
