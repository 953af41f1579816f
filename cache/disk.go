package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A disk is an open cache directory: locked, narrowed to its owner, and with the
// directories that the store needs.
type disk struct {
	root
	path  string
	lock  *os.File
	epoch uint64 // of the index, when the disk was opened
	lay   spot   // what the directory lay in at that time
}

// directories are those that the store needs.
var directories = []string{"tmp", "tags", "tags/own", "tags/others", "notes", "pages", "blobs", "blobs/sha256", "blobs/sha512"}

// Errors that say what is wrong with the cache directory.
var (
	errMoved = errors.New("the cache directory was replaced by another")
	errLink  = errors.New("is a symbolic link")
)

// openDisk opens the directory of that path, makes it if need be, narrows it to
// its owner and takes its lock.
func openDisk(path string, epoch uint64, fault func(op, name string) error) (*disk, error) {
	d := &disk{path: path, epoch: epoch, root: root{fault: fault}}
	err := d.enter()
	if err == nil {
		err = d.prepare()
	}
	if err != nil {
		return nil, errors.Join(withRemedy(path, err), d.close())
	}
	return d, nil
}

// enter opens the directory itself.
func (d *disk) enter() error {
	if err := d.try("mkdir", d.path); err != nil {
		return err
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("making the cache directory: %w", err)
	}
	if err := d.try("enter", d.path); err != nil {
		return err
	}
	var err error
	if d.dir, err = os.OpenRoot(d.path); err != nil {
		return fmt.Errorf("opening the cache directory: %w", err)
	}
	if err := d.inPlace(); err != nil {
		return err
	}
	if d.self, err = d.dir.Open("."); err != nil {
		return fmt.Errorf("opening the cache directory: %w", err)
	}
	if d.conn, err = d.self.SyscallConn(); err != nil {
		return err
	}
	d.lay, err = d.parent()
	return err
}

// inPlace checks that the path still names the directory that was opened, and is
// not a link to it. Whoever may change a link could choose where we write.
func (d *disk) inPlace() error {
	if err := d.try("stat", d.path); err != nil {
		return err
	}
	named, err := os.Lstat(d.path)
	if err != nil {
		return err
	}
	if named.Mode().Type() == fs.ModeSymlink {
		return fmt.Errorf("%s %w: set cache_dir to the directory itself", d.path, errLink)
	}
	opened, err := d.dir.Stat(".")
	if err != nil {
		return err
	}
	if !os.SameFile(named, opened) {
		return errMoved
	}
	return nil
}

// sound checks that the directory and all that the store needs in it are still
// there. It fails only if something is certainly missing: a failing disk shows in
// other calls. A directory above ours that was renamed is no loss, as all calls work
// below the directory that is open: then reached is false.
func (d *disk) sound() (reached bool, err error) {
	err = d.inPlace()
	reached = !errors.Is(err, fs.ErrNotExist)
	if errors.Is(err, errMoved) || errors.Is(err, errLink) || !reached && !d.carried() {
		return true, err
	}
	for _, name := range append([]string{"lock"}, directories...) {
		if d.try("stat", name) != nil {
			continue
		}
		st, err := d.dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() != (name != "lock") {
			return reached, fmt.Errorf("%s in the cache directory is gone", name)
		}
	}
	return reached, nil
}

// carried reports whether the directory lies where it lay, and the path leads to
// another place: a directory above was renamed, or a link was turned.
func (d *disk) carried() bool {
	lies, err := d.parent()
	if err != nil || lies != d.lay {
		return false
	}
	var st unix.Stat_t
	err = unix.Stat(filepath.Dir(d.path), &st)
	return errors.Is(err, fs.ErrNotExist) || err == nil && lies != (spot{st.Dev, st.Ino})
}

// A spot tells a directory from all others.
type spot struct{ device, inode uint64 }

// parent returns the directory that ours lies in.
func (d *disk) parent() (spot, error) {
	if err := d.try("stat", ".."); err != nil {
		return spot{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.self.Fd()), "..", &st, 0); err != nil {
		return spot{}, fmt.Errorf("looking for the cache directory's parent: %w", err)
	}
	return spot{st.Dev, st.Ino}, nil
}

// prepare takes the lock, makes the directories and learns who owns our files.
func (d *disk) prepare() error {
	// A directory that is not ours, such as a container's volume, can't be
	// narrowed. Those below it are ours and closed to others all the same.
	if err := d.try("chmod", "."); err != nil {
		return err
	}
	if err := d.dir.Chmod(".", 0o700); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("narrowing the cache directory to its owner: %w", err)
	}
	if err := d.takeLock(); err != nil {
		return err
	}
	for _, sub := range directories {
		if err := d.mkdir(sub); err != nil {
			return fmt.Errorf("making the cache directory: %w", err)
		}
		if err := d.usable(sub); err != nil {
			return fmt.Errorf("using the cache directory: %w", err)
		}
	}
	return d.learnOwner()
}

// takeLock takes the lock of the directory.
func (d *disk) takeLock() error {
	if err := d.try("lock", "lock"); err != nil {
		return err
	}
	if st, err := d.dir.Lstat("lock"); err == nil && !st.Mode().IsRegular() {
		if err := d.removeAll("lock"); err != nil {
			return err
		}
	}
	lock, err := d.dir.OpenFile("lock", os.O_CREATE|os.O_RDWR|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("opening the cache directory's lock: %w", err)
	}
	d.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("cache directory %s is used by another process: %w", d.path, err)
		}
		return fmt.Errorf("locking the cache directory: %w", err)
	}
	return nil
}

// learnOwner learns who owns the files that we make: on NFS that may not be our
// user id. On a disk that takes no file it is our user id. A lock of another
// user is not replaced: we may not see who holds it.
func (d *disk) learnOwner() error {
	d.owner = uint32(os.Geteuid())
	if f, tmp, err := d.temp(); err == nil {
		var st unix.Stat_t
		if unix.Fstat(int(f.os.Fd()), &st) == nil {
			d.owner = st.Uid
		}
		_ = errors.Join(f.closeWritten(), d.remove(tmp)) // if it stays, sweeping removes it
	}
	if _, _, err := (&file{d.lock, &d.root}).identify(); err != nil {
		return fmt.Errorf("the cache directory's lock: %w", err)
	}
	return nil
}

// close gives the directory up, and the lock with it. It unlocks before it closes:
// a process that was just forked holds a copy of the descriptor until it runs its
// program, and the lock would last as long.
func (d *disk) close() error {
	var errs []error
	if d.lock != nil {
		errs = append(errs, unix.Flock(int(d.lock.Fd()), unix.LOCK_UN))
	}
	for _, f := range []*os.File{d.lock, d.self} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if d.dir != nil {
		errs = append(errs, d.dir.Close())
	}
	return errors.Join(errs...)
}
