package cache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"syscall"
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
// it, below one os.Root: no name can lead out of the directory. Links are not
// followed within it either, and what belongs to another user is not read:
// neither is ours.
type disk struct {
	root  *os.Root
	here  syscall.RawConn // the directory, for opening below it
	self  *os.File        // what here is of
	lock  *os.File
	owner uint32 // of the files that we make
	// fault, set by tests, is asked before each call and fails it.
	fault func(op, name string) error
}

// closeFile closes a file that was written.
func (d *disk) closeFile(f *os.File) error { return errors.Join(d.try("close", f.Name()), f.Close()) }

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
	return d.openAt(name, unix.O_RDONLY)
}

// edit opens a file for going on with it.
func (d *disk) edit(name string) (*os.File, error) {
	if err := d.try("open", name); err != nil {
		return nil, err
	}
	return d.openAt(name, unix.O_RDWR)
}

// openAt opens what is there, wherever it can without following a link: an
// os.Root follows those that stay below it. Kernels and sandboxes that don't
// know the call leave it at that.
func (d *disk) openAt(name string, flag uint64) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   flag | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := -1, error(nil)
	if closed := d.here.Control(func(dir uintptr) {
		for {
			fd, err = unix.Openat2(int(dir), name, how)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}); closed != nil {
		return nil, fmt.Errorf("opening %s: %w", name, os.ErrClosed)
	}
	switch {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.E2BIG):
		return d.root.OpenFile(name, int(flag)|unix.O_NONBLOCK, 0)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// maxRead bounds the small files: the sums of a blob of 2 TiB.
const maxRead = 64 << 20

// read returns a small file's bytes.
func (d *disk) read(name string) ([]byte, error) { return d.readSmall(name, maxRead) }

// readSmall returns the bytes of a file that has at most so many.
func (d *disk) readSmall(name string, most int64) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if err := d.try("read", name); err != nil {
		return nil, err
	}
	id, _, err := d.identify(f)
	if err != nil {
		return nil, err
	}
	if id.size > most {
		return nil, fmt.Errorf("%s: %d bytes are more than the %d allowed", name, id.size, most)
	}
	b := make([]byte, id.size)
	_, err = io.ReadFull(f, b)
	return b, err
}

// readAt reads len(p) bytes of an open blob.
func (d *disk) readAt(f *os.File, p []byte, off int64) error {
	_, err := readerAt{d, f}.ReadAt(p, off)
	return err
}

// list returns what is in a directory.
func (d *disk) list(op, name string) ([]fs.DirEntry, error) {
	if err := d.try(op, name); err != nil {
		return nil, err
	}
	return fs.ReadDir(d.root.FS(), name)
}

// exists reports whether there may be something of this name.
func (d *disk) exists(name string) bool {
	if d.try("stat", name) != nil {
		return true
	}
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

// write writes p to f at off. Where it is said, a write that failed half way
// can be done again.
func (d *disk) write(f *os.File, p []byte, off int64) error {
	if err := d.try("write", f.Name()); err != nil {
		return err
	}
	_, err := f.WriteAt(p, off)
	return err
}

// allocate sets n bytes aside for f, which makes writing cheaper and finds a
// full disk early. A file system that can't do so is no error.
func (d *disk) allocate(f *os.File, n int64) error {
	if err := d.try("allocate", f.Name()); err != nil {
		return err
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
	if full(err) {
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
	if st, err := d.root.Lstat(path.Dir(to)); err != nil || !st.IsDir() { // a link to one is none
		if err := d.directory(path.Dir(to)); err != nil {
			return err
		}
	}
	return d.root.Rename(from, to)
}

// writeFile puts a small file in place whole, or not at all.
func (d *disk) writeFile(name string, content []byte) error {
	f, tmp, err := d.temp()
	if err != nil {
		return err
	}
	err = errors.Join(d.write(f, content, 0), d.closeFile(f))
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
func (d *disk) sameFile(a, b *os.File) (bool, error) {
	x, _, err := d.identify(a)
	if err != nil {
		return false, err
	}
	y, _, err := d.identify(b)
	return x.inode == y.inode, err
}

// identify asks for f's identity and when it was last used. What is no file, or
// not ours, has none.
func (d *disk) identify(f *os.File) (id identity, used time.Time, err error) {
	if err := d.try("stat", f.Name()); err != nil {
		return id, used, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return id, used, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return id, used, &fs.PathError{Op: "stat", Path: f.Name(), Err: errors.ErrUnsupported}
	}
	if st.Uid != d.owner {
		return id, used, &fs.PathError{Op: "stat", Path: f.Name(), Err: errForeign}
	}
	id = identity{inode: st.Ino, size: st.Size, mtime: st.Mtim.Nano()}
	return id, time.Unix(st.Atim.Unix()), nil
}

// send writes n bytes of f at off to w, by the kernel if it and w can.
func (d *disk) send(w io.Writer, f *os.File, off, n int64) (int64, error) {
	if d.try("send", f.Name()) != nil {
		return copyFile(w, io.NewSectionReader(readerAt{d, f}, off, n), n)
	}
	return sendFile(w, f, off, n)
}

// A readerAt reads an open blob.
type readerAt struct {
	disk *disk
	file *os.File
}

// ReadAt implements io.ReaderAt.
func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if err := r.disk.try("read", r.file.Name()); err != nil {
		return 0, err
	}
	return r.file.ReadAt(p, off)
}

// free is how many bytes the disk has room for, as far as it says so.
func (d *disk) free() (int64, error) {
	if err := d.try("statfs", "."); err != nil {
		return 0, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.self.Fd()), &st); err != nil {
		return 0, err
	}
	return int64(min(st.Bavail, math.MaxInt64>>20)) * st.Bsize, nil
}

// full reports whether err says that a disk has no room left.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
