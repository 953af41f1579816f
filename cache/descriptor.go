package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
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
func inside(r *root, name string, do func(dir int, base string) error) error {
	dir, err := r.descriptor(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
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
		return inside(r, from, func(at int, name string) error {
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

// writeTemp writes a file in tmp under a name of its own. A name that comes with an error
// is that of a file which the caller removes.
func writeTemp(r *root, content []byte) (name string, err error) {
	f, name, err := r.temp()
	if err != nil {
		return "", err
	}
	return name, errors.Join(f.write(content, 0), f.closeWritten())
}

// writeNew writes a file under its name at once, in place of any other. Nobody else may
// use the name meanwhile, and after an error or a crash any part of the file may be there.
func writeNew(r *root, name string, content []byte) error {
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
