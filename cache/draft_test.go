package cache

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// pagesOf opens a store in dir and returns it with its folder of pages.
func pagesOf(t *testing.T, dir string, opts Options) (*Store, *Folder) {
	t.Helper()
	var f *Folder
	opts.Taken = func(got Folders) { f = got.Pages }
	return start(t, dir, opts), f
}

// draft writes a draft of that content.
func draft(t *testing.T, f *Folder, content string) *Draft {
	t.Helper()
	d, err := f.Draft()
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitAfterSeq(content, " ") {
		if _, err := d.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// readAll reads what can be read at any offset.
func readAll(t *testing.T, r io.ReaderAt, n int64) string {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(r, 0, n))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestDraftIsFoundOnceItIsKept(t *testing.T) {
	t.Parallel()
	s, f := pagesOf(t, t.TempDir(), Options{})
	first := draft(t, f, "the first one")
	if got := readAll(t, first, 100); got != "the first one" {
		t.Errorf("the draft reads %q", got)
	}
	if names, err := f.Names(); len(names) != 0 || err != nil {
		t.Error("a draft is found:", names, err)
	}
	if err := errors.Join(first.Keep("a"), first.Close()); err != nil {
		t.Fatal(err)
	}
	old, err := f.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	second := draft(t, f, "another")
	if err := errors.Join(second.Keep("a"), second.Close(), draft(t, f, "of no use").Close()); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, old, old.Size()); got != "the first one" {
		t.Errorf("whoever had it open reads %q", got)
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	notes, err := f.Notes()
	if err != nil || len(notes) != 1 || notes[0].Name != "a" || notes[0].Size != 7 || notes[0].Written.IsZero() {
		t.Errorf("notes %+v, %v", notes, err)
	}
	if left, err := os.ReadDir(s.dir + "/tmp"); len(left) != 0 || err != nil {
		t.Error("left in tmp:", left, err)
	}
	draft(t, f, "cut off by a crash")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, f = pagesOf(t, s.dir, Options{})
	again, err := f.Open("a")
	if err != nil || readAll(t, again, again.Size()) != "another" {
		t.Error("after a restart:", err)
	}
	if left, err := os.ReadDir(s.dir + "/tmp"); len(left) != 0 || err != nil {
		t.Error("left in tmp after a restart:", left, err)
	}
}

func TestDraftOnADiskThatFails(t *testing.T) {
	t.Parallel()
	var failing atomic.Value
	failing.Store("")
	_, f := pagesOf(t, t.TempDir(), Options{Fault: func(op, _ string) error {
		if op == failing.Load() {
			return syscall.EIO
		}
		return nil
	}})
	failing.Store("create")
	if _, err := f.Draft(); !errors.Is(err, syscall.EIO) {
		t.Error("a file that can't be made:", err)
	}
	failing.Store("")
	d := draft(t, f, "content")
	failing.Store("write")
	if _, err := d.Write([]byte("more")); !errors.Is(err, syscall.EIO) {
		t.Error("a write that fails:", err)
	}
	failing.Store("rename")
	if err := d.Keep("a"); !errors.Is(err, syscall.EIO) {
		t.Error("a rename that fails:", err)
	}
	failing.Store("")
	if err := d.Keep("Not a name"); !errors.Is(err, errNoteName) {
		t.Error("a name that leads elsewhere:", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"a", "../lock", ""} {
		if _, err := f.Open(name); err == nil || name == "a" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q is opened: %v", name, err)
		}
	}
}
