package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// directories are those that the store needs.
var directories = []string{"tmp", "tags", "notes", "blobs", "blobs/sha256", "blobs/sha512"}

// errForeign: a file that is not ours.
var errForeign = errors.New("belongs to another user")

// openDisk makes dir if need be, narrows it to its owner and takes its lock.
func openDisk(dir string, fault func(op, name string) error) (*disk, error) {
	d := &disk{fault: fault}
	if err := d.enter(dir); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if err := d.prepare(dir); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// enter opens the directory itself.
func (d *disk) enter(dir string) error {
	if err := d.try("mkdir", dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the cache directory: %w", err)
	}
	if err := d.try("enter", dir); err != nil {
		return err
	}
	var err error
	if d.root, err = os.OpenRoot(dir); err != nil {
		return fmt.Errorf("opening the cache directory: %w", err)
	}
	if err := d.at(dir); err != nil {
		return err
	}
	if d.self, err = d.root.Open("."); err != nil {
		return fmt.Errorf("opening the cache directory: %w", err)
	}
	d.here, err = d.self.SyscallConn()
	return err
}

// errMoved: the directory that is in use is no longer the one of that name.
var errMoved = errors.New("the cache directory is another than it was")

// errLink: the cache directory's name is not its own.
var errLink = errors.New("is a symbolic link")

// at checks that dir is the directory that was opened, and no link to it:
// whoever may change a link would choose where we write.
func (d *disk) at(dir string) error {
	if err := d.try("stat", dir); err != nil {
		return err
	}
	named, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if named.Mode().Type() == fs.ModeSymlink {
		return fmt.Errorf("%s %w: name the directory itself", dir, errLink)
	}
	opened, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	if !os.SameFile(named, opened) {
		return errMoved
	}
	return nil
}

// sound checks that the directory is still there, with what the store needs.
// Only what is certain counts: a disk that can't tell shows elsewhere.
func (d *disk) sound(dir string) error {
	if err := d.at(dir); errors.Is(err, fs.ErrNotExist) || errors.Is(err, errMoved) || errors.Is(err, errLink) {
		return err
	}
	for _, name := range append([]string{"lock"}, directories...) {
		if d.try("stat", name) != nil {
			continue
		}
		st, err := d.root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() != (name != "lock") {
			return fmt.Errorf("%s in the cache directory is gone", name)
		}
	}
	return nil
}

// prepare takes the lock, makes the directories the store needs and learns whose
// our files are.
func (d *disk) prepare(dir string) error {
	// A directory that is not ours, as volumes of containers are, can't be
	// narrowed; those below it are ours and closed to others all the same.
	if err := d.try("chmod", "."); err != nil {
		return err
	}
	if err := d.root.Chmod(".", 0o700); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("narrowing the cache directory to its owner: %w", err)
	}
	if err := d.takeLock(dir); err != nil {
		return err
	}
	for _, sub := range directories {
		if err := d.directory(sub); err != nil {
			return fmt.Errorf("making the cache directory: %w", err)
		}
	}
	return d.probe()
}

// takeLock takes the lock of the directory, which dir names in messages.
func (d *disk) takeLock(dir string) error {
	if err := d.try("lock", "lock"); err != nil {
		return err
	}
	if st, err := d.root.Lstat("lock"); err == nil && !st.Mode().IsRegular() {
		if err := d.removeAll("lock"); err != nil {
			return err
		}
	}
	lock, err := d.root.OpenFile("lock", os.O_CREATE|os.O_RDWR|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("opening the cache directory's lock: %w", err)
	}
	d.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("cache directory %s is used by another process: %w", dir, err)
		}
		return fmt.Errorf("locking the cache directory: %w", err)
	}
	return nil
}

// probe learns whose the files that we make are: what the system calls us may
// differ from that, as on NFS. On a disk that takes no file it is who we are. A
// lock of another's is not replaced: who holds it may not be seen to.
func (d *disk) probe() error {
	d.owner = uint32(os.Geteuid())
	if f, tmp, err := d.temp(); err == nil {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil {
			d.owner = st.Uid
		}
		_ = errors.Join(d.closeFile(f), d.remove(tmp)) // if it stays it goes at once: see sweep
	}
	if _, _, err := d.identify(d.lock); err != nil {
		return fmt.Errorf("the cache directory's lock: %w", err)
	}
	return nil
}

// directory makes a directory, closed to others, in place of whatever else has
// its name.
func (d *disk) directory(name string) error {
	if err := d.try("mkdir", name); err != nil {
		return err
	}
	if st, err := d.root.Lstat(name); err == nil && !st.IsDir() {
		if err := d.root.Remove(name); err != nil {
			return err
		}
	}
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// close gives the directory up, and the lock with it.
func (d *disk) close() error {
	var errs []error
	for _, f := range []*os.File{d.lock, d.self} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if d.root != nil {
		errs = append(errs, d.root.Close())
	}
	return errors.Join(errs...)
}
