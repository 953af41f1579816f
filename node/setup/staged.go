package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

// A staged is a file that is written, but not in its place yet.
type staged struct {
	at   string // its place
	temp string // where it lies until then; "": the file in its place is to be removed
	old  []byte // what was in its place, nil for nothing
	mode fs.FileMode
}

// stageOver stages a file with the rights and the owner of the one in its place. A nil text
// removes that.
func stageOver(at string, text []byte) (staged, error) {
	info, err := os.Stat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return stage(at, text, 0o644)
	} else if err != nil {
		return staged{}, err
	}
	old, err := os.ReadFile(at)
	if err != nil {
		return staged{}, err
	}
	if text == nil {
		return staged{at: at, old: old, mode: info.Mode().Perm()}, nil
	}
	s, err := stage(at, text, info.Mode().Perm())
	s.old = old
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && err == nil && (int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid()) {
		if err := os.Chown(s.temp, int(owner.Uid), int(owner.Gid)); err != nil {
			return staged{}, errors.Join(fmt.Errorf("keeping the owner of %s: %w", at, err), os.Remove(s.temp))
		}
	}
	return s, err
}

// stage writes a text beside its place.
func stage(at string, text []byte, mode fs.FileMode) (staged, error) {
	f, err := os.CreateTemp(filepath.Dir(at), ".oci-proxy-setup-*")
	if err != nil {
		return staged{}, fmt.Errorf("writing %s: %w", at, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return staged{}, errors.Join(fmt.Errorf("writing %s: %w", at, err), os.Remove(f.Name()))
	}
	return staged{at: at, temp: f.Name(), mode: mode}, nil
}

// commit puts the file in its place.
func (s staged) commit() error {
	if s.temp == "" {
		return os.Remove(s.at)
	}
	return os.Rename(s.temp, s.at)
}

// folder makes a folder of the client's machine, and those above it, with the rights of the one
// that is there. It notes what it makes.
func (s *staging) folder(m *Machine, dir string) error {
	at, err := m.real(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(at); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.folder(m, path.Dir(dir)); err != nil {
		return err
	}
	above, err := os.Stat(filepath.Dir(at))
	if err != nil {
		return err
	}
	if err := os.Mkdir(at, above.Mode().Perm()); err != nil {
		return err
	}
	s.made = append(s.made, dir)
	return os.Chmod(at, above.Mode().Perm()) // whatever the umask
}

// back puts every file back as it was.
func (s *staging) back() (err error) {
	for i, f := range s.files {
		switch {
		case i >= s.done:
			if f.temp != "" {
				err = errors.Join(err, os.Remove(f.temp))
			}
		case f.old == nil:
			err = errors.Join(err, os.Remove(f.at))
		default:
			one, failed := stage(f.at, f.old, f.mode)
			if failed == nil {
				failed = one.commit()
			}
			err = errors.Join(err, failed)
		}
	}
	return err
}
