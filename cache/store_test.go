package cache

import (
	"errors"
	"testing"
)

func TestBlobThatWasKeptIsAHit(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, smallSize, smallSize + 1, chunkSize, chunkSize + 1, segment + 5, 3*segment - 1} {
		s := start(t, t.TempDir(), Options{})
		b := newSample(1, size)
		wantGone(t, s, b)
		keep(t, s, b)
		want(t, s, b)
		if n, ok := s.Stat(b.digest); !ok || n != int64(size) {
			t.Errorf("Stat: %d %v", n, ok)
		}
		if s.Size() != int64(size) {
			t.Errorf("Size: %d", s.Size())
		}
		if err := errors.Join(s.Health(), s.Close()); err != nil {
			t.Error(err)
		}
	}
}
