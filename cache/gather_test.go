package cache

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A small blob is on disk only once it is right. Until then those who want a part of it get
// that from memory.
func TestSmallBlobsAreGathered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, Options{})
	b := newSample(7100, 5000)
	in := begin(t, s, b)
	in.SetSize(5000)
	if _, err := in.Write(b.content[:3000]); err != nil {
		t.Fatal(err)
	}
	if !in.Keeping() || temporaries(t, dir) != 0 {
		t.Errorf("keeping: %v, %d files in tmp", in.Keeping(), temporaries(t, dir))
	}
	m, err := in.stream.join()
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{s: in.stream, mark: m}
	var got bytes.Buffer
	if _, err := f.Send(t.Context(), &got, 1000, 1500); err != nil || !bytes.Equal(got.Bytes(), b.content[1000:2500]) {
		t.Errorf("%d bytes of a part, %v", got.Len(), err)
	}
	if _, err := in.Write(b.content[3000:]); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil || !in.Stored() {
		t.Fatal("not kept:", err)
	}
	got.Reset()
	if _, err := f.Send(t.Context(), &got, 0, -1); err != nil || !bytes.Equal(got.Bytes(), b.content) {
		t.Errorf("%d bytes of all, %v", got.Len(), err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, s, b)
	if onDisk, err := os.ReadFile(b.path(dir)); err != nil || !bytes.Equal(onDisk, b.content) || temporaries(t, dir) != 0 {
		t.Errorf("%d bytes on disk, %v", len(onDisk), err)
	}
}

// What was sent of a small blob that turned out to be wrong can be compared with another copy.
func TestGatheredBytesThatAreWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, Options{})
	b := newSample(7101, 5000)
	in := begin(t, s, b)
	in.SetSize(5000)
	m, err := in.stream.join()
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{s: in.stream, mark: m}
	wrong := bytes.Clone(b.content)
	wrong[4000]++
	if _, err := in.Write(wrong); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); !errors.Is(err, ErrDigest) {
		t.Fatal(err)
	}
	sent := Rejected(f)
	if sent == nil {
		t.Fatal("nobody knows what was sent")
	}
	if got, err := io.ReadAll(io.NewSectionReader(sent, 0, 5000)); err != nil || !bytes.Equal(got, wrong) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if temporaries(t, dir) != 0 || s.Size() != 0 {
		t.Errorf("%d files in tmp, %d bytes count", temporaries(t, dir), s.Size())
	}
}

// A meta is written under its own name at once. Whatever lies there goes.
func TestMetaReplacesWhatHasItsName(t *testing.T) {
	t.Parallel()
	for name, mess := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("torn"), 0o600) },
		"directory": func(path string) error { return os.MkdirAll(path+"/x", 0o700) },
		"link":      func(path string) error { return os.Symlink("/etc/hosts", path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := start(t, dir, Options{})
			first, b := newSample(7102, 500), newSample(7103, 600)
			keep(t, s, first)
			path := b.path(dir)
			if err := os.MkdirAll(path[:len(path)-65], 0o700); err != nil {
				t.Fatal(err)
			}
			if err := mess(path + ".meta"); err != nil {
				t.Fatal(err)
			}
			keep(t, s, b)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			want(t, start(t, dir, Options{}), b)
		})
	}
}

// A meta that could not be written whole does not stay: nothing counts it.
func TestAMetaWithoutItsBlobGoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, Options{})
	root := &s.shard.dir.inUse().root
	root.fault = func(op, name string) error {
		if op == "write" && strings.HasSuffix(name, ".meta") {
			return &fs.PathError{Op: op, Path: name, Err: unix.ENOSPC}
		}
		return nil
	}
	for i := range 20 {
		b := newSample(uint64(9000+i), 5000)
		in := begin(t, s, b)
		in.SetSize(5000)
		_, _ = in.Write(b.content)
		in.stream.expectNobody()
		_ = in.Commit()
	}
	n := 0
	_ = filepath.WalkDir(filepath.Join(dir, "blobs"), func(p string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(p, ".meta") {
			n++
		}
		return nil
	})
	if n != 0 {
		t.Errorf("%d metas left behind; the store counts %d bytes", n, s.Size())
	}
}
