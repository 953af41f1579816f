package cache

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
)

// folderOf opens a store in dir and returns it with its folder.
func folderOf(t *testing.T, dir string, opts Options) (*Store, *Folder) {
	t.Helper()
	var f *Folder
	opts.Taken = func(got Folders) { f = got.Notes }
	s := start(t, dir, opts)
	if f == nil {
		t.Fatal("the folder was not handed out by Open")
	}
	return s, f
}

func TestFolderKeepsNotesOverARestart(t *testing.T) {
	t.Parallel()
	s, f := folderOf(t, t.TempDir(), Options{})
	if _, err := f.Read("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("reading what is not there:", err)
	}
	err := errors.Join(f.Write("a", []byte("long content")), f.Write("a", []byte("one ")), f.Append("a", []byte("two")),
		f.Append("b.log-1", []byte("three")), f.Write("c", nil), f.Remove("c"), f.Remove("c"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(s.dir+"/notes/blocked", 0o700), os.WriteFile(s.dir+"/notes/Not ours", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, f = folderOf(t, s.dir, Options{})
	names, err := f.Names()
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"a", "b.log-1"}) {
		t.Error("names:", names, err)
	}
	for name, want := range map[string]string{"a": "one two", "b.log-1": "three"} {
		if got, err := f.Read(name); string(got) != want || err != nil {
			t.Errorf("note %s: %q, %v", name, got, err)
		}
	}
	if err := f.Write("blocked", nil); err != nil {
		t.Error("a directory blocks a note's name:", err)
	}
}

func TestFolderRefusesNamesThatLeadElsewhere(t *testing.T) {
	t.Parallel()
	_, f := folderOf(t, t.TempDir(), Options{})
	for _, name := range []string{"", ".", "..", "../lock", "a/b", "A", "a b", "a\n", "ä", strings.Repeat("a", 101)} {
		_, err := f.Read(name)
		for _, err := range []error{err, f.Write(name, nil), f.Append(name, nil), f.Remove(name)} {
			if !errors.Is(err, errNoteName) {
				t.Errorf("name %q: %v", name, err)
			}
		}
	}
	if err := f.Write(strings.Repeat("a", 100), nil); err != nil {
		t.Error(err)
	}
}

func TestFolderBoundsWhatItReads(t *testing.T) {
	t.Parallel()
	s, f := folderOf(t, t.TempDir(), Options{})
	if err := f.Write("large", make([]byte, maxNote)); err != nil {
		t.Fatal(err)
	}
	if b, err := f.Read("large"); len(b) != maxNote || err != nil {
		t.Error(len(b), err)
	}
	if err := f.Append("large", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read("large"); err == nil {
		t.Error("a note of more than 16 MiB was read")
	}
	if err := os.Symlink(s.dir+"/lock", s.dir+"/notes/link"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read("link"); err == nil {
		t.Error("a link was followed for reading")
	}
	if err := f.Append("link", []byte("x")); err == nil {
		t.Error("a link was followed for appending")
	}
	if b, err := os.ReadFile(s.dir + "/lock"); len(b) != 0 || err != nil {
		t.Errorf("the file that the link leads to: %q, %v", b, err)
	}
}

// Each file call of the folder can fail; a note then has its old content, or
// the new one, or (Append) its old content and a first part of what was added.
func TestFolderSaysWhatTheDiskSays(t *testing.T) {
	t.Parallel()
	for n := int64(1); ; n++ {
		fuse := &testkit.Fuse{Err: syscall.EIO}
		dir := t.TempDir()
		_, f := folderOf(t, dir, Options{Fault: fuse.Fault})
		if err := f.Write("a", []byte("old")); err != nil {
			t.Fatal(err)
		}
		fuse.At = fuse.Calls() + n
		_, named := f.Names()
		err := errors.Join(named, f.Write("a", []byte("new")), f.Append("a", []byte(" more")), f.Append("b", []byte("first")))
		_, read := f.Read("a")
		err = errors.Join(err, read, f.Remove("b"))
		what := fuse.Blown()
		if what == "" {
			if err != nil || n < 10 {
				t.Errorf("without a fault, after %d calls: %v", n, err)
			}
			return
		}
		if err == nil && !strings.HasPrefix(what, "stat") {
			t.Errorf("%s failed without an error", what)
		}
		got, err := os.ReadFile(filepath.Join(dir, "notes", "a"))
		if err != nil || !slices.Contains([]string{"old", "old more", "new", "new more"}, string(got)) {
			t.Errorf("%s failed: note is %q, %v", what, got, err)
		}
	}
}

func TestFolderIsHandedOutAgainWithEachDirectory(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := base + "/cache"
	var taken []*Folder
	var broken atomic.Bool
	broken.Store(true)
	s := open(dir, Options{
		Taken: func(f Folders) { taken = append(taken, f.Notes) },
		Fault: func(op, _ string) error {
			if op == "enter" && broken.Load() {
				return syscall.EIO
			}
			return nil
		},
	}, 1<<40)
	if len(taken) != 0 {
		t.Error("a directory that can't be opened was handed out")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	broken.Store(false)
	s = start(t, dir, Options{Taken: func(f Folders) { taken = append(taken, f.Notes) }})
	if len(taken) != 1 {
		t.Fatal(len(taken), "folders after Open")
	}
	if err := taken[0].Write("a", []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(dir, base+"/old"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	s.care.tend(t.Context()) // loses the directory and takes the other
	if len(taken) != 2 {
		t.Fatal(len(taken), "folders after the directory was replaced")
	}
	if _, err := taken[1].Read("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the new directory's folder knows the old one's notes:", err)
	}
	if err := taken[0].Write("a", nil); err == nil {
		t.Error("the folder of a lost directory still writes")
	}
	if got, err := os.ReadFile(base + "/old/notes/a"); string(got) != "first" || err != nil {
		t.Errorf("note in the old directory: %q, %v", got, err)
	}
}

func TestOldTagsAreReadOver(t *testing.T) {
	t.Parallel()
	s, f := folderOf(t, t.TempDir(), Options{})
	d := digest.FromString("x")
	for _, key := range []string{"?vouched r a", "?vouched r b", "?delivered r", Kept + "refused r", "plain"} {
		if err := f.WriteOldTag(Tag{Key: key, Digest: d}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.dir+"/"+oldTagPath("?vouched r b"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(prefixes ...string) (keys []string) {
		t.Helper()
		err := f.OldTags(prefixes, func(t Tag) error {
			keys = append(keys, t.Key)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		slices.Sort(keys)
		return keys
	}
	if got := read("?vouched ", "?delivered ", Kept); !slices.Equal(got, []string{"!refused r", "?delivered r", "?vouched r a"}) {
		t.Errorf("%q", got)
	}
	if got := read(Kept + "refused "); !slices.Equal(got, []string{"!refused r"}) {
		t.Errorf("%q", got)
	}
	enough := errors.New("enough")
	if err := f.OldTags([]string{"?"}, func(Tag) error { return enough }); !errors.Is(err, enough) {
		t.Error("yield's error:", err)
	}
	if err := errors.Join(f.RemoveOldTag("?delivered r"), f.RemoveOldTag("?delivered r")); err != nil {
		t.Error(err)
	}
	if got := read("?delivered "); len(got) != 0 {
		t.Errorf("%q were removed", got)
	}
	if got, err := os.ReadFile(s.dir + "/" + oldTagPath("plain")); err != nil || !bytes.Contains(got, []byte("plain")) {
		t.Errorf("another tag: %q, %v", got, err)
	}
}
