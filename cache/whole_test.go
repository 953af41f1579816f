package cache

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// A small blob whose meta can't be written is none. What was written of it counts until it can
// be removed, and the next try brings the blob in.
func TestSmallBlobWithoutItsMeta(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"create", "write", "close"} {
		for _, stays := range []bool{false, true} {
			var failing atomic.Bool
			s := start(t, t.TempDir(), Options{Bound: 1 << 20, Fault: func(o, name string) error {
				if failing.Load() && (o == op && strings.HasSuffix(name, ".meta") || o == "remove" && stays) {
					return syscall.EIO
				}
				return nil
			}})
			b := newSample(770, 3000)
			failing.Store(true)
			in := begin(t, s, b)
			in.stream.expectNobody()
			if err := write(in, b, len(b.content)); err != nil || in.Stored() {
				t.Errorf("%s: kept %v, %v", op, in.Stored(), err)
			}
			wantGone(t, s, b)
			if left := usage(t, s.dir); left != s.Size() || (left > 0) != stays {
				t.Errorf("%s: %d bytes are there, %d count", op, left, s.Size())
			}
			next := begin(t, s, b)
			next.SetSize(int64(len(b.content))) // what is left is tried again, in vain
			failing.Store(false)
			if err := write(next, b, len(b.content)); err != nil || !next.Stored() {
				t.Errorf("%s: kept %v, %v", op, next.Stored(), err)
			}
			keep(t, s, newSample(772, 3000)) // what was left is tried again, and the blob is not that
			want(t, s, b)
			tidy(t, s)
			s = restart(t, s, Options{})
			want(t, s, b)
			tidy(t, s)
		}
	}
}

// A process that ends while it writes a small blob leaves some of its bytes and no meta, or one
// that is torn, or that of a copy which was there before. At the next start there is no blob.
func TestSmallBlobThatWasNotWrittenWhole(t *testing.T) {
	t.Parallel()
	b := newSample(771, 20_000)
	for name, leave := range map[string]func(path string, meta []byte) error{
		"nothing yet": func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) },
		"some of it":  func(path string, _ []byte) error { return os.WriteFile(path, b.content[:12_288], 0o600) },
		"all of it":   func(path string, _ []byte) error { return os.WriteFile(path, b.content, 0o600) },
		"some of the meta too": func(path string, meta []byte) error {
			return errors.Join(os.WriteFile(path, b.content, 0o600), os.WriteFile(path+".meta", meta[:40], 0o600))
		},
		"an older meta": func(path string, meta []byte) error {
			return errors.Join(os.WriteFile(path, b.content[:4096], 0o600), os.WriteFile(path+".meta", meta, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, t.TempDir(), Options{})
			keep(t, s, b)
			path := b.path(s.dir)
			meta, err := os.ReadFile(path + ".meta")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Close(), os.Remove(path), os.Remove(path+".meta"), leave(path, meta)); err != nil {
				t.Fatal(err)
			}
			s = start(t, s.dir, Options{})
			wantGone(t, s, b)
			tidy(t, s)
			keep(t, s, b)
			want(t, s, b)
			tidy(t, s)
		})
	}
}
