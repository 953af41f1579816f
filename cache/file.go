package cache

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A file is an open file below a root.
type file struct {
	os   *os.File
	root *root
}

// An identity tells whether a file is the one that was looked at before, and
// unchanged since.
type identity struct {
	inode uint64
	size  int64
	mtime int64 // nanoseconds since 1970
}

// errForeign: a file that is not ours.
var errForeign = errors.New("belongs to another user")

// identify returns the file's identity, and when it was last used. It fails if the
// file is not a regular one, or not ours.
func (f *file) identify() (id identity, used time.Time, err error) {
	return f.root.identify(int(f.os.Fd()), f.os.Name())
}

// failed says which call failed on the file.
func (f *file) failed(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.os.Name(), Err: err}
}

// same reports whether g is the same file.
func (f *file) same(g *file) (bool, error) {
	x, _, err := f.identify()
	if err != nil {
		return false, err
	}
	y, _, err := g.identify()
	return x.inode == y.inode, err
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.root.try("read", f.os.Name()); err != nil {
		return 0, err
	}
	return f.os.ReadAt(p, off)
}

// readAt reads len(p) bytes at off.
func (f *file) readAt(p []byte, off int64) error {
	_, err := f.ReadAt(p, off)
	return err
}

// readable reports whether the file can be read at off. It tells a bad disk from
// a client that has gone.
func (f *file) readable(off int64) bool {
	var b [1]byte
	return f.readAt(b[:], off) == nil
}

// write writes p at off. A write that failed half way can be done again.
func (f *file) write(p []byte, off int64) error {
	if err := f.root.try("write", f.os.Name()); err != nil {
		return err
	}
	_, err := f.os.WriteAt(p, off)
	return err
}

// allocate sets n bytes aside for the file, which makes writing cheaper and
// finds a full disk early. A file system that can't do so is no error.
func (f *file) allocate(n int64) error {
	if err := f.root.try("allocate", f.os.Name()); err != nil {
		return err
	}
	err := unix.Fallocate(int(f.os.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
	if full(err) {
		return f.failed("allocate", err)
	}
	return nil
}

// truncate cuts the file to n bytes, and gives up the room set aside beyond them.
func (f *file) truncate(n int64) error {
	if err := f.root.try("truncate", f.os.Name()); err != nil {
		return err
	}
	return f.os.Truncate(n)
}

// close closes a file that was only read, or whose content no longer matters.
func (f *file) close() error { return f.os.Close() }

// closeWritten closes a file that was written.
func (f *file) closeWritten() error {
	return errors.Join(f.root.try("close", f.os.Name()), f.os.Close())
}

// send writes n bytes at off to w, by the kernel if it and w can.
func (f *file) send(w io.Writer, off, n int64) (int64, error) {
	if f.root.try("send", f.os.Name()) != nil {
		return f.copyTo(w, off, n)
	}
	if _, err := f.os.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	src := &io.LimitedReader{R: f.os, N: n}
	if rf, ok := w.(io.ReaderFrom); ok {
		k, err := rf.ReadFrom(src)
		return k, short(k, n, err)
	}
	return copyAll(w, src, n)
}

// copyTo writes n bytes at off to w. Unlike send it leaves the descriptor's own
// offset alone, so that any number may use one descriptor.
func (f *file) copyTo(w io.Writer, off, n int64) (int64, error) {
	return copyAll(w, io.NewSectionReader(f, off, n), n)
}

// buffers are chunks for reading and copying.
var buffers = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// copyAll writes the n bytes of src to w.
func copyAll(w io.Writer, src io.Reader, n int64) (int64, error) {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	k, err := io.CopyBuffer(w, src, buf[:])
	return k, short(k, n, err)
}

// short makes it an error that k of n bytes were there.
func short(k, n int64, err error) error {
	if err == nil && k < n {
		return io.ErrUnexpectedEOF
	}
	return err
}
