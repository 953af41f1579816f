package cache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// unhex decodes s, which is known to be hexadecimal, into dst.
func unhex(dst []byte, s string) {
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		panic("validated digest is no hex: " + err.Error())
	}
}

// A disk is the cache directory. Every file call of the package goes through
// it, below one os.Root: no name can lead out of the directory, no link is
// followed out of it.
type disk struct {
	root *os.Root
	lock *os.File
	// fault, set by tests, is asked before each call and fails it.
	fault func(op, name string) error
}

// openDisk makes dir if need be, narrows it to its owner and takes its lock.
func openDisk(dir string, fault func(op, name string) error) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the cache directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the cache directory: %w", err)
	}
	d := &disk{root: root, fault: fault}
	if err := d.prepare(dir); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// prepare takes the lock and makes the directories the store needs.
func (d *disk) prepare(dir string) error {
	// A directory that is not ours, as volumes of containers are, can't be
	// narrowed; those below it are ours and closed to others all the same.
	if err := d.root.Chmod(".", 0o700); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("narrowing the cache directory to its owner: %w", err)
	}
	if err := d.try("lock", "lock"); err != nil {
		return err
	}
	lock, err := d.root.OpenFile("lock", os.O_CREATE|os.O_RDWR, 0o600)
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
	if err := d.removeAll("tmp"); err != nil {
		return fmt.Errorf("removing leftovers: %w", err)
	}
	for _, sub := range []string{"tmp", "tags", "blobs", "blobs/sha256", "blobs/sha512"} {
		if err := d.directory(sub); err != nil {
			return fmt.Errorf("making the cache directory: %w", err)
		}
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
	var err error
	if d.lock != nil {
		err = d.lock.Close()
	}
	return errors.Join(err, d.root.Close())
}

// try asks the fault hook.
func (d *disk) try(op, name string) error {
	if d.fault == nil {
		return nil
	}
	return d.fault(op, name)
}

// open opens a file for reading. It does not wait for what is no file.
func (d *disk) open(name string) (*os.File, error) {
	if err := d.try("open", name); err != nil {
		return nil, err
	}
	return d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// maxRead bounds the small files: the sums of a blob of 2 TiB.
const maxRead = 64 << 20

// read returns a small file's bytes.
func (d *disk) read(name string) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if err := d.try("read", name); err != nil {
		return nil, err
	}
	id, _, err := identify(f)
	if err != nil {
		return nil, err
	}
	if id.size > maxRead {
		return nil, fmt.Errorf("%s: %d bytes are too many", name, id.size)
	}
	b := make([]byte, id.size)
	_, err = io.ReadFull(f, b)
	return b, err
}

// readAt reads len(p) bytes of an open blob.
func (d *disk) readAt(f *os.File, p []byte, off int64) error {
	if err := d.try("read", f.Name()); err != nil {
		return err
	}
	_, err := f.ReadAt(p, off)
	return err
}

// list returns what is in a directory.
func (d *disk) list(name string) ([]fs.DirEntry, error) {
	if err := d.try("list", name); err != nil {
		return nil, err
	}
	return fs.ReadDir(d.root.FS(), name)
}

// exists reports whether there may be something of this name.
func (d *disk) exists(name string) bool {
	_, err := d.root.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// transient reports whether err says nothing about the file it hit, but that
// the process has too many open.
func transient(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// temp creates a file in tmp under a name of its own.
func (d *disk) temp() (*os.File, string, error) {
	name := fmt.Sprintf("tmp/%016x", rand.Uint64())
	if err := d.try("create", name); err != nil {
		return nil, "", err
	}
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	return f, name, err
}

// write appends p to f.
func (d *disk) write(f *os.File, p []byte) error {
	if err := d.try("write", f.Name()); err != nil {
		return err
	}
	_, err := f.Write(p)
	return err
}

// allocate sets n bytes aside for f, which makes writing cheaper and finds a
// full disk early. A file system that can't do so is no error.
func (d *disk) allocate(f *os.File, n int64) error {
	if err := d.try("allocate", f.Name()); err != nil {
		return err
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &fs.PathError{Op: "allocate", Path: f.Name(), Err: err}
	}
	return nil
}

// truncate cuts f to n bytes, and what was set aside beyond them.
func (d *disk) truncate(f *os.File, n int64) error {
	if err := d.try("truncate", f.Name()); err != nil {
		return err
	}
	return f.Truncate(n)
}

// rename moves a file, making the directory it goes to if it is the first there.
func (d *disk) rename(from, to string) error {
	if err := d.try("rename", to); err != nil {
		return err
	}
	err := d.root.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.directory(path.Dir(to)); err != nil {
			return err
		}
		err = d.root.Rename(from, to)
	}
	return err
}

// writeFile puts a small file in place whole, or not at all.
func (d *disk) writeFile(name string, content []byte) error {
	f, tmp, err := d.temp()
	if err != nil {
		return err
	}
	err = errors.Join(d.write(f, content), f.Close())
	if err == nil {
		err = d.rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, d.remove(tmp))
	}
	return nil
}

// remove deletes a file; one that is not there is no error.
func (d *disk) remove(name string) error {
	if err := d.try("remove", name); err != nil {
		return err
	}
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeAll deletes a file or a directory with all that is in it.
func (d *disk) removeAll(name string) error {
	if err := d.try("remove", name); err != nil {
		return err
	}
	return d.root.RemoveAll(name)
}

// used notes on disk that a blob was read now. It sets the access time, which
// (unlike the modification time) is no part of a file's identity.
func (d *disk) used(name string, now time.Time) error {
	if err := d.try("touch", name); err != nil {
		return err
	}
	return d.root.Chtimes(name, now, time.Time{})
}

// An identity tells whether a file is the one that was looked at before, and
// unchanged since.
type identity struct {
	inode uint64
	size  int64
	mtime int64 // nanoseconds since 1970
}

// sameFile reports whether two descriptors are of one file.
func sameFile(a, b *os.File) (bool, error) {
	x, _, err := identify(a)
	if err != nil {
		return false, err
	}
	y, _, err := identify(b)
	return x.inode == y.inode, err
}

// identify asks for f's identity and when it was last used.
func identify(f *os.File) (id identity, used time.Time, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return id, used, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return id, used, &fs.PathError{Op: "stat", Path: f.Name(), Err: errors.ErrUnsupported}
	}
	id = identity{inode: st.Ino, size: st.Size, mtime: st.Mtim.Nano()}
	return id, time.Unix(st.Atim.Unix()), nil
}
