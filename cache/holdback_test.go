package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs a test in fake time with a store.
func bubble(t *testing.T, opts Options, test func(t *testing.T, s *Store)) {
	dir := t.TempDir() // it is removed outside of the bubble
	synctest.Test(t, func(t *testing.T) { test(t, start(t, dir, opts)) })
}

// A heldRange is a range, and up to where it is sent before the verdict.
type heldRange struct{ off, n, held int64 }

// heldRanges are ranges of a blob of size bytes.
func heldRanges(size int64, told bool) []heldRange {
	before := size - 1 // a range that ends before the end is sent as it arrives
	if !told {
		before = size - HoldBack // nobody knows yet where the end is
	}
	return []heldRange{
		{0, -1, size - HoldBack},
		{0, size, size - HoldBack},
		{size - HoldBack - 100, 1 << 40, size - HoldBack},
		{size - 10, 10, 0},
		{1000, 5000, 6000},
		{0, size - 1, before},
	}
}

func TestLastBytesAreHeldBackUntilTheDigestIsKnown(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name  string
		told  bool
		bound int64
	}{{"size told", true, 0}, {"size not told", false, 0}, {"passing", true, 1}, {"passing, size not told", false, 1}}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Options{Bound: kind.bound}, func(t *testing.T, s *Store) { holdBack(t, s, kind.told) })
		})
	}
}

// holdBack checks what followers have got before and after the verdict.
func holdBack(t *testing.T, s *Store, told bool) {
	const size = 1<<20 + 17
	b := newSample(20, size)
	in := begin(t, s, b)
	if told {
		in.SetSize(size)
	} else {
		in.SetSize(-1)
	}
	ranges := heldRanges(size, told)
	gates := make([]gate, len(ranges))
	errs := make(chan error, len(ranges))
	for i, r := range ranges {
		go func() {
			blob, err := in.Follow(t.Context())
			if err == nil {
				_, err = blob.Send(t.Context(), &gates[i], r.off, r.n)
				err = errors.Join(err, blob.Close())
			}
			errs <- err
		}()
	}
	if _, err := in.Write(b.content); err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Hour) // in the bubble's time
	synctest.Wait()
	for i, r := range ranges {
		if got, want := gates[i].n.Load(), max(r.held-r.off, 0); got != want {
			t.Errorf("range %d+%d: %d bytes before the verdict, want %d", r.off, r.n, got, want)
		}
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	for range ranges {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for i, r := range ranges {
		if !bytes.Equal(gates[i].buf.Bytes(), b.span(r.off, r.n)) {
			t.Errorf("range %d+%d: wrong bytes", r.off, r.n)
		}
	}
}

func TestNobodyCompletesABodyThatIsNotRight(t *testing.T) {
	t.Parallel()
	right := newSample(21, 300_000)
	tests := []struct {
		name    string
		content []byte
		told    int64
		want    error
	}{
		{"a wrong byte", append(bytes.Clone(right.content[:299_999]), right.content[299_999]^1), 300_000, ErrDigest},
		{"a wrong byte, size not told", append(bytes.Clone(right.content[:299_999]), right.content[299_999]^1), -1, ErrDigest},
		{"too short", right.content[:299_000], 300_000, io.ErrUnexpectedEOF},
		{"too short, size not told", right.content[:299_000], -1, ErrDigest},
		{"too long", append(bytes.Clone(right.content), 1), 300_000, ErrDigest},
		{"too long, size not told", append(bytes.Clone(right.content), 1), -1, ErrDigest},
		{"nothing", nil, 300_000, io.ErrUnexpectedEOF},
		{"nothing, size not told", nil, -1, ErrDigest},
	}
	for _, bound := range []int64{0, 1} {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, Options{Bound: bound}, func(t *testing.T, s *Store) { wrongBody(t, s, right, test.content, test.told, test.want) })
			})
		}
	}
}

// wrongBody brings content in as b. The writer, a follower and a caller of Verdict
// must get the error cause, and nothing may be left.
func wrongBody(t *testing.T, s *Store, b sample, content []byte, told int64, cause error) {
	in := begin(t, s, b)
	in.SetSize(told)
	var g gate
	done := make(chan error, 2)
	go func() {
		blob, err := in.Follow(t.Context())
		if err != nil { // nothing could be sent before it was known to be wrong
			done <- err
			done <- err
			return
		}
		_, err = blob.Send(t.Context(), &g, 0, -1)
		done <- err
		verdict := blob.Verdict(t.Context())
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
		done <- verdict
	}()
	_, err := in.Write(content)
	if err != nil {
		in.Abort(err)
	} else {
		err = in.Commit()
	}
	for range 2 {
		if got := <-done; !errors.Is(got, cause) || !errors.Is(err, cause) {
			t.Errorf("follower: %v, writer: %v, want %v", got, err, cause)
		}
	}
	if g.n.Load() > int64(len(b.content))-HoldBack {
		t.Errorf("%d bytes were sent", g.n.Load())
	}
	wantGone(t, s, b)
	if s.Size() != 0 || temporaries(t, s.dir) != 0 {
		t.Errorf("%d bytes, %d files are left", s.Size(), temporaries(t, s.dir))
	}
}

// A blob no longer than HoldBack fails before its first byte.
func TestSmallBlobFailsBeforeItsFirstByte(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, func(t *testing.T, s *Store) {
		b := newSample(22, HoldBack)
		in := begin(t, s, b)
		failed := make(chan error)
		go func() {
			_, err := in.Follow(t.Context())
			failed <- err
		}()
		in.SetSize(HoldBack)
		_, err := in.Write(make([]byte, HoldBack))
		if err := errors.Join(err, in.Commit()); !errors.Is(err, ErrDigest) {
			t.Error(err)
		}
		if err := <-failed; !errors.Is(err, ErrDigest) {
			t.Error(err)
		}
	})
}

func TestFollowerWaitsOnlyAsLongAsItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, func(t *testing.T, s *Store) {
		gone := errors.New("client has gone")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, gone)
		defer cancel()
		b := newSample(23, 200_000)
		in := begin(t, s, b)
		if _, err := in.Follow(ctx); !errors.Is(err, gone) {
			t.Error("Follow:", err)
		}
		in.SetSize(200_000)
		blob, err := in.Follow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := blob.Send(ctx, discard{}, 0, -1); !errors.Is(err, gone) {
			t.Error("Send:", err)
		}
		if err := blob.Verdict(ctx); !errors.Is(err, gone) {
			t.Error("Verdict:", err)
		}
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
		if err := write(in, b, 1000); err != nil { // without followers it goes on
			t.Error(err)
		}
		want(t, s, b)
	})
}

// Bytes that trickle in reach the follower at once: it does not wait for a batch.
func TestTrickleIsNotHeldUp(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, func(t *testing.T, s *Store) {
		b := newSample(24, 2<<20)
		in := begin(t, s, b)
		in.SetSize(int64(len(b.content)))
		blob, err := in.Follow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var g gate
		done := make(chan error)
		go func() {
			_, err := blob.Send(t.Context(), &g, 0, -1)
			done <- err
		}()
		for i := range 10 {
			if _, err := in.Write(b.content[i*1000 : (i+1)*1000]); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * linger) // in the bubble's time
			synctest.Wait()
			if got := g.n.Load(); got != int64(i+1)*1000 {
				t.Errorf("%d bytes of %d came", got, (i+1)*1000)
			}
		}
		in.Abort(io.ErrNoProgress)
		if err := <-done; !errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
		_ = blob.Close()
	})
}
