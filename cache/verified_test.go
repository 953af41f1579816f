package cache

import (
	"errors"
	"io"
	"testing"
)

// What is verified is counted, on its way in and when it is served.
func TestVerifiedBytesAreCounted(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{Bound: 10 << 20})
	right, wrong := newSample(900, 300_000), newSample(901, 200_000)
	fill(t, s, right)
	in := begin(t, s, sample{digest: wrong.digest})
	in.SetSize(1000)
	if _, err := in.Write(right.content[:1000]); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); !errors.Is(err, ErrDigest) {
		t.Fatal("wrong bytes are committed:", err)
	}
	incoming, _ := s.Verified()
	if want := (Verified{300_000, 1000}); incoming != want {
		t.Errorf("on their way in: %+v, want %+v", incoming, want)
	}
	if _, err := read(t, s, right); err != nil {
		t.Fatal(err)
	}
	if _, held := s.Verified(); held != (Verified{Right: 300_000}) {
		t.Errorf("of what is held: %+v", held)
	}
	flip(t, right.path(s.dir), 299_999)
	b, err := s.Open(right.digest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }() // only read
	if _, err := b.Send(t.Context(), io.Discard, 0, -1); !errors.Is(err, ErrDamaged) {
		t.Error("a damaged blob is served:", err)
	}
	if _, held := s.Verified(); held.Bad != 300_000-chunkSize {
		t.Errorf("of what is held: %+v", held)
	}
}

// Blobs are evicted for one cause or another, and the free disk is known once it was looked
// at.
func TestEvictionsAreCountedByCause(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for name, test := range map[string]struct {
		opts Options
		room int64 // of the disk
		want Stats
	}{
		"the bound":            {Options{Bound: 2 * size}, 100 * size, Stats{Evictions: [causes]uint64{OverBound: 1}}},
		"the registry's bound": {Options{Bound: 10 * size, Shares: map[string]int64{registry: 2 * size}}, 100 * size, Stats{Evictions: [causes]uint64{OverShareBound: 1}}},
		"a full disk":          {Options{Bound: 10 * size}, 2 * size, Stats{Evictions: [causes]uint64{DiskFull: 1}}},
		"no bound, full disk":  {Options{}, 2 * size, Stats{Evictions: [causes]uint64{DiskFull: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &smallDisk{t: t, dir: t.TempDir(), size: size}
			d.room.Store(test.room)
			test.opts.Fault = d.fault
			s := start(t, d.dir, test.opts)
			for i := range uint64(3) {
				keep(t, s, newSample(910+i, size))
			}
			got := s.Stats()[registry]
			if got.Evictions != test.want.Evictions || got.Evicted() != 1 {
				t.Errorf("evicted %v, want %v", got.Evictions, test.want.Evictions)
			}
		})
	}
	s := start(t, t.TempDir(), Options{})
	if free, ok := s.Free(); !ok || free <= 0 {
		t.Errorf("%d bytes are free, %v", free, ok)
	}
	if Cause(0).String() != "bound" || DiskFull.String() != "disk_full" || OverShareBound.String() != "registry_bound" || Idle.String() != "idle" {
		t.Error("causes are called otherwise")
	}
}
