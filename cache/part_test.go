package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// errCut ends a download that leaves a part.
var errCut = errors.New("the source broke off")

// breakOff brings the first n bytes of b in.
func breakOff(t testing.TB, s *Store, b sample, n int) {
	t.Helper()
	in := begin(t, s, b)
	in.SetSize(int64(len(b.content)))
	if _, err := in.Write(b.content[:n]); err != nil {
		t.Fatal(err)
	}
	in.Abort(errCut)
}

// goOn begins b again and brings in the rest. It must go on at want.
func goOn(t testing.TB, s *Store, b sample, want int64) {
	t.Helper()
	in := begin(t, s, b)
	if got := in.Resume(); got != want || in.Offset() != want || in.Begun() || in.Size() != -1 {
		t.Fatalf("goes on at %d, want %d; begun %v, size %d", got, want, in.Begun(), in.Size())
	}
	in.SetSize(int64(len(b.content)))
	if _, err := in.Write(b.content[in.Offset():]); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil || !in.Stored() {
		t.Fatal(err, in.Stored())
	}
	checkShard(t, s, b)
}

// checkShard fails the test unless the shard holds b and tmp is empty.
func checkShard(t testing.TB, s *Store, b sample) {
	t.Helper()
	for range 2 {
		want(t, s, b)
		if n := temporaries(t, s.dir); n != 0 || s.Size() != int64(len(b.content)) || usage(t, s.dir) != s.Size() {
			t.Errorf("%d files in tmp, %d bytes count, %d are there", n, s.Size(), usage(t, s.dir))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = start(t, s.dir, Options{})
	}
}

// partFile is the one file of a part in tmp.
func partFile(t testing.TB, dir string) string {
	t.Helper()
	notes, err := filepath.Glob(dir + "/tmp/*.meta")
	if err != nil || len(notes) != 1 {
		t.Fatalf("notes: %q, %v", notes, err)
	}
	file, _, _ := strings.Cut(filepath.Base(notes[0]), ".")
	return filepath.Join(dir, "tmp", file)
}

// noteOf returns the note of a part's file.
func noteOf(part string) string {
	notes, _ := filepath.Glob(part + ".*.meta")
	return append(notes, "")[0]
}

// partSize is the size of a blob whose parts are kept.
const partSize = 9*chunkSize + 1000

func TestPartIsTakenUp(t *testing.T) {
	t.Parallel()
	const n = 5*chunkSize + 777
	for _, long := range []bool{false, true} {
		for _, again := range []bool{false, true} {
			b := newSample(300, partSize)
			if long {
				b.digest = digest.SHA512.FromBytes(b.content)
			}
			s := start(t, t.TempDir(), Options{Bound: 3 << 20})
			breakOff(t, s, b, n)
			if s.Size() != n || usage(t, s.dir) != n {
				t.Errorf("%d bytes count, %d are there", s.Size(), usage(t, s.dir))
			}
			if again {
				s = restart(t, s, Options{Bound: 3 << 20})
				if s.Size() != n {
					t.Errorf("%d bytes count", s.Size())
				}
			}
			in, err := s.Ingest(t.Context(), b.digest, "other.test", "")
			if err != nil || in.Resume() != 0 {
				t.Error("another registry's part was taken up", err)
			}
			in.Abort(nil)
			goOn(t, s, b, n)
		}
	}
}

// A killed process left a note of how far it was a while before.
func TestPartOfAProcessThatWasKilled(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(301, 11<<20)
	in := begin(t, s, b)
	in.SetSize(int64(len(b.content)))
	if _, err := in.Write(b.content[:10<<20]); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // like a kill, this does not end the ingest
		t.Fatal(err)
	}
	defer in.Abort(nil)
	s = start(t, s.dir, Options{})
	if got := usage(t, s.dir); got != s.Size() || got != 2*partStep {
		t.Errorf("%d bytes, %d count", got, s.Size())
	}
	goOn(t, s, b, 2*partStep)
}

