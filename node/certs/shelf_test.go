package certs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// put puts a record on a shelf.
func put(t *testing.T, s *shelf, r record) {
	t.Helper()
	if err := s.put(&r); err != nil {
		t.Fatal(err)
	}
}

// Of two records of a key the newer counts, in whichever order they come.
func TestNewerCounts(t *testing.T) {
	t.Parallel()
	old, same, newest := record{Key: "k", Version: 3, By: "a", Value: []byte("old")}, record{Key: "k", Version: 3, By: "b", Value: []byte("same")}, record{Key: "k", Version: 4, By: "a", Gone: true}
	for _, order := range [][]record{{old, same, newest}, {newest, same, old}, {same, newest, old}} {
		s := openShelf(t.TempDir())
		for _, r := range order {
			put(t, s, r)
		}
		if _, ok := s.get("k"); ok {
			t.Error("it is not gone")
		}
	}
	s := openShelf(t.TempDir())
	put(t, s, same)
	put(t, s, old)
	if got, _ := s.get("k"); string(got) != "same" {
		t.Errorf("of two writes with one number %q counts", got)
	}
	if next, err := s.write(record{Key: "other", Value: []byte("x")}, "a"); err != nil || next.Version != 4 {
		t.Errorf("the next write is %d, %v", next.Version, err)
	}
}

// What cannot be right is refused, and the shelf stays bounded. What was deleted makes room.
func TestShelfIsBounded(t *testing.T) {
	t.Parallel()
	s := openShelf(t.TempDir())
	for _, r := range []record{
		{Key: "", Version: 1},
		{Key: "../k", Version: 1},
		{Key: "a/../b", Version: 1},
		{Key: "/k", Version: 1},
		{Key: "k/", Version: 1},
		{Key: "a//b", Version: 1},
		{Key: "k\x00", Version: 1},
		{Key: strings.Repeat("k", maxName+1), Version: 1},
		{Key: "k"},
		{Key: "k", Version: maxVersion + 1},
		{Key: "k", Version: 1, Value: make([]byte, maxValue+1)},
		{Key: "k", Version: 1, Gone: true, Value: []byte("x")},
		{Key: "k", Version: 1, By: strings.Repeat("x", maxSender+1)},
	} {
		if err := s.put(&r); !errors.Is(err, errRecord) {
			t.Errorf("%.20q, version %d: %v", r.Key, r.Version, err)
		}
	}
	s = openShelf("/dev/null/no") // so that no file is written
	value := make([]byte, maxValue)
	n := 0
	for ; n < maxRecords; n++ {
		if err := s.put(&record{Key: fmt.Sprintf("k%d", n), Version: uint64(n + 1), Value: value}); err != nil {
			if !errors.Is(err, errFull) {
				t.Fatal(err)
			}
			break
		}
	}
	if want := maxBytes / maxValue; n != want {
		t.Errorf("%d records of %d bytes were kept, not %d", n, maxValue, want)
	}
	for i := range maxRecords {
		if err := s.put(&record{Key: fmt.Sprintf("k%d", i), Version: uint64(maxRecords + i), Gone: true}); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, record{Key: "one-more", Version: 5000, Value: value})
	if len(s.slots) != maxRecords || s.bytes != maxValue {
		t.Errorf("there are %d records with %d bytes", len(s.slots), s.bytes)
	}
}

// No member can number a record so that nothing could be numbered after it.
func TestShelfTakesNoLeap(t *testing.T) {
	t.Parallel()
	s := openShelf(t.TempDir())
	put(t, s, record{Key: "k", Version: 7, Value: []byte("x")})
	put(t, s, record{Key: "far", Version: maxVersion, Value: []byte("x")})
	s.raise(maxVersion)
	if _, ok := s.get("far"); ok || s.highest() != 7 {
		t.Errorf("the leap was taken: the highest version is %d", s.highest())
	}
	s.raise(500)
	if r, err := s.write(record{Key: "k", Value: []byte("y")}, "a"); err != nil || r.Version != 501 {
		t.Errorf("the next write is %d, %v; want 501", r.Version, err)
	}
}

