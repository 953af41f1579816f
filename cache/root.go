package cache

import (
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

// openAt opens a file, or makes it if flag says so, without following links; an os.Root
// follows those that stay below it. If the kernel or a sandbox does not know the call,
// os.Root has to do.
func (r *root) openAt(name string, flag uint64) (*os.File, error) {
	fd, err := r.descriptor(name, flag)
	switch {
	case unknown(err):
		return r.dir.OpenFile(name, int(flag), 0o600)
	case err != nil:
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// unknown reports whether err says that openat2 can't be used here.
func unknown(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.E2BIG)
}

// descriptor is openAt for a descriptor.
func (r *root) descriptor(name string, flag uint64) (int, error) {
	how := &unix.OpenHow{Flags: flag | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if flag&unix.O_CREAT != 0 {
		how.Mode = 0o600
	}
	fd, err := -1, error(nil)
	if closed := r.conn.Control(func(dir uintptr) {
		for {
			fd, err = unix.Openat2(int(dir), name, how)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}); closed != nil {
		return -1, fmt.Errorf("opening %s: %w", name, os.ErrClosed)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// inside calls do with a descriptor of the directory that a file lies in, and the file's
// name there. So a call names one directory instead of walking to it, as os.Root does.
func (r *root) inside(name string, do func(dir int, base string) error) error {
	dir, err := r.descriptor(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	err = do(dir, path.Base(name))
	return errors.Join(err, unix.Close(dir))
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
	err = r.look(name, func(fd int) error {
		if err := r.try("read", name); err != nil {
			return err
		}
		id, _, err := r.identify(fd, name)
		if err != nil {
			return err
		}
		if id.size > most {
			return fmt.Errorf("%s: %d bytes are more than the %d allowed", name, id.size, most)
		}
		b = make([]byte, id.size)
		return readFull(fd, name, b)
	})
	return b, err
}

// readFull reads the first bytes of a file.
func readFull(fd int, name string, b []byte) error {
	for n := 0; n < len(b); {
		k, err := unix.Pread(fd, b[n:], int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return &fs.PathError{Op: "read", Path: name, Err: err}
		case k == 0:
			return io.ErrUnexpectedEOF
		}
		n += max(k, 0)
	}
	return nil
}

// look opens a file for a moment. It costs less than open.
func (r *root) look(name string, do func(fd int) error) error {
	if err := r.try("open", name); err != nil {
		return err
	}
	fd, err := r.descriptor(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if unknown(err) {
		f, err := r.dir.OpenFile(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		return errors.Join(do(int(f.Fd())), f.Close())
	}
	if err != nil {
		return err
	}
	err = do(fd)
	_ = unix.Close(fd) // only read
	return err
}

// identify returns the identity of an open file, and when it was last used. It fails if the
// file is not a regular one, or not ours.
func (r *root) identify(fd int, name string) (id identity, used time.Time, err error) {
	if err := r.try("stat", name); err != nil {
		return id, used, err
	}
	failed := func(err error) error { return &fs.PathError{Op: "stat", Path: name, Err: err} }
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return id, used, failed(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return id, used, failed(errors.ErrUnsupported)
	}
	if st.Uid != r.owner {
		return id, used, failed(errForeign)
	}
	id = identity{inode: st.Ino, size: st.Size, mtime: st.Mtim.Nano()}
	return id, time.Unix(st.Atim.Unix()), nil
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
	name = fmt.Sprintf("tmp/%016x", rand.Uint64())
	f, err = r.create(name)
	return f, name, err
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
	err := r.move(from, to)
	if missing(err) {
		if err = r.mkdir(path.Dir(to)); err == nil {
			err = r.move(from, to)
		}
	}
	return err
}

// missing reports whether err says that a directory is not there; a link or a file does
// not count as one.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// move renames a file.
func (r *root) move(from, to string) error {
	err := r.inside(to, func(dir int, base string) error {
		return r.inside(from, func(at int, name string) error {
			if err := unix.Renameat(at, name, dir, base); err != nil {
				return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
			}
			return nil
		})
	})
	if unknown(err) {
		return r.dir.Rename(from, to)
	}
	return err
}

// writeFile puts a small file in place whole, or not at all.
func (r *root) writeFile(name string, content []byte) error {
	tmp, err := r.writeTemp(content)
	if err == nil {
		err = r.rename(tmp, name)
	}
	if err != nil && tmp != "" {
		return errors.Join(err, r.remove(tmp))
	}
	return err
}

// writeTemp writes a file in tmp under a name of its own. A name that comes with an error
// is that of a file which the caller removes.
func (r *root) writeTemp(content []byte) (name string, err error) {
	f, name, err := r.temp()
	if err != nil {
		return "", err
	}
	return name, errors.Join(f.write(content, 0), f.closeWritten())
}

// writeNew writes a file under its name at once, in place of any other. Nobody else may
// use the name meanwhile, and after an error or a crash any part of the file may be there.
func (r *root) writeNew(name string, content []byte) error {
	f, err := r.create(name)
	switch {
	case errors.Is(err, fs.ErrExist):
		if err = r.removeAll(name); err == nil {
			f, err = r.create(name)
		}
	case missing(err):
		if err = r.mkdir(path.Dir(name)); err == nil {
			f, err = r.create(name)
		}
	}
	if err != nil {
		return err
	}
	return errors.Join(f.write(content, 0), f.closeWritten())
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
	err := r.inside(name, func(dir int, base string) error { return unix.Unlinkat(dir, base, 0) })
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
// the process has too many open.
func transient(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// removedAnyhow takes the error of remove and reports whether nothing is left to
// remove: the file is removed, or its directory was given up.
func removedAnyhow(err error) bool { return err == nil || errors.Is(err, os.ErrClosed) }