func TestPartIsCutBackToWhatIsRight(t *testing.T) {
	t.Parallel()
	const n = 6*chunkSize + 50
	for name, c := range map[string]struct {
		do    func(path string)
		left  int64
		start bool // only a start notices
	}{
		"first byte":     {func(p string) { flip(t, p, 0) }, 0, false},
		"in the middle":  {func(p string) { flip(t, p, 3*chunkSize+5) }, 3 * chunkSize, false},
		"last byte":      {func(p string) { flip(t, p, n-1) }, 6 * chunkSize, false},
		"torn":           {func(p string) { _ = os.Truncate(p, 2*chunkSize+1) }, 2 * chunkSize, false},
		"empty":          {func(p string) { _ = os.Truncate(p, 0) }, 0, false},
		"longer":         {func(p string) { _ = os.Truncate(p, 8*chunkSize) }, n, false},
		"gone":           {func(p string) { _ = os.Remove(p) }, 0, false},
		"note flipped":   {func(p string) { flip(t, noteOf(p), 60) }, 0, false},
		"note torn":      {func(p string) { _ = os.Truncate(noteOf(p), 20) }, 0, false},
		"note gone":      {func(p string) { _ = os.Remove(noteOf(p)) }, 0, false},
		"longer at kill": {func(p string) { _ = os.Truncate(p, 30<<20) }, n, true},
	} {
		for _, again := range []bool{false, true} {
			if c.start && !again {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := start(t, t.TempDir(), Options{})
				b := newSample(302, partSize)
				breakOff(t, s, b, n)
				if again {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
				c.do(partFile(t, s.dir))
				if again {
					s = start(t, s.dir, Options{})
				}
				goOn(t, s, b, c.left)
			})
		}
	}
}

func TestPartIsForgottenWhereTheSizeIsAnother(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(303, partSize)
	breakOff(t, s, sample{append(b.content, 1), b.digest}, 2<<20)
	in := begin(t, s, b)
	if in.Resume() != 2<<20 || in.Agrees(partSize) || !in.Agrees(partSize+1) || !in.Agrees(-1) {
		t.Error("Agrees is wrong")
	}
	in.SetSize(partSize)
	if in.Offset() != 0 || in.Size() != partSize {
		t.Errorf("the ingest is at %d of %d", in.Offset(), in.Size())
	}
	if _, err := in.Write(b.content); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	checkShard(t, s, b)
}

// The digest still decides: a part with the bytes of a liar is dropped.
func TestPartOfALiarIsDropped(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b, lie := newSample(304, partSize), newSample(305, partSize)
	breakOff(t, s, sample{lie.content, b.digest}, 2<<20)
	in := begin(t, s, b)
	in.Resume()
	in.SetSize(partSize)
	if _, err := in.Write(b.content[in.Offset():]); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); !errors.Is(err, ErrDigest) {
		t.Fatal(err)
	}
	if s.Size() != 0 || temporaries(t, s.dir) != 0 {
		t.Error("the blob was kept")
	}
	goOn(t, s, b, 0)
}

// Nobody gets a byte until a source has agreed: a private registry may refuse.
func TestNobodyGetsAPartBeforeASourceAgrees(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(306, partSize)
	breakOff(t, s, b, 2<<20)
	in := begin(t, s, b)
	in.Resume()
	if in.Sendable() != 0 {
		t.Error(in.Sendable())
	}
	ended := make(chan error, 1)
	go func() {
		_, err := in.Follow(t.Context())
		ended <- err
	}()
	joined(t, in, 1)
	denied := errors.New("denied")
	in.Abort(denied)
	if err := <-ended; !errors.Is(err, denied) {
		t.Error(err)
	}
	goOn(t, s, b, 2<<20) // the part is kept for the next ingest
}

func TestPartsMakeRoom(t *testing.T) {
	t.Parallel()
	const bound = 5 << 20
	s := start(t, t.TempDir(), Options{Bound: bound})
	a, b, c := newSample(307, partSize), newSample(308, partSize), newSample(309, 4<<20)
	breakOff(t, s, a, 2<<20)
	breakOff(t, s, b, 2<<20)
	if s.Size() != 4<<20 {
		t.Error(s.Size())
	}
	keep(t, s, newSample(310, 2<<20)) // drops the first part
	if s.Size() != 4<<20 || begin(t, s, a).Resume() != 0 {
		t.Error(s.Size())
	}
	keep(t, s, c) // drops all
	if n := temporaries(t, s.dir); n != 0 || s.Size() != 4<<20 || usage(t, s.dir) != s.Size() {
		t.Errorf("%d files in tmp, %d bytes count, %d are there", n, s.Size(), usage(t, s.dir))
	}
	breakOff(t, s, a, 1<<20)
	s = restart(t, s, Options{Bound: partMin / 2})
	if n := temporaries(t, s.dir); n != 0 || s.Size() != 0 || usage(t, s.dir) != 0 {
		t.Errorf("%d files in tmp, %d bytes count, %d are there", n, s.Size(), usage(t, s.dir))
	}
}