// What could not be written to the folder is written later, and until then the shelf says so.
func TestUnsavedIsSavedLater(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "acme")
	s := openShelf(folder)
	if err := errors.Join(os.RemoveAll(folder), os.WriteFile(folder, nil, 0o600)); err != nil { // a file is in its way
		t.Fatal(err)
	}
	put(t, s, record{Key: "a.key", Version: 1, Value: []byte("key")})
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, s, record{Key: "a.crt", Version: 2, Value: []byte("chain")})
	if s.failure() == nil {
		t.Error("it says nothing of the key that is not on the disk")
	}
	s.saveAgain()
	if err := s.failure(); err != nil {
		t.Error(err)
	}
	again := openShelf(folder)
	if key, _ := again.get("a.key"); string(key) != "key" {
		t.Errorf("after a restart the key is %q", key)
	}
}

// Files are for their owner alone, and are read again. A damaged one is named, and nothing of it
// is told.
func TestFolder(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "acme")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := openShelf(folder)
	put(t, s, record{Key: "a/b.key", Version: 7, Value: []byte("canary-key")})
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is %v, %v", info.Mode(), err)
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 1 {
		t.Fatalf("there are %d files, %v", len(files), err)
	}
	file := filepath.Join(folder, files[0].Name())
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	if got, _ := openShelf(folder).get("a/b.key"); string(got) != "canary-key" {
		t.Errorf("after a restart there is %q", got)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text[:len(text)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := openShelf(folder).failure()
	if damaged == nil || !strings.Contains(damaged.Error(), file) || strings.Contains(damaged.Error(), "canary") || strings.Contains(damaged.Error(), "Y2FuYXJ5") {
		t.Errorf("of a damaged file it says %v", damaged)
	}
}

// A folder that cannot be used is told, and all goes on in memory. When it can be used again,
// that is over.
func TestFolderFails(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	folder := filepath.Join(parent, "acme")
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := openShelf(folder)
	if s.failure() == nil {
		t.Error("nothing is wrong")
	}
	put(t, s, record{Key: "k", Version: 1, Value: []byte("x")})
	if got, _ := s.get("k"); string(got) != "x" || s.failure() == nil {
		t.Errorf("it has %q, %v", got, s.failure())
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	put(t, s, record{Key: "k", Version: 2, Value: []byte("y")})
	if err := s.failure(); err != nil {
		t.Errorf("it is still wrong: %v", err)
	}
}

// Whatever a member asks or answers, what lies on the shelf stays within its bounds.
func FuzzMembers(f *testing.F) {
	for _, q := range []question{{Do: doChanges, Shelf: "x", After: 3}, {Do: doStore, Name: "a/b", Value: []byte("v")}, {Do: doDelete, Name: "a"}, {Do: doLock, Name: "l"}, {Do: doUnlock, Name: "l"}} {
		text, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	text, err := json.Marshal(reply{Shelf: "s", After: 9, Held: []string{"l"}, Records: []record{{Key: "a/b", Version: 1 << 49, By: "b", Value: []byte("v")}, {Key: "c", Version: 2, Gone: true}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		s := openShelf("/dev/null/no")
		k := newKeeper(s, nil, nil)
		if q, err := parseQuestion(text); err == nil {
			if _, err := k.answer(t.Context(), "m", q); err != nil && !errors.Is(err, errFull) && !errors.Is(err, errRecord) {
				t.Error(err)
			}
		}
		if r, err := parseReply(text); err == nil {
			for i := range r.Records {
				if err := s.put(&r.Records[i]); err != nil && !errors.Is(err, errFull) {
					t.Error(err)
				}
			}
		}
		sum := 0
		for key, one := range s.slots {
			sum += len(one.Value)
			if !validKey(key) || key != one.Key || one.Version > maxVersion || strings.Contains("/"+key+"/", "/../") {
				t.Errorf("on the shelf lies %+v", one.record)
			}
		}
		if sum != s.bytes || sum > maxBytes || len(s.slots) > maxRecords {
			t.Errorf("there are %d records with %d bytes, counted as %d", len(s.slots), sum, s.bytes)
		}
	})
}
