package cache

import (
	"context"
	"io"
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// smallSize is up to which size a blob is kept in memory too: one write from
// there costs less than opening a file and sendfile.
const smallSize = 64 << 10

// A memoryBlob is a small blob's content.
type memoryBlob struct {
	content   []byte
	mediaType string
}

// Size implements Blob.
func (b *memoryBlob) Size() int64 { return int64(len(b.content)) }

// Verdict implements Blob.
func (b *memoryBlob) Verdict(context.Context) error { return nil }

// Close implements Blob.
func (b *memoryBlob) Close() error { return nil }

// Send implements Blob.
func (b *memoryBlob) Send(_ context.Context, w io.Writer, off, n int64) (int64, error) {
	end := min(endOf(off, n), b.Size())
	if off >= end {
		return 0, nil
	}
	k, err := w.Write(b.content[off:end])
	return int64(k), err
}

// overhead is roughly what a blob in memory costs beside its content, so that a
// great many tiny blobs keep within the bound too.
const overhead = 512

// cost is how many bytes the blob counts in memory.
func (b *memoryBlob) cost() int64 { return b.Size() + overhead }

// small holds the small blobs in memory, up to a bound in bytes; the least
// recently used go first. What it holds the index holds too.
type small struct {
	bound int64

	mu    sync.Mutex // guards the fields below; never held during I/O
	bytes int64
	blobs *simplelru.LRU[name, *memoryBlob]
}

func newSmall(bound int64) *small {
	s := &small{bound: bound}
	// It fails only for a size below 1; the bound is in bytes, not in blobs.
	s.blobs, _ = simplelru.NewLRU(math.MaxInt, func(_ name, b *memoryBlob) { s.bytes -= b.cost() })
	return s
}

// get returns a blob and counts as use.
func (s *small) get(n name) (*memoryBlob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blobs.Get(n)
}

// put keeps a blob, and drops others for it. A manifest stays a manifest when it
// comes as a blob again.
func (s *small) put(n name, b *memoryBlob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.mediaType == "" && s.blobs.Contains(n) {
		return
	}
	s.blobs.Remove(n)
	s.blobs.Add(n, b)
	for s.bytes += b.cost(); s.bytes > s.bound; {
		s.blobs.RemoveOldest()
	}
}

// remove drops a blob.
func (s *small) remove(n name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs.Remove(n)
}

// clear drops all blobs.
func (s *small) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs.Purge()
}
