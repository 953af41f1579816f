package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

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
	o := openings.Get().(*opening)
	defer openings.Put(o)
	o.name, o.how = name, unix.OpenHow{Flags: flag | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if flag&unix.O_CREAT != 0 {
		o.how.Mode = 0o600
	}
	if closed := r.conn.Control(o.below); closed != nil {
		return -1, fmt.Errorf("opening %s: %w", name, os.ErrClosed)
	}
	if o.err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: o.err}
	}
	return o.fd, nil
}

// An opening is a call of openat2, with what came of it. They are used again: what a closure for
// each would keep in memory is a tenth of what a small blob on its way in does.
type opening struct {
	name  string
	how   unix.OpenHow
	fd    int
	err   error
	below func(dir uintptr) // makes the call
}

var openings = sync.Pool{New: func() any {
	o := &opening{}
	o.below = func(dir uintptr) {
		o.fd, o.err = uninterrupted(func() (int, error) { return unix.Openat2(int(dir), o.name, &o.how) })
	}
	return o
}}

// inside calls do with a descriptor of the directory that a file lies in, and the file's
// name there. So a call names one directory instead of walking to it, as os.Root does.
func inside(r *root, name string, do func(dir int, base string) error) error {
	dir, err := r.descriptor(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if unknown(err) {
		f, err := r.dir.Open(path.Dir(name))
		if err != nil {
			return err
		}
		return errors.Join(do(int(f.Fd()), path.Base(name)), f.Close())
	}
	if err != nil {
		return err
	}
	err = do(dir, path.Base(name))
	return errors.Join(err, unix.Close(dir))
}

// missing reports whether err says that a directory is not there; a link or a file does
// not count as one.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// moveFile renames a file.
func moveFile(r *root, from, to string) error {
	err := inside(r, to, func(dir int, base string) error {
		move := func(at int, name string) error {
			if err := unix.Renameat(at, name, dir, base); err != nil {
				return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
			}
			return nil
		}
		return inside(r, from, move)
	})
	return err
}

// removeBoth deletes two files of one directory, the second if the first is gone then. An error
// of each is as that of root.remove.
func removeBoth(r *root, first, second string) (one, other error) {
	way := inside(r, first, func(dir int, _ string) error {
		unlink := func(name string) error {
			if err := r.try("remove", name); err != nil {
				return err
			}
			return unlinked(r, name, unix.Unlinkat(dir, path.Base(name), 0))
		}
		if one = unlink(first); removedAnyhow(one) {
			other = unlink(second)
		}
		return nil
	})
	if way != nil { // the directory is gone, or its descriptor can't be had
		if one = r.remove(first); removedAnyhow(one) {
			other = r.remove(second)
		}
	}
	return one, other
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
func look(r *root, name string, do func(fd int) error) error {
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
	var st unix.Stat_t
	return identityOf(r, name, &st, unix.Fstat(fd, &st))
}

// identityOf is root.identify for what a stat call told of a file, or its error.
func identityOf(r *root, name string, st *unix.Stat_t, err error) (id identity, used time.Time, _ error) {
	failed := func(err error) error { return &fs.PathError{Op: "stat", Path: name, Err: err} }
	if err != nil {
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

// readIn returns the bytes of a small file in an open directory.
func readIn(r *root, dir int, name string) ([]byte, error) {
	if err := r.try("open", name); err != nil {
		return nil, err
	}
	fd, err := uninterrupted(func() (int, error) {
		return unix.Openat(dir, path.Base(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	b, err := readOpen(r, fd, name, maxRead)
	_ = unix.Close(fd) // only read
	return b, err
}

// identifyIn is root.identify for a file in an open directory, without opening it.
func identifyIn(r *root, dir int, name string) (id identity, used time.Time, err error) {
	if err := r.try("stat", name); err != nil {
		return id, used, err
	}
	st, err := uninterrupted(func() (st unix.Stat_t, err error) {
		err = unix.Fstatat(dir, path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
		return st, err
	})
	return identityOf(r, name, &st, err)
}

// uninterrupted makes a call of the system again while a signal ends it.
func uninterrupted[T any](call func() (T, error)) (v T, err error) {
	for {
		if v, err = call(); !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// entriesOf returns the entries of a directory, sorted, which know their name and type alone: it
// does not look at each as an os.Root does.
func entriesOf(r *root, name string) ([]fs.DirEntry, error) {
	if err := r.try("list", name); err != nil {
		return nil, err
	}
	f, err := r.openAt(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	all, err := f.ReadDir(-1)
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return all, errors.Join(err, f.Close())
}

// writeTemp writes a file in tmp under a name of its own. A name that comes with an error
// is that of a file which the caller removes.
func writeTemp(r *root, content []byte) (name string, err error) {
	name = tempName()
	made, err := writeSmall(r, name, content)
	if !made {
		return "", err
	}
	return name, err
}

// writeNew writes a file under its name at once, in place of any other. Nobody else may
// use the name meanwhile, and after an error or a crash any part of the file may be there.
func writeNew(r *root, name string, content []byte) error {
	made, err := writeSmall(r, name, content)
	switch {
	case made:
		return err
	case errors.Is(err, fs.ErrExist):
		err = r.removeAll(name)
	case missing(err):
		err = r.mkdir(path.Dir(name))
	}
	if err != nil {
		return err
	}
	_, err = writeSmall(r, name, content)
	return err
}

// writeSmall makes a file that is not there, and writes it by way of a descriptor alone: an
// os.File costs more than the writing. It reports whether the file was made, also with an error.
func writeSmall(r *root, name string, content []byte) (made bool, err error) {
	if err := r.try("create", name); err != nil {
		return false, err
	}
	fd, err := r.descriptor(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)
	if unknown(err) {
		f, err := r.dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return false, err
		}
		one := &file{f, r}
		return true, errors.Join(one.write(content, 0), one.closeWritten())
	}
	if err != nil {
		return false, err
	}
	err = r.try("write", name)
	if err == nil {
		err = writeFull(fd, name, content)
	}
	return true, errors.Join(err, r.try("close", name), unix.Close(fd))
}

// writeFull writes a file from its beginning.
func writeFull(fd int, name string, b []byte) error {
	for n := 0; n < len(b); {
		k, err := unix.Pwrite(fd, b[n:], int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return &fs.PathError{Op: "write", Path: name, Err: err}
		case k == 0:
			return &fs.PathError{Op: "write", Path: name, Err: io.ErrShortWrite}
		}
		n += max(k, 0)
	}
	return nil
}
