package cache

import (
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Who watches a shard knows what it holds, however blobs come and go.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := Open(t.TempDir(), Options{Bound: 1 << 20})
	defer func() { _ = s.Close() }()
	if err := s.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	held := map[digest.Digest]bool{}
	s.Stock().Watch(func(d digest.Digest) {
		mu.Lock()
		defer mu.Unlock()
		_, held[d], _ = s.Known(d)
	})
	var first digest.Digest
	for i := range 300 {
		content := make([]byte, 10_000+i)
		d := digest.FromBytes(content)
		if _, err := s.Put(t.Context(), d, "reg.example", "", content); err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = d
		}
		if _, err := s.Put(t.Context(), d, "reg.example", "", content); err != nil { // once more
			t.Fatal(err)
		}
	}
	last := digest.FromBytes(make([]byte, 10_299))
	if _, ok := s.Stock().Remove(t.Context(), last); !ok {
		t.Error("not removed")
	}
	var seen []digest.Digest
	s.Stock().Each(func(registry string, d digest.Digest) {
		if seen = append(seen, d); registry != "reg.example" {
			t.Errorf("%s came from %q", d, registry)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	if len(held) != 300 || held[first] || held[last] {
		t.Errorf("of %d blobs the first and the last are held: %v %v", len(held), held[first], held[last])
	}
	for d, is := range held {
		if _, known, _ := s.Known(d); known != is || is != slices.Contains(seen, d) {
			t.Errorf("%s is held: %v, said %v", d, known, is)
		}
	}
}
