package cache

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// idleFor says that content of the tests' registry stays for so long, and all other for ever.
func idleFor(d time.Duration) func(string) time.Duration {
	return func(of string) time.Duration {
		if of == registry {
			return d
		}
		return 0
	}
}

// Content that nobody asks for goes when its time is over, not before, and for no other
// registry's.
func TestContentThatNobodyAsksForGoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, dir, Options{MaxIdle: idleFor(time.Hour)})
		unused, used, small, open, replica, other := newSample(1, 100_000), newSample(2, 300_000), newSample(3, 100), newSample(4, 200_000), newSample(5, 100_000), newSample(6, 1000)
		for _, b := range []sample{unused, used, small, open} {
			keep(t, s, b)
		}
		for b, of := range map[*sample]string{&replica: registry, &other: "other.example"} {
			in, err := s.Ingest(t.Context(), b.digest, of, "")
			if err != nil {
				t.Fatal(err)
			}
			if of == registry {
				in.Replica()
			}
			if _, err := in.Write(b.content); err != nil {
				t.Fatal(err)
			}
			if err := in.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		reader, err := s.Open(open.digest)
		if err != nil {
			t.Fatal(err)
		}
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		holds := func(when string, wants map[*sample]bool) {
			t.Helper()
			for b, held := range wants {
				if _, ok := s.Stat(b.digest); ok != held {
					t.Errorf("%s: a blob of %d bytes is held: %v, want %v", when, len(b.content), ok, held)
				}
			}
		}
		pass(40 * time.Minute)
		holds("after 40 minutes", map[*sample]bool{&unused: true, &used: true, &small: true, &open: true, &replica: true, &other: true})
		want(t, s, used)
		want(t, s, small)
		pass(21 * time.Minute)
		holds("after 61 minutes", map[*sample]bool{&unused: false, &used: true, &small: true, &open: true, &replica: false, &other: true})
		if n := s.Stats()[registry].Evictions[Idle]; n != 2 {
			t.Errorf("%d evictions are counted, want 2", n)
		}
		pass(40 * time.Minute)
		holds("after 101 minutes", map[*sample]bool{&used: false, &small: false, &open: true})
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
		pass(59 * time.Minute)
		holds("after it was let go", map[*sample]bool{&open: true})
		pass(2 * time.Minute)
		holds("an hour later", map[*sample]bool{&open: false, &other: true})
		if n := usage(t, dir); n != int64(len(other.content)) {
			t.Errorf("%d bytes lie on disk, want those of the other registry alone", n)
		}
	})
}

// What was last used is known after a restart, and without MaxIdle all stays.
func TestIdleContentAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, young := newSample(1, 1000), newSample(2, 2000)
	s := start(t, dir, Options{})
	keep(t, s, old)
	keep(t, s, young)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n, err := nameOf(old.digest)
	if err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, n.path()), then, then); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir, Options{})
	if out := (room{s.shard.index}).expire(time.Now(), idleFor(0), idleBatch); len(out) != 0 {
		t.Error("something goes though it may stay for ever")
	}
	out := (room{s.shard.index}).expire(time.Now(), idleFor(time.Hour), idleBatch)
	if len(out) != 1 || s.shard.index.nameOf(out[0]) != n {
		t.Errorf("%d blobs go, want the old one", len(out))
	}
}

// A store whose bounds get less holds less within seconds, and the bound of a share may go.
func TestBoundsChangeWhileTheStoreIsInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const size = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		s := start(t, dir, Options{Bound: 10 * size, Shares: map[string]int64{registry: 2 * size}})
		hold := func(many int64) {
			t.Helper()
			<-time.After(2 * tendInterval)
			synctest.Wait()
			if s.Size() != many*size || usage(t, dir) != many*size {
				t.Errorf("%d bytes count and %d are there, want %d MiB", s.Size(), usage(t, dir), many)
			}
		}
		for i := range uint64(3) {
			keep(t, s, newSample(10+i, size))
		}
		hold(2)
		s.SetBounds(4*size, nil)
		for i := range uint64(6) {
			keep(t, s, newSample(20+i, size))
		}
		hold(4)
		s.SetBounds(3*size, map[string]int64{registry: size, "other.example": size})
		hold(1)
		if s.Bound() != 3*size || s.Stats()[registry].Bound != size {
			t.Errorf("the bounds are %d and %d", s.Bound(), s.Stats()[registry].Bound)
		}
		s.SetBounds(0, nil)
		for i := range uint64(5) {
			keep(t, s, newSample(30+i, size))
		}
		hold(6)
	})
}
