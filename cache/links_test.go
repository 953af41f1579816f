package cache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// strangeThings are put in the place of a file or directory.
var strangeThings = map[string]func(path, outside string) error{
	"link to a file":      func(p, out string) error { return os.Symlink(out+"/file", p) },
	"link to a directory": func(p, out string) error { return os.Symlink(out, p) },
	"link to nothing":     func(p, out string) error { return os.Symlink(out+"/nothing", p) },
	"link to itself":      func(p, _ string) error { return os.Symlink(filepath.Base(p), p) },
	"pipe":                func(p, _ string) error { return syscall.Mkfifo(p, 0o600) },
	"directory":           func(p, _ string) error { return os.MkdirAll(p+"/below", 0o700) },
	"device":              func(p, _ string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o600, 1<<8|3) },
	"file of another":     func(p, _ string) error { return firstOf(os.WriteFile(p, []byte("x"), 0o600), os.Chown(p, 12345, -1)) },
}

// A strange thing at the place of one of the store's files is replaced, never
// followed.
func TestStrangeThingsInTheDirectoryAreNotFollowed(t *testing.T) {
	t.Parallel()
	b := newSample(500, 300_000)
	blob := strings.TrimPrefix(b.path("/"), "/")
	for what, put := range strangeThings {
		for _, where := range []string{"lock", "tmp", "tags", "notes", "pages", "blobs", "blobs/sha256", filepath.Dir(blob), blob, blob + ".meta", "tmp/x", "tmp/x.meta"} {
			for _, running := range []bool{false, true} {
				t.Run(what+" at "+where, func(t *testing.T) {
					t.Parallel()
					strange(t, b, where, put, running)
				})
			}
		}
	}
}

// strange tests a store with something strange somewhere below its directory.
func strange(t *testing.T, b sample, where string, put func(path, outside string) error, running bool) {
	outside, dir := t.TempDir(), t.TempDir()+"/cache"
	secret := []byte("not to be touched")
	if err := os.WriteFile(outside+"/file", secret, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir, Options{})
	keep(t, s, b)
	if !running {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, where)
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := put(path, outside); errors.Is(err, syscall.EPERM) || errors.Is(err, os.ErrPermission) {
		t.Skip("it takes more rights:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	foreign := false
	if running {
		s.care.tend(t.Context())
	} else {
		s = Open(dir, Options{})
		t.Cleanup(func() { _ = s.Close() })
		foreign = where == "lock" && s.Health() != nil
	}
	for range 2 {
		if err := pull(t.Context(), s, b); err != nil {
			t.Fatal(err)
		}
	}
	switch st, err := os.Lstat(dir + "/lock"); {
	case foreign && !errors.Is(s.Health(), errForeign):
		t.Error("health:", s.Health())
	case !foreign && (err != nil || !st.Mode().IsRegular() && !running):
		t.Error("lock:", st, err)
	}
	if got, err := os.ReadFile(outside + "/file"); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("the file outside of the directory: %q, %v", got, err)
	}
	if all, err := os.ReadDir(outside); err != nil || len(all) != 1 {
		t.Errorf("files outside of the directory: %v, %v", all, err)
	}
}

// Whoever owns a link could choose the directory that it leads to.
func TestDirectoryThatIsALinkIsRefused(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(path, to string) error{
		"link":            func(p, to string) error { return os.Symlink(to, p) },
		"link to nothing": func(p, to string) error { return os.Symlink(to+"x", p) },
		"file":            func(p, _ string) error { return os.WriteFile(p, nil, 0o600) },
		"pipe":            func(p, _ string) error { return syscall.Mkfifo(p, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to, dir := t.TempDir(), t.TempDir()+"/cache"
			if err := put(dir, to); err != nil {
				t.Fatal(err)
			}
			s := Open(dir, Options{})
			defer func() { _ = s.Close() }()
			if s.Health() == nil {
				t.Error("healthy")
			}
			if err := pull(t.Context(), s, newSample(501, 100_000)); err != nil {
				t.Error(err)
			}
			if all, err := os.ReadDir(to); err != nil || len(all) != 0 {
				t.Errorf("the link was followed: %v, %v", all, err)
			}
		})
	}
}
