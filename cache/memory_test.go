package cache

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestSmallBlobsComeFromMemory(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{Memory: 10 * (1000 + overhead)})
	blobs := make([]sample, 15)
	for i := range blobs {
		blobs[i] = newSample(uint64(100+i), 1000)
		keep(t, s, blobs[i])
		want(t, s, blobs[0]) // the most recently used stays
	}
	for i, b := range blobs {
		_, ok := s.shard.small.get(mustName(b))
		if inMemory := i == 0 || i > 5; ok != inMemory {
			t.Errorf("blob %d in memory: %v", i, ok)
		}
	}
	if err := os.Remove(blobs[0].path(s.dir)); err != nil {
		t.Fatal(err)
	}
	want(t, s, blobs[0])
	want(t, s, blobs[1])
}

func TestEvictedBlobLeavesMemory(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{Bound: 2500})
	a, b, c := newSample(120, 1000), newSample(121, 1000), newSample(122, 1000)
	keep(t, s, a)
	keep(t, s, b)
	want(t, s, a)
	keep(t, s, c)
	wantGone(t, s, b)
	want(t, s, a)
	if s.shard.small.blobs.Len() != 2 {
		t.Errorf("%d blobs in memory", s.shard.small.blobs.Len())
	}
}

func TestMadeUpSha512DoesNotCostTheSha256(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	for _, b := range []sample{newSample(123, 100), newSample(124, 100_000)} {
		keep(t, s, b)
		made := digest.NewDigestFromEncoded(digest.SHA512, b.digest.Encoded()+b.digest.Encoded())
		if _, err := s.Open(made); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if _, ok := s.Stat(made); ok {
			t.Error("Stat knows it")
		}
		want(t, s, b)
	}
}

func TestTagsAreRemembered(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	now := time.Now().UTC().Round(0)
	tag := func(key string, i int) Tag {
		return Tag{Key: key, Digest: digest.FromString(fmt.Sprint(i)), MediaType: "m", Size: int64(i), Checked: now.Add(time.Duration(i) * time.Hour)}
	}
	for i := range 3 {
		s.SetTag(tag("a", i))
		s.SetTag(tag("../../etc", i))
	}
	s.SetTag(tag("b", 1))
	s.ForgetTag("b")
	s.ForgetTag("never")
	for range 2 {
		for _, key := range []string{"a", "../../etc"} {
			if got, ok := s.Tag(key); !ok || got != tag(key, 2) {
				t.Errorf("%s: %+v", key, got)
			}
		}
		for _, key := range []string{"b", "", "c"} {
			if got, ok := s.Tag(key); ok {
				t.Errorf("%s: %+v", key, got)
			}
		}
		s = restart(t, s, Options{})
	}
	path := s.dir + "/" + placesOf(t, s).of("a")
	for at := range int64(100) {
		s = restart(t, s, Options{})
		flip(t, path, at)
		if got, ok := s.Tag("a"); ok {
			t.Errorf("flipped at %d: %+v", at, got)
		}
		flip(t, path, at)
	}
}

func TestTagsAreWrittenWhenTheyChange(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	writes := 0
	s := start(t, t.TempDir(), Options{Fault: func(op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == "write" {
			writes++
		}
		return nil
	}})
	placesOf(t, s) // draws the key, which is written once
	mu.Lock()
	writes = 0
	mu.Unlock()
	now := time.Now()
	one, two := digest.FromString("1"), digest.FromString("2")
	steps := []struct {
		tag    Tag
		writes int
	}{
		{Tag{Key: "a", Digest: one, Checked: now}, 1},
		{Tag{Key: "a", Digest: one, Checked: now.Add(tagNoted - 1)}, 1},
		{Tag{Key: "a", Digest: one, Checked: now.Add(tagNoted)}, 2},
		{Tag{Key: "a", Digest: two, Checked: now.Add(tagNoted)}, 3},
		{Tag{Key: "b", Digest: two, Checked: now}, 4},
	}
	for i, step := range steps {
		s.SetTag(step.tag)
		if writes != step.writes {
			t.Errorf("step %d: %d writes", i, writes)
		}
		if got, ok := s.Tag(step.tag.Key); !ok || got != step.tag {
			t.Errorf("step %d: %+v", i, got)
		}
	}
	for i := range maxTags + 10 { // memory is bounded; the files have all
		s.tags.keep(Tag{Key: fmt.Sprint("many", i)})
	}
	if n := s.tags.memory.Len(); n > maxTags {
		t.Error(n, "tags in memory")
	}
	if got, ok := s.Tag("a"); !ok || got.Digest != two {
		t.Errorf("%+v", got)
	}
}
