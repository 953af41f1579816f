package setup

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// recordName is the folder, beside a client's files, in which setup keeps what it needs to undo
// what it did. The shell script and the program keep it alike:
//
//	before/PATH  a file as it was, if there was one
//	after/PATH   the file as setup left it
//	made         the folders that setup made, a line each, in the order of making
const recordName = "oci-proxy-setup"

// maxRecorded bounds the files of a record.
const maxRecorded = 1000

// A record is what setup has done on a machine for a client.
type record struct {
	dir   string             // its folder, on the client's machine
	files map[string]twofold // by path
	made  []string
}

// A twofold is a file before and after setup wrote it; before is nil if there was none.
type twofold struct{ before, after []byte }

// recordAt reads the record beside a client's files. It is empty if there is none.
func (m *Machine) recordAt(clientDir string) (record, error) {
	r := record{dir: path.Join(clientDir, recordName), files: map[string]twofold{}}
	top, err := m.real(path.Join(r.dir, "after"))
	if err != nil {
		return r, err
	}
	err = filepath.WalkDir(top, func(at string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && at == top:
			return fs.SkipAll
		case err != nil:
			return err
		case d.IsDir():
			return nil
		case len(r.files) == maxRecorded:
			return errors.New("too many files in " + top)
		}
		file := filepath.ToSlash(strings.TrimPrefix(at, top))
		var both twofold
		if both.after, err = m.read(path.Join(r.dir, "after", file)); err != nil {
			return err
		}
		both.before, err = m.read(path.Join(r.dir, "before", file))
		r.files[file] = both
		return err
	})
	if err != nil {
		return r, err
	}
	made, err := m.read(path.Join(r.dir, "made"))
	r.made = strings.FieldsFunc(string(made), func(c rune) bool { return c == '\n' })
	return r, err
}

// reverted returns a file as it is now without what setup wrote there, nil for none.
func reverted(file string, now []byte, was twofold) ([]byte, error) {
	switch {
	case now == nil:
		return nil, nil
	case bytes.Equal(now, was.after):
		return was.before, nil
	case path.Ext(file) == ".json":
		left, err := revertJSON(now, was.before, was.after)
		if err != nil {
			return nil, refuse("it is not valid JSON any more: "+err.Error()+". Take away yourself what setup has added; "+recordName+" beside it has the file before and after", "")
		}
		return left, nil
	}
	left := unmarked(now)
	switch {
	case was.before == nil && len(bytes.TrimSpace(left)) == 0:
		return nil, nil
	case was.before != nil && bytes.Equal(bytes.TrimRight(left, "\r\n"), bytes.TrimRight(was.before, "\r\n")):
		return was.before, nil
	}
	return left, leaves(file, now, left, was.before)
}

// keep writes the record.
func (r record) keep(m *Machine) error {
	if len(r.files) == 0 {
		return r.forget(m)
	}
	old, err := m.recordAt(path.Dir(r.dir))
	if err != nil {
		return err
	}
	for file, both := range r.files {
		if err := m.note(path.Join(r.dir, "before", file), both.before); err != nil {
			return err
		}
		if err := m.note(path.Join(r.dir, "after", file), both.after); err != nil {
			return err
		}
		delete(old.files, file)
	}
	for file := range maps.Keys(old.files) {
		if err := errors.Join(m.note(path.Join(r.dir, "after", file), nil), m.note(path.Join(r.dir, "before", file), nil)); err != nil {
			return err
		}
	}
	return m.note(path.Join(r.dir, "made"), []byte(strings.Join(r.made, "\n")+"\n"))
}

// note writes one file of a record, or removes it if the text is nil.
func (m *Machine) note(at string, text []byte) error {
	where, err := m.real(at)
	if err != nil {
		return err
	}
	if text == nil {
		err := os.Remove(where)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := os.MkdirAll(filepath.Dir(where), 0o700); err != nil {
		return err
	}
	staged, err := stage(where, text, 0o600)
	if err != nil {
		return err
	}
	return staged.commit()
}

// forget removes the record.
func (r record) forget(m *Machine) error {
	where, err := m.real(r.dir)
	if err != nil {
		return err
	}
	return os.RemoveAll(where)
}

// sweep removes the folders that setup made and that are empty now, and returns those that
// stay.
func (m *Machine) sweep(made []string) (left []string) {
	for _, dir := range slices.Backward(made) {
		at, err := m.real(dir)
		if err != nil || os.Remove(at) != nil { // not empty
			left = append(left, dir)
		}
	}
	slices.Reverse(left)
	return left
}
