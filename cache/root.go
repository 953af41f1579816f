package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A root makes the file calls below the cache directory. Every file call of the
// package goes through it, or through a [file] that it opened. It works below one
// os.Root, so no name can lead out of the directory. It does not follow links
// within the directory either, nor read files of another user: neither are ours.
type root struct {
	dir   *os.Root
	self  *os.File        // the directory itself
	conn  syscall.RawConn // of self, to open files below it
	owner uint32          // of the files that we make
	// fault, set by tests, is asked before each call and fails it.
	fault func(op, name string) error
}

// try asks the fault hook.
func (r *root) try(op, name string) error {
	if r.fault == nil {
		return nil
	}
	return r.fault(op, name)
}

// open opens a file for reading. It does not wait, not even for a pipe.
func (r *root) open(name string) (*file, error) { return r.openFor(name, unix.O_RDONLY) }

// edit opens a file for reading and writing.
func (r *root) edit(name string) (*file, error) { return r.openFor(name, unix.O_RDWR) }

// openFor opens an existing file.
func (r *root) openFor(name string, flag uint64) (*file, error) {
	if err := r.try("open", name); err != nil {
		return nil, err
	}
	f, err := r.openAt(name, flag|unix.O_NONBLOCK)
	return r.file(f, err)
}

// file makes a file of the root of what opening it returned.
func (r *root) file(f *os.File, err error) (*file, error) {
	if err != nil {
		return nil, err
	}
	return &file{f, r}, nil
}

// openToAppend opens a file for appending, and makes it if it is not there.
func (r *root) openToAppend(name string) (*file, error) {
	const flag = unix.O_WRONLY | unix.O_APPEND
	f, err := r.openFor(name, flag)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := r.try("create", name); err != nil {
		return nil, err
	}
	made, err := r.dir.OpenFile(name, os.O_CREATE|os.O_EXCL|flag, 0o600)
	if errors.Is(err, fs.ErrExist) { // another made it just now
		made, err = r.openAt(name, flag|unix.O_NONBLOCK)
	}
	return r.file(made, err)
}

// maxRead bounds the small files: the sums of a blob of 2 TiB.
const maxRead = 64 << 20

// read returns the bytes of a small file.
func (r *root) read(name string) ([]byte, error) { return r.readSmall(name, maxRead) }

// readSmall returns the bytes of a file of at most so many.
func (r *root) readSmall(name string, most int64) (b []byte, err error) {
	err = look(r, name, func(fd int) error {
		b, err = readOpen(r, fd, name, most)
		return err
	})
	return b, err
}

// readOpen is readSmall for a file that is open.
func readOpen(r *root, fd int, name string, most int64) ([]byte, error) {
	if err := r.try("read", name); err != nil {
		return nil, err
	}
	id, _, err := r.identify(fd, name)
	if err != nil {
		return nil, err
	}
	if id.size > most {
		return nil, fmt.Errorf("%s: %d bytes are more than the %d allowed", name, id.size, most)
	}
	b := make([]byte, id.size)
	return b, readFull(fd, name, b)
}

// list returns the entries of a directory.
func (r *root) list(op, name string) ([]fs.DirEntry, error) {
	if err := r.try(op, name); err != nil {
		return nil, err
	}
	return fs.ReadDir(r.dir.FS(), name)
}

// exists reports whether the name may exist.
func (r *root) exists(name string) bool {
	if r.try("stat", name) != nil {
		return true
	}
	_, err := r.dir.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// temp creates a file in tmp under a name of its own.
func (r *root) temp() (f *file, name string, err error) {
	name = tempName()
	f, err = r.create(name)
	return f, name, err
}

// tempName is a new name in tmp.
func tempName() string {
	const digits = 16
	b := append(make([]byte, 0, len("tmp/")+digits), "tmp/"...)
	for bits, n := rand.Uint64(), 0; n < digits; bits, n = bits<<4, n+1 {
		b = append(b, "0123456789abcdef"[bits>>60])
	}
	return string(b)
}

// create creates a file that is not there.
func (r *root) create(name string) (*file, error) {
	if err := r.try("create", name); err != nil {
		return nil, err
	}
	made, err := r.openAt(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)
	return r.file(made, err)
}

// mkdir makes a directory, closed to others, in place of whatever else has its
// name.
func (r *root) mkdir(name string) error {
	if err := r.try("mkdir", name); err != nil {
		return err
	}
	if st, err := r.dir.Lstat(name); err == nil && !st.IsDir() {
		if err := r.dir.Remove(name); err != nil {
			return err
		}
	}
	if err := r.dir.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// rename moves a file, and makes the directory it goes to if it is the first
// there.
func (r *root) rename(from, to string) error {
	if err := r.try("rename", to); err != nil {
		return err
	}
	err := moveFile(r, from, to)
	if missing(err) {
		if err = r.mkdir(path.Dir(to)); err == nil {
			err = moveFile(r, from, to)
		}
	}
	return err
}

// writeFile puts a small file in place whole, or not at all.
func (r *root) writeFile(name string, content []byte) error {
	tmp, err := writeTemp(r, content)
	if err == nil {
		err = r.rename(tmp, name)
	}
	if err != nil && tmp != "" {
		return errors.Join(err, r.remove(tmp))
	}
	return err
}

// appendTo adds b to the end of a small file in one write call.
func (r *root) appendTo(name string, b []byte) error {
	f, err := r.openToAppend(name)
	if err != nil {
		return err
	}
	if _, _, err := f.identify(); err != nil {
		return errors.Join(err, f.close())
	}
	if err := r.try("write", name); err != nil {
		return errors.Join(err, f.close())
	}
	_, err = f.os.Write(b)
	return errors.Join(err, f.closeWritten())
}

// remove deletes a file. It is no error if there is none.
func (r *root) remove(name string) error {
	if err := r.try("remove", name); err != nil {
		return err
	}
	return unlinked(r, name, inside(r, name, func(dir int, base string) error { return unix.Unlinkat(dir, base, 0) }))
}

// unlinked takes the error of unlinking a file, and does what else may remove it.
func unlinked(r *root, name string, err error) error {
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrClosed) {
		err = r.dir.Remove(name) // a directory, a link on the way, or openat2 is not known
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeAll deletes a file, or a directory with all that is in it.
func (r *root) removeAll(name string) error {
	if err := r.try("remove", name); err != nil {
		return err
	}
	return r.dir.RemoveAll(name)
}

// touch notes on disk when a blob was read. It sets the access time, which
// (unlike the modification time) is not part of a file's identity.
func (r *root) touch(name string, at time.Time) error {
	if err := r.try("touch", name); err != nil {
		return err
	}
	return r.dir.Chtimes(name, at, time.Time{})
}

// free returns how many bytes the disk has room for, as far as it says so.
func (r *root) free() (int64, error) {
	if err := r.try("statfs", "."); err != nil {
		return 0, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.self.Fd()), &st); err != nil {
		return 0, err
	}
	return inBytes(st.Bavail, st.Bsize), nil
}

// inBytes returns how many bytes so many blocks are.
func inBytes(blocks uint64, size int64) int64 { return int64(min(blocks, math.MaxInt64>>20)) * size }

// full reports whether err says that a disk has no room left.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// transient reports whether err says nothing about the file it hit, but that
// the process has too many open, or was interrupted.
func transient(err error) bool {
	return errors.Is(err, unix.EINTR) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// removedAnyhow takes the error of remove and reports whether nothing is left to
// remove: the file is removed, or its directory was given up.
func removedAnyhow(err error) bool { return err == nil || errors.Is(err, os.ErrClosed) }