func TestPartsAreKeptForADay(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(311, partSize)
	breakOff(t, s, b, 2<<20)
	s.shard.parts.expire(time.Now().Add(partAge - time.Minute))
	if s.Size() != 2<<20 {
		t.Error("the part was dropped too early")
	}
	s.shard.parts.expire(time.Now().Add(partAge + time.Minute))
	if s.Size() != 0 || temporaries(t, s.dir) != 0 {
		t.Error("the old part is still there")
	}
	breakOff(t, s, b, 2<<20)
	note := noteOf(partFile(t, s.dir))
	raw, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	n, err := decodeNote(raw)
	if err != nil {
		t.Fatal(err)
	}
	n.Saved -= 25 * 3600
	if raw, err = n.encode(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(note, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s = restart(t, s, Options{})
	if s.Size() != 0 || temporaries(t, s.dir) != 0 {
		t.Error("a start keeps the old part")
	}
}

// A reader of a download that broke off does not see the next one.
func TestPartWhileItIsStillRead(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(312, partSize)
	in := begin(t, s, b)
	in.SetSize(partSize)
	if _, err := in.Write(b.content[:2<<20]); err != nil {
		t.Fatal(err)
	}
	blob, err := in.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in.Abort(errCut)
	next := begin(t, s, b)
	if next.Resume() != 0 {
		t.Error("a part was taken up while it was read")
	}
	next.Abort(nil)
	var out gate
	if n, err := blob.Send(context.Background(), &out, 0, 2<<20); err != nil || same(out.buf.Bytes(), b.content[:2<<20]) != nil {
		t.Error(n, err)
	}
	if err := blob.Close(); err != nil {
		t.Fatal(err)
	}
	goOn(t, s, b, 2<<20)
}

// A node that stops while it checks a part keeps the part.
func TestPartWhileTheNodeStops(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(490, partSize)
	breakOff(t, s, b, 2<<20)
	ctx, cancel := context.WithCancel(t.Context())
	in, err := s.Ingest(ctx, b.digest, registry, "")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if at := in.Resume(); at != 0 {
		t.Errorf("goes on at %d", at)
	}
	in.Abort(ctx.Err())
	s = restart(t, s, Options{})
	goOn(t, s, b, 2<<20)
}

// A part that takes long to check is taken up as far as it was checked, because a
// client waits for the first byte.
func TestPartOnASlowDisk(t *testing.T) {
	t.Parallel()
	var slow atomic.Bool
	opts := Options{Fault: func(op, _ string) error {
		if slow.Load() && op == "read" {
			<-time.After(4 * time.Second) // in the bubble's time
		}
		return nil
	}}
	bubble(t, opts, func(t *testing.T, s *Store) {
		b := newSample(491, partSize)
		breakOff(t, s, b, 2<<20)
		slow.Store(true)
		in := begin(t, s, b)
		start := time.Now()
		at, took := in.Resume(), time.Since(start)
		slow.Store(false)
		if at <= 0 || at >= 2<<20 || at%chunkSize != 0 || took > 3*verifyTime {
			t.Errorf("goes on at %d after %v", at, took)
		}
		in.SetSize(partSize)
		if _, err := in.Write(b.content[at:]); err != nil {
			t.Fatal(err)
		}
		if err := in.Commit(); err != nil {
			t.Fatal(err)
		}
		want(t, s, b)
	})
}

func FuzzNote(f *testing.F) {
	n := &note{meta: meta{Version: metaVersion, Digest: newSample(1, 1).digest, Size: 1 << 20, Chunk: chunkSize, sums: make([]uint64, 2)}, Offset: chunkSize + 1}
	raw, err := n.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[:len(raw)-8], true)
	f.Add(raw, false)
	f.Fuzz(func(t *testing.T, raw []byte, sealed bool) {
		if sealed {
			raw = seal(raw)
		}
		n, err := decodeNote(raw)
		if err != nil {
			if !errors.Is(err, errMeta) {
				t.Fatal(err)
			}
			return
		}
		if int64(len(n.sums)) != chunks(n.Offset) || n.Offset <= 0 || n.Offset >= n.Size {
			t.Fatalf("%d of %d bytes, %d sums", n.Offset, n.Size, len(n.sums))
		}
	})
}
