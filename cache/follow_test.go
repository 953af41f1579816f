package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

// send reads a range through a new follower.
func send(t testing.TB, in *Ingest, off, n int64) ([]byte, error) {
	blob, err := in.Follow(t.Context())
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	k, err := blob.Send(t.Context(), &out, off, n)
	if k != int64(out.Len()) {
		err = errors.Join(err, fmt.Errorf("Send said %d, wrote %d", k, out.Len()))
	}
	return out.Bytes(), errors.Join(err, blob.Close())
}

// span returns the bytes of a range of b.
func (b sample) span(off, n int64) []byte {
	size := int64(len(b.content))
	return b.content[min(off, size):min(endOf(off, n), size)]
}

func TestFollowersAtManyOffsetsGetTheirRanges(t *testing.T) {
	t.Parallel()
	for _, passing := range []bool{false, true} {
		for _, told := range []bool{false, true} {
			t.Run(fmt.Sprintf("passing %v, size told %v", passing, told), func(t *testing.T) {
				t.Parallel()
				opts := Options{}
				b := newSample(2, 1<<20+12345)
				if passing {
					opts.Bound = 1
				}
				s := start(t, t.TempDir(), opts)
				in := begin(t, s, b)
				size := int64(len(b.content))
				var wg sync.WaitGroup
				for i := range int64(30) {
					wg.Go(func() {
						off, n := i*size/30, []int64{-1, 1, chunkSize, 2 * size, size - i*size/30 - 1}[i%5]
						got, err := send(t, in, off, n)
						if err != nil || !bytes.Equal(got, b.span(off, n)) {
							t.Errorf("off %d, n %d: %d bytes, %v", off, n, len(got), err)
						}
					})
				}
				joined(t, in, 30)
				if told {
					in.SetSize(size)
				}
				r := rand.New(rand.NewPCG(1, 1))
				for p := b.content; len(p) > 0; {
					k := min(1+r.IntN(200_000), len(p))
					if _, err := in.Write(p[:k]); err != nil {
						t.Fatal(err)
					}
					p = p[k:]
				}
				if err := in.Commit(); err != nil {
					t.Error(err)
				}
				wg.Wait()
				if in.Stored() == passing {
					t.Errorf("stored: %v", in.Stored())
				}
				if passing && s.Size() != 0 {
					t.Errorf("%d bytes are left behind", s.Size())
				}
			})
		}
	}
}

func FuzzFollow(f *testing.F) {
	for _, size := range []int64{0, 1, HoldBack - 1, HoldBack, HoldBack + 1, 2 * HoldBack, chunkSize - 1, chunkSize, chunkSize + 1, chunkSize + HoldBack, 700_000} {
		for _, n := range []int64{-1, 0, 1, size, size - 1, size - HoldBack, 1<<63 - 1} {
			f.Add(size, size/3, n, 50_000, true, false, false)
			f.Add(size, int64(0), n, 1<<20, false, true, false)
			f.Add(size, size-1, n, 70_001, true, true, true)
		}
	}
	dir := f.TempDir()
	s := start(f, dir, Options{Bound: 4 << 20})
	none := start(f, f.TempDir(), Options{Bound: 1})
	f.Fuzz(func(t *testing.T, size, off, n int64, step int, told, passing, wrong bool) {
		size, off = min(max(size, 0), 1<<20), min(max(off, 0), 2<<20)
		b := newSample(uint64(size), int(size))
		store := s
		if passing {
			store = none
		}
		in := begin(t, store, b)
		bad := wrong && size > 0
		done := make(chan error, 1)
		go func() {
			if told {
				in.SetSize(size)
			}
			content := bytes.Clone(b.content)
			if bad {
				content[size-1] ^= 1
			}
			for p := content; len(p) > 0; {
				k := min(max(step, 4096), len(p))
				if _, err := in.Write(p[:k]); err != nil {
					in.Abort(err)
					break
				}
				p = p[k:]
			}
			done <- in.Commit()
		}()
		got, err := send(t, in, off, n)
		wrote := <-done
		if bad {
			if !errors.Is(wrote, ErrDigest) {
				t.Fatal("the writer got an error", wrote)
			}
			if off+int64(len(got)) > max(size-1, off) {
				t.Fatal("the wrong byte was sent")
			}
			return
		}
		want := bytes.NewReader(b.content)
		_, _ = want.Seek(off, io.SeekStart)
		oracle, _ := io.ReadAll(io.LimitReader(want, endOf(0, n)))
		if errors.Is(err, ErrNotFound) {
			return // it ended before it was followed
		}
		if err != nil || wrote != nil || !bytes.Equal(got, oracle) {
			t.Fatalf("%d bytes for %d; %v, %v", len(got), len(oracle), err, wrote)
		}
	})
}

