package setup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// maxFile bounds a file that setup reads, in bytes.
const maxFile = 4 << 20

// A Machine is a client's machine, whose files are below a folder. A nil Machine has no files.
type Machine struct {
	root     string
	patience time.Duration // for another setup that is at work
}

// NewMachine returns the machine whose root is a folder: "/" for this one.
func NewMachine(root string) (*Machine, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(root); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", root)
	}
	return &Machine{root, patience}, nil
}

// lockName is the file that is there while setup is at work, the script too. A restart of the machine takes it away.
const lockName = "/run/oci-proxy-setup.lock"

// patience is how long one setup waits for another.
const patience = 20 * time.Second

// lock keeps all other setups of this machine from changing it, until end is called. Where nothing can be
// written to /run, as in a container that has the clients' folders only, nobody is kept out.
func (m *Machine) lock() (end func(), err error) {
	at, err := m.real(lockName)
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; <-time.After(patience / 100) {
		f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		switch {
		case err == nil:
			return func() { _ = os.Remove(at) }, f.Close() // who finds it is told what to do
		case !errors.Is(err, fs.ErrExist):
			return func() {}, nil
		case time.Since(began) > m.patience:
			return nil, fmt.Errorf("another setup is at work, or was killed: if none is, remove %s", at)
		}
	}
}

// real is where a file is on this machine. Links lead where they would on the client's, never
// out of its root.
func (m *Machine) real(file string) (string, error) { return securejoin.SecureJoin(m.root, file) }

// read returns a file's content, nil if there is no such file.
func (m *Machine) read(file string) ([]byte, error) {
	if m == nil {
		return nil, nil
	}
	at, err := m.real(file)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a file", at))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", at, maxFile>>20)
	}
	if text == nil {
		text = []byte{}
	}
	return text, nil
}

// own returns a file's content without what setup has written.
func (m *Machine) own(file string) ([]byte, error) {
	text, err := m.read(file)
	if text != nil {
		text = unmarked(text)
	}
	return text, err
}

// glob returns the files that match, in order.
func (m *Machine) glob(pattern string) (files []string) {
	if m == nil {
		return nil
	}
	dir, err := m.real(path.Dir(pattern))
	if err != nil {
		return nil
	}
	found, err := filepath.Glob(filepath.Join(escapeGlob(dir), path.Base(pattern)))
	if err != nil {
		return nil // a pattern that containerd can't use either
	}
	for _, f := range found {
		files = append(files, path.Join(path.Dir(pattern), filepath.Base(f)))
	}
	slices.Sort(files)
	return files
}

// escapeGlob makes a path mean itself in a pattern.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// imports returns the files that a config of containerd imports.
func (m *Machine) imports(file string, says map[string]any) (all []string) {
	patterns, _ := says["imports"].([]any)
	for _, p := range patterns {
		pattern, _ := p.(string)
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(file), pattern)
		}
		all = append(all, m.glob(pattern)...)
	}
	return all
}
