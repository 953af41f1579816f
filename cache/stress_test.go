package cache

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// Many clients pull more than fits, from two registries, one with a share of its
// own. Nobody gets a wrong byte, and the bounds hold at every moment.
func TestShardKeepsItsBoundsUnderLoad(t *testing.T) {
	t.Parallel()
	const bound, share = 1_500_000, 400_000
	s := start(t, t.TempDir(), Options{Bound: bound, Shares: map[string]int64{"small.test": share}})
	blobs := make([]sample, 24)
	for i := range blobs {
		blobs[i] = newSample(uint64(200+i), []int{1000, 60_000, 90_000, 200_000, 350_000}[i%5])
	}
	var flights [24]sync.Mutex // one ingest per blob at a time, as in a node
	var kept atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for range 60 {
				i := r.IntN(len(blobs))
				b := blobs[i]
				if got, err := read(t, s, b); err == nil {
					if err := same(got, b.content); err != nil {
						t.Error(err)
					}
					continue
				} else if !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
				flights[i].Lock()
				reg := []string{registry, "small.test"}[i%2]
				if stored, err := s.Put(t.Context(), b.digest, reg, "", b.content); err != nil {
					t.Error(err)
				} else if stored {
					kept.Add(1)
				}
				flights[i].Unlock()
				if got := s.Size(); got > bound {
					t.Errorf("%d bytes count", got)
				}
				if st := s.Stats()["small.test"]; st.Bytes > share || st.Bound != share {
					t.Errorf("%+v", st)
				}
			}
		})
	}
	wg.Wait()
	tidy(t, s)
	st := s.Stats()
	if kept.Load() < 50 || st[registry].Evicted()+st["small.test"].Evicted() == 0 || st[registry].Bound != bound {
		t.Errorf("%d kept, %+v", kept.Load(), st)
	}
	if len(s.shard.index.pins) != 0 || s.shard.index.shares.total.reserved != 0 || s.shard.index.shares.total.leaving.bytes != 0 {
		t.Errorf("left behind: %d pins, %+v", len(s.shard.index.pins), s.shard.index.shares.total)
	}
}

// Room is made before a file is written, not after.
func TestRoomIsMadeBeforeWriting(t *testing.T) {
	t.Parallel()
	const bound, size = 1_000_000, 300_000
	dir := t.TempDir()
	s := start(t, dir, Options{Bound: bound, Fault: func(op, name string) error {
		if got := usage(t, dir); got > bound || op == "allocate" && got > bound-size {
			t.Errorf("at %s %s: %d bytes on disk", op, name, got)
		}
		return nil
	}})
	for i := range uint64(8) {
		b := newSample(240+i, size)
		in := begin(t, s, b)
		if i%2 == 0 {
			in.SetSize(size)
		}
		for p := b.content; len(p) > 0; p = p[50_000:] {
			if _, err := in.Write(p[:50_000]); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Commit(); err != nil || !in.Stored() {
			t.Error(err, in.Stored())
		}
	}
	tidy(t, s)
}

// The same blob comes in many times at once. One stays, and counts once.
func TestSameBlobComesInManyTimesAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(230, 100_000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := pull(t.Context(), s, b); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want(t, s, b)
	if s.Size() != 100_000 {
		t.Errorf("%d bytes count", s.Size())
	}
	tidy(t, s)
}