func TestFollowerThatCanNotOpenTheFileReadsByTheWriters(t *testing.T) {
	t.Parallel()
	fault := func(op, name string) error {
		if op == "open" {
			return errors.New("too many open files")
		}
		return nil
	}
	s := start(t, t.TempDir(), Options{Fault: fault})
	b := newSample(3, 2<<20)
	in := begin(t, s, b)
	var wg sync.WaitGroup
	for i := range int64(4) {
		blob, err := make(chan Blob, 1), make(chan error, 1)
		wg.Go(func() {
			f, e := in.Follow(t.Context())
			blob <- f
			err <- e
			var out bytes.Buffer
			_, e = f.Send(t.Context(), &out, i*1000, -1)
			if e := errors.Join(e, f.Close()); e != nil || !bytes.Equal(out.Bytes(), b.content[i*1000:]) {
				t.Errorf("%d bytes, %v", out.Len(), e)
			}
		})
		if i == 0 {
			in.SetSize(int64(len(b.content)))
		}
		<-blob
		if e := <-err; e != nil {
			t.Fatal(e)
		}
	}
	if err := write(in, b, 300_000); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestFollowerThatComesAfterTheEndGetsWhatIsKept(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(4, 200_000)
	in := fill(t, s, b)
	if got, err := send(t, in, 0, -1); err != nil || !bytes.Equal(got, b.content) {
		t.Error(len(got), err)
	}
	in = begin(t, s, b)
	in.Abort(io.ErrNoProgress)
	if _, err := in.Follow(t.Context()); !errors.Is(err, io.ErrNoProgress) || errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestFollowerOfTheLastMomentsReadsOn(t *testing.T) {
	t.Parallel()
	bubble(t, Options{Bound: 500_000}, func(t *testing.T, s *Store) {
		b := newSample(5, 400_000)
		in := begin(t, s, b)
		in.SetSize(int64(len(b.content)))
		early, err := in.Follow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := write(in, b, 100_000); err != nil {
			t.Fatal(err)
		}
		late, err := in.Follow(t.Context()) // it is committed, but still followed
		if err != nil {
			t.Fatal(err)
		}
		if in := fill(t, s, newSample(6, 300_000)); in.Stored() {
			t.Error("a blob that is read was evicted")
		}
		for _, blob := range []Blob{early, late} {
			var out bytes.Buffer
			if _, err := blob.Send(t.Context(), &out, 0, -1); err != nil || !bytes.Equal(out.Bytes(), b.content) {
				t.Error(out.Len(), err)
			}
			if err := blob.Verdict(t.Context()); err != nil {
				t.Error(err)
			}
			if err := errors.Join(blob.Close(), blob.Close()); err != nil {
				t.Error(err)
			}
		}
		keep(t, s, newSample(6, 300_000))
		wantGone(t, s, b)
	})
}

// A blob that leaves the shard as damaged while its ingest is still followed
// harms neither.
func TestFollowersOfABlobThatLeftTheShardReadOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, Options{})
	b := newSample(7, 400_000)
	in := begin(t, s, b)
	in.SetSize(int64(len(b.content)))
	early, err := in.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := write(in, b, 100_000); err != nil {
		t.Fatal(err)
	}
	flip(t, b.path(dir)+".meta", 3)
	wantGone(t, s, b)
	keep(t, s, b) // and comes back in another file
	late, err := in.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range []Blob{early, late} {
		var out bytes.Buffer
		if _, err := blob.Send(t.Context(), &out, 0, -1); err != nil || !bytes.Equal(out.Bytes(), b.content) {
			t.Error(out.Len(), err)
		}
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	}
	want(t, s, b)
	if s.Size() != int64(len(b.content)) {
		t.Errorf("%d bytes count", s.Size())
	}
}

// After an ingest has ended its last follower gives back the ingest's file and
// room, perhaps while the writer calls Abort. Run it under the race detector.
func TestFollowersAreTheLastToHoldWhatHasEnded(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	for seed := range uint64(100) {
		b := newSample(seed, chunkSize)
		in := begin(t, s, b)
		in.SetSize(chunkSize)
		f, err := in.Follow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(b.content); err != nil {
			t.Fatal(err)
		}
		if err := in.Commit(); err != nil {
			t.Fatal(err)
		}
		var left sync.WaitGroup
		left.Go(func() { _ = f.Close() })
		runtime.Gosched() // mostly the follower is first then
		in.Abort(nil)
		left.Wait()
	}
}
