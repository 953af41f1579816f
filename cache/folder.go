package cache

import (
	"errors"
	"fmt"
	"regexp"
)

// maxNote bounds, in bytes, what [Folder.Read] returns.
const maxNote = 16 << 20

// noteName matches the names that a Folder takes.
var noteName = regexp.MustCompile(`^[a-z0-9.-]{1,100}$`)

// errNoteName: a Folder does not take the name.
var errNoteName = errors.New("is not a valid name of a note: use 1 to 100 characters of a-z, 0-9, dot and dash")

// A Folder holds the notes that a store's owner keeps beside the blobs: small
// files in the directory notes of the cache directory. Its methods may be
// called from any goroutine. Two calls for one name at the same time are in no
// order: the caller orders them.
type Folder struct{ disk *disk }

// Names returns the names of the files.
func (f *Folder) Names() ([]string, error) {
	entries, err := f.disk.list("notes", "notes")
	if err != nil {
		return nil, fmt.Errorf("listing the notes: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && noteName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Read returns the content of a file of at most 16 MiB. The error is
// fs.ErrNotExist if there is no such file.
func (f *Folder) Read(name string) ([]byte, error) {
	path, err := notePath(name)
	if err != nil {
		return nil, err
	}
	b, err := f.disk.readSmall(path, maxNote)
	return b, wrapNote("reading", name, err)
}

// Write replaces the whole file by a rename: a reader finds the old content or
// the new one, even after a crash of the process.
func (f *Folder) Write(name string, b []byte) error {
	path, err := notePath(name)
	if err != nil {
		return err
	}
	return wrapNote("writing", name, f.disk.writeFile(path, b))
}

// Append adds b to the file's end in one write call, and makes the file if need
// be. After an error any first part of b may be there.
func (f *Folder) Append(name string, b []byte) error {
	path, err := notePath(name)
	if err != nil {
		return err
	}
	return wrapNote("appending to", name, f.disk.appendTo(path, b))
}

// Remove deletes the file. It is no error if there is none.
func (f *Folder) Remove(name string) error {
	path, err := notePath(name)
	if err != nil {
		return err
	}
	return wrapNote("removing", name, f.disk.remove(path))
}

// newFolder returns the Folder of a disk. It removes anything in it that is not a
// file, so that no note's name is blocked.
func newFolder(d *disk) *Folder {
	entries, err := d.list("notes", "notes")
	if err != nil {
		return &Folder{d} // the first call says so
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			_ = d.removeAll("notes/" + e.Name()) // if this fails, writing the note will say so
		}
	}
	return &Folder{d}
}

// notePath returns the path of the note of that name.
func notePath(name string) (string, error) {
	if !noteName.MatchString(name) || name == "." || name == ".." {
		return "", fmt.Errorf("%.100q %w", name, errNoteName)
	}
	return "notes/" + name, nil
}

// wrapNote adds to err what was being done to which note.
func wrapNote(doing, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s note %s: %w", doing, name, err)
}
