package cache

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// maxNote bounds, in bytes, what [Folder.Read] returns.
const maxNote = 16 << 20

// noteName matches the names that a Folder takes.
var noteName = regexp.MustCompile(`^[a-z0-9.-]{1,100}$`)

// errNoteName: a Folder does not take the name.
var errNoteName = errors.New("is not a valid name of a note: use 1 to 100 characters of a-z, 0-9, dot and dash")

// A Folder holds what a store's owner keeps beside the blobs: files in a directory
// of their own, of which there are two: see [Folders]. Its methods may be called
// from any goroutine. Two calls for one name at the same time are in no order: the
// caller orders them.
type Folder struct {
	disk *disk
	dir  string // below the cache directory
}

// Folders are those of one cache directory.
type Folders struct {
	Notes *Folder // small files
	Pages *Folder // files of any size
}

// Names returns the names of the files.
func (f *Folder) Names() ([]string, error) {
	entries, err := f.disk.list(f.dir, f.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the %s: %w", f.dir, err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && noteName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// A Note is a file as a directory's entry tells of it.
type Note struct {
	Name    string
	Size    int64     // in bytes
	Written time.Time // last
}

// Notes returns the files, those that were written last at the end.
func (f *Folder) Notes() ([]Note, error) {
	entries, err := f.disk.list(f.dir, f.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the %s: %w", f.dir, err)
	}
	var out []Note
	for _, e := range entries {
		if !e.Type().IsRegular() || !noteName.MatchString(e.Name()) {
			continue
		}
		if info, err := e.Info(); err == nil { // else it was removed just now
			out = append(out, Note{e.Name(), info.Size(), info.ModTime()})
		}
	}
	slices.SortStableFunc(out, func(a, b Note) int { return a.Written.Compare(b.Written) })
	return out, nil
}

// Read returns the content of a file of at most 16 MiB. The error is
// fs.ErrNotExist if there is no such file.
func (f *Folder) Read(name string) ([]byte, error) {
	path, err := f.path(name)
	if err != nil {
		return nil, err
	}
	b, err := f.disk.readSmall(path, maxNote)
	return b, f.wrap("reading", name, err)
}

// Write replaces the whole file by a rename: a reader finds the old content or
// the new one, even after a crash of the process.
func (f *Folder) Write(name string, b []byte) error {
	path, err := f.path(name)
	if err != nil {
		return err
	}
	return f.wrap("writing", name, f.disk.writeFile(path, b))
}

// Append adds b to the file's end in one write call, and makes the file if need
// be. After an error any first part of b may be there.
func (f *Folder) Append(name string, b []byte) error {
	path, err := f.path(name)
	if err != nil {
		return err
	}
	return f.wrap("appending to", name, f.disk.appendTo(path, b))
}

// Remove deletes the file. It is no error if there is none.
func (f *Folder) Remove(name string) error {
	path, err := f.path(name)
	if err != nil {
		return err
	}
	return f.wrap("removing", name, f.disk.remove(path))
}

// newFolders returns the Folders of a disk.
func newFolders(d *disk) Folders { return Folders{newFolder(d, "notes"), newFolder(d, "pages")} }

// newFolder returns a Folder of a disk. It removes anything in it that is not a
// file, so that no name is blocked.
func newFolder(d *disk, dir string) *Folder {
	f := &Folder{d, dir}
	entries, err := d.list(dir, dir)
	if err != nil {
		return f // the first call says so
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			_ = d.removeAll(dir + "/" + e.Name()) // if this fails, writing the file will say so
		}
	}
	return f
}

// path returns the path of the file of that name.
func (f *Folder) path(name string) (string, error) {
	if !noteName.MatchString(name) || name == "." || name == ".." {
		return "", fmt.Errorf("%.100q %w", name, errNoteName)
	}
	return f.dir + "/" + name, nil
}

// wrap adds to err what was being done to which file.
func (f *Folder) wrap(doing, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s/%s: %w", doing, f.dir, name, err)
}
