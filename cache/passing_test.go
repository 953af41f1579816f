package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A slow writer takes its time for each write and compares what comes.
type slow struct {
	want  []byte
	n     int
	pause time.Duration
	wrong bool
}

func (w *slow) Write(p []byte) (int, error) {
	<-time.After(w.pause) // in the bubble's time
	w.wrong = w.wrong || !bytes.HasPrefix(w.want[w.n:], p)
	w.n += len(p)
	return len(p), nil
}

// Nobody waits for slow readers. They learn at which byte they fell behind. A
// reader as fast as the others never falls behind.
func TestPassingBlobIsSharedByItsReaders(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		speeds []int // milliseconds per write of 64 KiB
		behind int
		atMost time.Duration
	}{
		{"eight of equal speed", []int{0, 0, 0, 0, 0, 0, 0, 0}, 0, time.Second},
		{"eight that are all slow", []int{9, 9, 9, 9, 9, 9, 9, 9}, 0, time.Minute},
		{"one a little slower", []int{1, 1, 2, 1}, 0, time.Minute},
		{"laggards", []int{1, 1, 1, 500, 1, 900}, 2, 4 * time.Second},
		{"a slow one alone", []int{200}, 0, time.Hour},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Options{Bound: 1 << 20}, func(t *testing.T, s *Store) {
				behind, took := passTo(t, s, test.speeds)
				if behind != test.behind || took > test.atMost {
					t.Errorf("%d fell behind, want %d; it took %v", behind, test.behind, took)
				}
			})
		})
	}
}

// passTo lets a blob pass to readers of the given speeds, and returns how many
// fell behind and how long it took.
func passTo(t *testing.T, s *Store, speeds []int) (behind int, took time.Duration) {
	b := newSample(30, 12<<20)
	in := begin(t, s, b)
	var wg sync.WaitGroup
	errs := make([]error, len(speeds))
	for i, d := range speeds {
		wg.Go(func() {
			out := &slow{want: b.content, pause: time.Duration(d) * time.Millisecond}
			blob, err := in.Follow(t.Context())
			if err == nil {
				_, errs[i] = blob.Send(t.Context(), out, 0, -1)
				err = blob.Close()
			}
			if err != nil || out.wrong || errs[i] == nil && out.n != len(b.content) {
				t.Errorf("reader %d: %d bytes, %v", i, out.n, err)
			}
		})
	}
	joined(t, in, len(speeds))
	began := time.Now()
	if err := write(in, b, 32<<10); err != nil {
		t.Error(err)
	}
	took = time.Since(began)
	wg.Wait()
	for _, err := range errs {
		if errors.Is(err, ErrBehind) {
			behind++
		} else if err != nil {
			t.Error(err)
		}
	}
	wantGone(t, s, b)
	if s.Size() != 0 || temporaries(t, s.dir) != 0 {
		t.Errorf("%d bytes, %d files are left", s.Size(), temporaries(t, s.dir))
	}
	return behind, took
}

func TestPassingBlobThatNobodyReadsIsAbandoned(t *testing.T) {
	t.Parallel()
	bubble(t, Options{Bound: 1 << 20}, func(t *testing.T, s *Store) {
		b := newSample(31, 6<<20)
		in := begin(t, s, b)
		began := time.Now()
		if err := write(in, b, 32<<10); !errors.Is(err, ErrAbandoned) {
			t.Error(err)
		}
		if took := time.Since(began); took != abandon {
			t.Errorf("after %v", took)
		}
		if _, err := in.Follow(t.Context()); !errors.Is(err, ErrAbandoned) {
			t.Error(err)
		}
	})
}

func TestPassingBlobWaitsForItsFirstReader(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, 3 << 20, 6 << 20} {
		bubble(t, Options{Bound: 1}, func(t *testing.T, s *Store) {
			b := newSample(32, size)
			in := begin(t, s, b)
			done := make(chan error)
			go func() { done <- write(in, b, 32<<10) }()
			<-time.After(abandon - time.Second) // in the bubble's time
			got, err := send(t, in, 0, -1)
			if err != nil || !bytes.Equal(got, b.content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPassingIngestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, Options{Bound: 1}, func(t *testing.T, s *Store) {
		ctx, cancel := context.WithCancel(t.Context())
		b := newSample(33, 6<<20)
		in, err := s.Ingest(ctx, b.digest, registry, "")
		if err != nil {
			t.Fatal(err)
		}
		blob, done := make(chan Blob, 1), make(chan error)
		go func() {
			f, _ := in.Follow(t.Context())
			blob <- f
		}()
		go func() { done <- write(in, b, 32<<10) }()
		f := <-blob
		synctest.Wait() // the reader does not read, the writer waits
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		_ = f.Close()
	})
}

// Tiny writes don't make the window larger.
func TestWindowHoldsTinyWritesInBlocks(t *testing.T) {
	t.Parallel()
	w := window{all: NewWindows(1 << 20)}
	content := newSample(34, 3*blockSize+7).content
	for i := range content {
		w.push(content[i : i+1])
	}
	if len(w.blocks) != 4 || w.length != int64(len(content)) {
		t.Fatalf("%d blocks, %d bytes", len(w.blocks), w.length)
	}
	w.drop()
	for off := int64(blockSize); off < w.base+w.length; off += 1001 {
		if p := w.at(off); len(p) == 0 || !bytes.HasPrefix(content[off:], p) {
			t.Fatal("wrong bytes at", off)
		}
	}
}

// One write may be larger than the window, and the size may be unknown.
func TestOneHugeWritePasses(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		bubble(t, Options{Bound: 1}, func(t *testing.T, s *Store) {
			b := newSample(35, 10<<20+1)
			in := begin(t, s, b)
			done := make(chan error)
			go func() {
				got, err := send(t, in, 0, -1)
				done <- errors.Join(err, same(got, b.content))
			}()
			if told {
				in.SetSize(int64(len(b.content)))
			}
			if _, err := in.Write(b.content); err != nil {
				t.Error(err)
			}
			if err := errors.Join(in.Commit(), <-done); err != nil {
				t.Error(err)
			}
		})
	}
}

// A reader that left for another source because of the disk holds up nobody.
func TestReaderOfABadDiskDoesNotHoldUpTheWriter(t *testing.T) {
	t.Parallel()
	var full, unreadable atomic.Bool
	opts := Options{Bound: 64 << 20, Fault: func(op, _ string) error {
		if full.Load() && op == "write" || unreadable.Load() && (op == "read" || op == "send") {
			return syscall.EIO
		}
		return nil
	}}
	bubble(t, opts, func(t *testing.T, s *Store) {
		b := newSample(33, 12<<20)
		in := begin(t, s, b)
		in.SetSize(int64(len(b.content)))
		if _, err := in.Write(b.content[:1<<20]); err != nil {
			t.Fatal(err)
		}
		blob, err := in.Follow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		full.Store(true)
		unreadable.Store(true)
		if _, err := blob.Send(t.Context(), io.Discard, 0, -1); !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // in the bubble's time
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- blob.Verdict(ctx) }()
		if _, err := in.Write(b.content[1<<20:]); err != nil {
			t.Error(err)
		}
		if err := in.Commit(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error("verdict:", err)
		}
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	})
}
