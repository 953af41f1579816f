package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A dirt does something to a cache directory that no store would do.
type dirt func(r *rand.Rand, dir string, blobs []sample)

// digits are n random hexadecimal digits.
func digits(r *rand.Rand, n int) string {
	return fmt.Sprintf("%016x%016x%016x%016x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())[:n]
}

// mess puts something at path: a file, a directory with a file, a link, a pipe.
func mess(r *rand.Rand, path string) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return // something else is in the way already
	}
	_ = os.RemoveAll(path)
	switch r.IntN(6) {
	case 0:
		_ = os.MkdirAll(path+"/x", 0o700)
	case 1:
		_ = os.Symlink(os.DevNull, path) // out of the directory
	case 2:
		_ = os.Symlink(filepath.Base(path), path)
	case 3:
		_ = syscall.Mkfifo(path, 0o600)
	default:
		_ = os.WriteFile(path, newSample(r.Uint64(), r.IntN(1000)).content, 0o600)
	}
}

var dirts = []dirt{
	func(r *rand.Rand, dir string, _ []sample) { mess(r, dir+"/tmp") },
	func(r *rand.Rand, dir string, _ []sample) { mess(r, dir+"/tmp/"+digits(r, 16)) },
	func(r *rand.Rand, dir string, _ []sample) { mess(r, dir+"/tags/"+digits(r, 2)) },
	func(r *rand.Rand, dir string, _ []sample) { mess(r, dir+"/"+[]string{"tags", "blobs"}[r.IntN(2)]) },
	func(r *rand.Rand, dir string, _ []sample) { mess(r, dir+"/blobs/sha256/"+digits(r, r.IntN(4)+1)) },
	func(r *rand.Rand, dir string, _ []sample) {
		mess(r, dir+"/blobs/sha512/"+digits(r, 2)+"/"+digits(r, 64))
	},
	func(r *rand.Rand, dir string, _ []sample) {
		h := digits(r, 64)
		mess(r, dir+"/blobs/sha256/"+h[:2]+"/"+h+[]string{"", ".meta", ".meta.meta", "x"}[r.IntN(4)])
	},
	func(r *rand.Rand, dir string, b []sample) { mess(r, b[r.IntN(len(b))].path(dir)) },
	func(r *rand.Rand, dir string, b []sample) { mess(r, b[r.IntN(len(b))].path(dir)+".meta") },
	func(r *rand.Rand, dir string, b []sample) { // torn
		if path, ok := regular(b[r.IntN(len(b))].path(dir) + []string{"", ".meta"}[r.IntN(2)]); ok {
			_ = os.Truncate(path, r.Int64N(100))
		}
	},
	func(r *rand.Rand, dir string, b []sample) { // another's meta
		from, ok := regular(b[r.IntN(len(b))].path(dir) + ".meta")
		to, too := regular(b[r.IntN(len(b))].path(dir) + ".meta")
		if raw, err := os.ReadFile(from); ok && too && err == nil {
			_ = os.WriteFile(to, raw, 0o600)
		}
	},
	func(r *rand.Rand, dir string, b []sample) { // bytes that are zero after a power cut
		path, ok := regular(b[r.IntN(len(b))].path(dir))
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); ok && err == nil {
			_, _ = f.WriteAt(make([]byte, 500), r.Int64N(100_000))
			_ = f.Close()
		}
	},
}

// regular returns path if it is a regular file, so that nothing outside the
// directory is written. Otherwise it returns a path that is not there.
func regular(path string) (string, bool) {
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return filepath.Join(path, "nothing"), false
	}
	return path, true
}

func FuzzDirty(f *testing.F) {
	for i := range uint64(len(dirts)) {
		f.Add(i, uint64(1)<<i, int64(0))
		f.Add(i+100, uint64(3)<<i, int64(150_000))
	}
	f.Add(uint64(7), ^uint64(0), int64(200_000))
	f.Fuzz(func(t *testing.T, seed, which uint64, bound int64) {
		r := rand.New(rand.NewPCG(seed, which))
		dir := t.TempDir()
		s := start(t, dir, Options{})
		blobs := []sample{newSample(80, 100), newSample(81, 70_000), newSample(82, 100_000)}
		for _, b := range blobs {
			keep(t, s, b)
		}
		s.SetTag(Tag{Key: "k", Digest: blobs[0].digest})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for i, d := range dirts {
			if which>>i&1 == 1 {
				d(r, dir, blobs)
			}
		}
		s = Open(dir, Options{Bound: bound})
		defer func() { _ = s.Close() }()
		for range 2 {
			for _, b := range blobs {
				if got, err := read(t, s, b); err == nil && same(got, b.content) != nil || err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
			}
			if tag, ok := s.Tag("k"); ok && tag.Digest != blobs[0].digest {
				t.Fatal("wrong tag")
			}
			if err := errors.Join(s.Health(), s.Listed(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		for _, b := range blobs {
			if err := pull(t.Context(), s, b); err != nil {
				t.Fatal(err)
			}
		}
		tidy(t, s)
	})
}

// tidy fails the test if the directory holds a file that the store does not know.
func tidy(t *testing.T, s *Store) {
	t.Helper()
	if got := usage(t, s.dir); got != s.Size() {
		t.Errorf("%d bytes on disk, %d counted", got, s.Size())
	}
	files, err := filepath.Glob(s.dir + "/blobs/*/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		st, err := os.Lstat(file)
		if err != nil || !st.Mode().IsRegular() || !exists(strings.TrimSuffix(file, ".meta")) {
			t.Errorf("left behind: %s (%v, %v)", file, st.Mode(), err)
		}
	}
	if n := temporaries(t, s.dir); n != 0 {
		t.Errorf("%d temporaries are left behind", n)
	}
}

func FuzzMeta(f *testing.F) {
	for _, size := range []int64{0, 1, chunkSize, 3*chunkSize + 1} {
		m := &meta{Version: metaVersion, Digest: newSample(1, 1).digest, Size: size, Chunk: chunkSize, sums: make([]uint64, chunks(size))}
		raw, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw[:len(raw)-8], true)
		f.Add(raw, false)
	}
	f.Add([]byte(`{"version":1,"size":9223372036854775807,"chunk":262144}`+"\n"), true)
	f.Add([]byte(`{"version":1,"size":-1,"chunk":262144}`+"\n"), true)
	f.Add([]byte(`{"version":1,"size":0,"chunk":262144,"outline":{"layers":[{"digest":"x"}]}}`+"\n"), true)
	f.Add([]byte(`{"version":1,"size":0,"chunk":262144,"outline":"`+strings.Repeat("x", maxMetaHead)+`"}`+"\n"), true)
	f.Fuzz(func(t *testing.T, raw []byte, sealed bool) {
		if sealed {
			raw = seal(raw)
		}
		m, err := decodeMeta(raw)
		if err != nil {
			if !errors.Is(err, errMeta) {
				t.Fatal(err)
			}
			return
		}
		if int64(len(m.sums)) != chunks(m.Size) || m.Size < 0 {
			t.Fatalf("%d sums for %d bytes", len(m.sums), m.Size)
		}
		again, err := m.encode()
		if err != nil {
			return // longer than a head may be
		}
		if n, err := decodeMeta(again); err != nil || n.Size != m.Size || binary.BigEndian.Uint64(again[len(again)-8:]) == 0 {
			t.Fatal(err)
		}
	})
}
