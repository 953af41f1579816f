package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Space is what a cache directory and its disk have room for, in bytes.
type Space struct {
	There bool  // the directory exists
	Free  int64 // on the disk, for this user
	Size  int64 // of the disk
	Held  int64 // content in the directory
	Whole bool  // Held is all: there was time to look at everything
}

// ErrNotOwn says that a directory can be written to only because root may do
// anything: it is another user's.
var ErrNotOwn = errors.New("belongs to another user")

// Probe looks whether a store could use the directory, without using it: nothing is
// made but a file or a directory that it removes at once. The error says what is in the way and what
// to do; it is ErrNotOwn if only root's rights help. If ctx ends, Held is what was found
// until then.
func Probe(ctx context.Context, dir string) (Space, error) {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		place, _, _ := nearest(dir)
		if err := tryMaking(place); err != nil {
			return Space{}, withRemedy(dir, fmt.Errorf("making the cache directory: %w", err))
		}
		return measure(place, Space{Whole: true})
	case err != nil:
		return Space{}, withRemedy(dir, err)
	case info.Mode().Type() == fs.ModeSymlink:
		return Space{}, fmt.Errorf("%s %w: set cache_dir to the directory itself", dir, errLink)
	case !info.IsDir():
		return Space{}, fmt.Errorf("%s is not a directory", dir)
	}
	if err := tryWriting(dir); err != nil {
		return Space{}, withRemedy(dir, fmt.Errorf("using the cache directory: %w", err))
	}
	s := Space{There: true, Whole: true}
	s.Held, s.Whole = contentIn(ctx, dir)
	return measure(dir, s)
}

// tryMaking makes a directory in another one, and removes it.
func tryMaking(place string) error {
	made, err := os.MkdirTemp(place, probing)
	if err != nil {
		return err
	}
	return os.Remove(made)
}

// probing is the pattern of the names of what Probe makes.
const probing = ".oci-proxy-check-*"

// tryWriting makes a file in the directory and removes it, and looks whose the files
// of the store are.
func tryWriting(dir string) error {
	f, err := os.CreateTemp(dir, probing)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return err
	}
	uid := os.Geteuid()
	name, owner, foreign := foreigner(dir, uint32(uid))
	switch {
	case !foreign:
		return nil
	case uid == 0:
		return fmt.Errorf("%s %w, uid %d: look again as the user that the node runs as", name, ErrNotOwn, owner)
	case name != filepath.Clean(dir):
		return &fs.PathError{Op: "stat", Path: name, Err: errForeign}
	}
	return nil // a directory that is open to us, such as a container's volume
}

// measure adds what the disk of the directory has.
func measure(dir string, s Space) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return s, fmt.Errorf("asking how much room the disk has: %w", err)
	}
	s.Free, s.Size = inBytes(st.Bavail, st.Bsize), inBytes(st.Blocks, st.Bsize)
	return s, nil
}

// contentIn adds up the content in the directory, as far as there is time.
func contentIn(ctx context.Context, dir string) (sum int64, whole bool) {
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() { // else it is gone meanwhile, or can't be read
			if info, err := e.Info(); err == nil {
				sum += info.Size()
			}
		}
		return ctx.Err()
	})
	return sum, err == nil
}
