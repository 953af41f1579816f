package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
)

const registry = "registry.test"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir) // never returns: see kill_test.go
	}
	testkit.Main(m)
}

// A sample is a blob and its digest.
type sample struct {
	content []byte
	digest  digest.Digest
}

// newSample makes a blob of size bytes that look random and depend on seed.
func newSample(seed uint64, size int) sample {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(size), byte(size >> 8)}).Read(b)
	return sample{b, digest.FromBytes(b)}
}

// start opens a store in dir and waits until it is listed. It is closed at the
// test's end.
func start(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s := Open(dir, opts)
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// begin begins an ingest of b. It does not tell the size.
func begin(t testing.TB, s *Store, b sample) *Ingest {
	t.Helper()
	in, err := s.Ingest(t.Context(), b.digest, registry, "")
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// fill brings b in.
func fill(t testing.TB, s *Store, b sample) *Ingest {
	t.Helper()
	in := begin(t, s, b)
	in.SetSize(int64(len(b.content)))
	if _, err := in.Write(b.content); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	return in
}

// keep brings b in and fails the test if the shard did not keep it.
func keep(t testing.TB, s *Store, b sample) {
	t.Helper()
	if !fill(t, s, b).Stored() {
		t.Fatal("blob was not kept:", s.Health())
	}
}

// read reads the whole blob from the shard.
func read(t testing.TB, s *Store, b sample) ([]byte, error) {
	t.Helper()
	blob, err := s.Open(b.digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = blob.Close() }()
	var out bytes.Buffer
	_, err = blob.Send(t.Context(), &out, 0, -1)
	return out.Bytes(), err
}

// want fails the test unless the shard gives b whole and right.
func want(t testing.TB, s *Store, b sample) {
	t.Helper()
	got, err := read(t, s, b)
	if err != nil {
		t.Fatalf("reading %s: %v", b.digest, err)
	}
	if !bytes.Equal(got, b.content) {
		t.Fatalf("%s: wrong bytes", b.digest)
	}
}

// wantGone fails the test if the shard has b.
func wantGone(t testing.TB, s *Store, b sample) {
	t.Helper()
	if blob, err := s.Open(b.digest); !errors.Is(err, ErrNotFound) {
		if err == nil {
			_ = blob.Close()
		}
		t.Fatalf("opening %s: %v, want ErrNotFound", b.digest, err)
	}
}

// joined waits until n readers follow in.
func joined(t testing.TB, in *Ingest, n int) {
	t.Helper()
	testkit.Await(t, "the readers follow", func() bool {
		in.stream.mu.Lock()
		defer in.stream.mu.Unlock()
		return len(in.stream.crowd.marks) == n
	})
}

// path is the file of b.
func (b sample) path(dir string) string {
	n, err := nameOf(b.digest)
	if err != nil {
		panic(err)
	}
	return filepath.Join(dir, n.path())
}

// pull reads b as a node does: from the shard, or else by an ingest. If the
// shard's copy is damaged it goes on with an ingest at the byte it reached.
func pull(ctx context.Context, s *Store, b sample) error {
	var out bytes.Buffer
	blob, err := s.Open(b.digest)
	if err == nil {
		_, err = blob.Send(ctx, &out, 0, -1)
		err = errors.Join(err, blob.Close())
		if err == nil {
			return same(out.Bytes(), b.content)
		}
	}
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("reading a hit: %w", err)
	}
	if err := same(out.Bytes(), b.content[:out.Len()]); err != nil {
		return err
	}
	in, err := s.Ingest(ctx, b.digest, registry, "")
	if err != nil {
		return err
	}
	return follow(ctx, s, in, b, &out)
}

// follow fills in and reads along.
func follow(ctx context.Context, s *Store, in *Ingest, b sample, out *bytes.Buffer) error {
	done := make(chan error, 1)
	in.stream.mu.Lock()
	first := in.stream.crowd.moved.wait(math.MaxInt64)
	in.stream.mu.Unlock()
	go func() {
		<-first // a late follower would read the shard
		done <- write(in, b, 50_000)
	}()
	blob, err := in.Follow(ctx)
	if err == nil {
		_, err = blob.Send(ctx, out, int64(out.Len()), -1)
		err = errors.Join(err, blob.Close())
	}
	written := <-done
	if errors.Is(err, ErrDamaged) && written == nil { // the file that it followed can't be read
		again, err := s.Ingest(ctx, b.digest, registry, "")
		if err != nil {
			return err
		}
		return follow(ctx, s, again, b, out)
	}
	err = errors.Join(err, written)
	if err != nil {
		return fmt.Errorf("reading a fill: %w", err)
	}
	return same(out.Bytes(), b.content)
}

// write writes b to in, in steps, and commits.
func write(in *Ingest, b sample, step int) error {
	in.SetSize(int64(len(b.content)))
	for p := b.content; len(p) > 0; p = p[min(step, len(p)):] {
		if _, err := in.Write(p[:min(step, len(p))]); err != nil {
			in.Abort(err)
			return err
		}
	}
	return in.Commit()
}

// same compares the bytes that came with those wanted.
func same(got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("wrong bytes: %d came, %d wanted", len(got), len(want))
	}
	return nil
}

// usage is how many bytes the files of blobs hold, those on their way in included.
func usage(t testing.TB, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".meta") || strings.Contains(path, "/tags/") {
			return ignoreGone(err)
		}
		st, err := d.Info()
		if err == nil {
			bytes += st.Size()
		}
		return ignoreGone(err)
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// temporaries is the number of files in tmp.
func temporaries(t testing.TB, dir string) int {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// A gate is a writer that counts what it gets and can be made to wait.
type gate struct {
	n    atomic.Int64
	buf  bytes.Buffer
	open chan struct{} // nil: always open
}

func (g *gate) Write(p []byte) (int, error) {
	if g.open != nil {
		<-g.open
	}
	g.n.Add(int64(len(p)))
	return g.buf.Write(p)
}

// roomOf is the other door of an index.
func roomOf(x *index) room { return room{x} }

// discard is a writer without ReadFrom.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

var _ io.Writer = discard{}
