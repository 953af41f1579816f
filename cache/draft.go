package cache

import (
	"errors"
	"fmt"
)

// A Draft is a file that does not have its name yet: nobody finds it, and the next
// start removes it. Its bytes can be read while it is written. End it by Close.
// Write and Keep are for one goroutine at a time.
type Draft struct {
	folder *Folder
	file   *file
	tmp    string // its name until it is kept, "" afterwards
	size   int64
}

// Draft begins a file.
func (f *Folder) Draft() (*Draft, error) {
	made, tmp, err := f.disk.temp()
	if err != nil {
		return nil, fmt.Errorf("making a file for %s: %w", f.dir, err)
	}
	return &Draft{folder: f, file: made, tmp: tmp}, nil
}

// Write implements io.Writer.
func (d *Draft) Write(p []byte) (int, error) {
	if err := d.file.write(p, d.size); err != nil {
		return 0, d.folder.wrap("writing", "", err)
	}
	d.size += int64(len(p))
	return len(p), nil
}

// ReadAt implements io.ReaderAt. Any number may read at a time.
func (d *Draft) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

// Keep gives the file its name, in place of any other of that name. Those who have
// that one open go on reading it.
func (d *Draft) Keep(name string) error {
	path, err := d.folder.path(name)
	if err != nil {
		return err
	}
	if err := d.folder.disk.rename(d.tmp, path); err != nil {
		return d.folder.wrap("keeping", name, err)
	}
	d.tmp = ""
	return nil
}

// Close closes the file, and removes it unless it was kept.
func (d *Draft) Close() error {
	err := d.file.closeWritten()
	if d.tmp != "" {
		err = errors.Join(err, d.folder.disk.remove(d.tmp))
	}
	return err
}

// An OpenNote is a file of a Folder that is being read. Any number may read at a
// time. Close it.
type OpenNote struct {
	file *file
	size int64
}

// Open opens a file for reading. The error is fs.ErrNotExist if there is no such
// file. One that is removed or replaced meanwhile can be read to its end.
func (f *Folder) Open(name string) (*OpenNote, error) {
	path, err := f.path(name)
	if err != nil {
		return nil, err
	}
	opened, err := f.disk.open(path)
	if err != nil {
		return nil, f.wrap("opening", name, err)
	}
	id, _, err := opened.identify()
	if err != nil {
		return nil, errors.Join(f.wrap("opening", name, err), opened.close())
	}
	return &OpenNote{opened, id.size}, nil
}

// Size returns the file's size in bytes, as it was when it was opened.
func (n *OpenNote) Size() int64 { return n.size }

// ReadAt implements io.ReaderAt.
func (n *OpenNote) ReadAt(p []byte, off int64) (int, error) { return n.file.ReadAt(p, off) }

// Close closes the file.
func (n *OpenNote) Close() error { return n.file.close() }
